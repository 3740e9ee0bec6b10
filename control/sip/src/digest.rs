//! Digest authentication (RFC 7616, RFC 8760): challenges read, answered, made and checked.

use md5::Md5;
use rand::Rng;
use sha2::{Digest, Sha256, Sha512_256};

use crate::message::{AuthValue, HeaderError, Headers, quote};

/// A digest algorithm we know, from weakest to strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    Md5,
    Sha512Slash256,
    Sha256,
}

impl Algorithm {
    /// Its name in `algorithm`.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha512Slash256 => "SHA-512-256",
            Algorithm::Sha256 => "SHA-256",
        }
    }

    /// The algorithm of a name and whether it is its `-sess` form. Absent means MD5.
    fn parse(name: Option<&str>) -> Option<(Algorithm, bool)> {
        let name = name.unwrap_or("MD5");
        let base = name
            .len()
            .checked_sub(5)
            .filter(|at| name.is_char_boundary(*at));
        let session = base.is_some_and(|at| name[at..].eq_ignore_ascii_case("-sess"));
        let base = if session {
            &name[..name.len() - 5]
        } else {
            name
        };
        let known = [Algorithm::Md5, Algorithm::Sha512Slash256, Algorithm::Sha256];
        let found = known
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(base));
        found.map(|algorithm| (algorithm, session))
    }

    fn hex(self, text: &[u8]) -> String {
        let bytes: Vec<u8> = match self {
            Algorithm::Md5 => Md5::digest(text).to_vec(),
            Algorithm::Sha512Slash256 => Sha512_256::digest(text).to_vec(),
            Algorithm::Sha256 => Sha256::digest(text).to_vec(),
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A Digest challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    pub realm: String,
    pub nonce: String,
    pub opaque: Option<String>,
    pub algorithm: Algorithm,
    /// The `-sess` form of the algorithm.
    pub session: bool,
    /// Whether the old nonce was merely outdated: the same password will do.
    pub stale: bool,
    pub qop_auth: bool,
    pub qop_auth_int: bool,
}

impl Challenge {
    /// A challenge of ours with a fresh nonce: qop `auth`.
    pub fn new(realm: &str, algorithm: Algorithm, random: &mut impl Rng) -> Challenge {
        Challenge {
            realm: realm.to_owned(),
            nonce: format!("{:032x}", random.random::<u128>()),
            opaque: None,
            algorithm,
            session: false,
            stale: false,
            qop_auth: true,
            qop_auth_int: false,
        }
    }

    /// Reads a challenge.
    ///
    /// # Errors
    /// Another scheme, an unknown algorithm, no realm or nonce, or only unknown qop values.
    pub fn parse(value: &AuthValue) -> Result<Challenge, HeaderError> {
        let error = |why| HeaderError {
            header: "WWW-Authenticate",
            why,
        };
        if !value.is_digest() {
            return Err(error("not Digest"));
        }
        let name = value.get("algorithm");
        let (algorithm, session) =
            Algorithm::parse(name.as_deref()).ok_or_else(|| error("unknown algorithm"))?;
        let qop = value.get("qop");
        let offers = |wanted: &str| {
            let qop = qop.as_deref().unwrap_or("");
            qop.split(',')
                .any(|item| item.trim().eq_ignore_ascii_case(wanted))
        };
        let (qop_auth, qop_auth_int) = (offers("auth"), offers("auth-int"));
        if qop.is_some() && !qop_auth && !qop_auth_int {
            return Err(error("unknown qop"));
        }
        let stale = value
            .get("stale")
            .is_some_and(|text| text.eq_ignore_ascii_case("true"));
        Ok(Challenge {
            realm: value
                .get("realm")
                .ok_or_else(|| error("no realm"))?
                .into_owned(),
            nonce: value
                .get("nonce")
                .ok_or_else(|| error("no nonce"))?
                .into_owned(),
            opaque: value.get("opaque").map(|text| text.into_owned()),
            algorithm,
            session,
            stale,
            qop_auth,
            qop_auth_int,
        })
    }

    /// The strongest challenge we can answer among those of a 401 (`WWW-Authenticate`) or 407
    /// (`Proxy-Authenticate`).
    pub fn strongest(headers: &Headers, name: &str) -> Option<Challenge> {
        let fields = headers.get_all(name);
        let values = fields
            .filter_map(|text| AuthValue::parse_all(&text).ok())
            .flatten();
        let known = values.filter_map(|value| Challenge::parse(&value).ok());
        // Of equals the first counts: servers put what they prefer on top.
        known.reduce(|best, next| {
            if next.algorithm > best.algorithm {
                next
            } else {
                best
            }
        })
    }

    /// The value of the header that puts this challenge.
    pub fn to_header(&self) -> String {
        let suffix = if self.session { "-sess" } else { "" };
        let mut text = format!(
            "Digest realm={}, nonce={}",
            quote(&self.realm),
            quote(&self.nonce)
        );
        if let Some(opaque) = &self.opaque {
            text.push_str(&format!(", opaque={}", quote(opaque)));
        }
        text.push_str(&format!(", algorithm={}{suffix}", self.algorithm.as_str()));
        match (self.qop_auth, self.qop_auth_int) {
            (true, true) => text.push_str(", qop=\"auth,auth-int\""),
            (true, false) => text.push_str(", qop=\"auth\""),
            (false, true) => text.push_str(", qop=\"auth-int\""),
            (false, false) => {}
        }
        if self.stale {
            text.push_str(", stale=true");
        }
        text
    }
}

/// What a request is authenticated by.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    pub method: &'a str,
    /// The digest URI: the Request-URI.
    pub uri: &'a str,
    pub body: &'a [u8],
}

/// One set of credentials against one challenge; counts its uses.
#[derive(Clone, Debug)]
pub struct DigestClient {
    username: String,
    password: String,
    challenge: Challenge,
    cnonce: String,
    nonce_count: u32,
}

impl DigestClient {
    /// Credentials for a challenge, with a fresh client nonce.
    pub fn new(
        username: &str,
        password: &str,
        challenge: Challenge,
        random: &mut impl Rng,
    ) -> DigestClient {
        DigestClient {
            username: username.to_owned(),
            password: password.to_owned(),
            challenge,
            cnonce: format!("{:016x}", random.random::<u64>()),
            nonce_count: 0,
        }
    }

    /// The value of Authorization (after 401) or Proxy-Authorization (after 407).
    pub fn answer(&mut self, exchange: &Exchange<'_>) -> String {
        self.nonce_count += 1;
        let challenge = &self.challenge;
        let qop = match (challenge.qop_auth, challenge.qop_auth_int) {
            (true, _) => Some("auth"),
            (false, true) => Some("auth-int"),
            (false, false) => None,
        };
        let count = format!("{:08x}", self.nonce_count);
        let proof = Proof {
            algorithm: challenge.algorithm,
            session: challenge.session,
            username: &self.username,
            realm: &challenge.realm,
            password: &self.password,
            nonce: &challenge.nonce,
            cnonce: &self.cnonce,
            count: &count,
            qop,
        };
        let response = proof.compute(exchange);
        let suffix = if challenge.session { "-sess" } else { "" };
        let mut text = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\", algorithm={}{suffix}",
            quote(&self.username),
            quote(&challenge.realm),
            quote(&challenge.nonce),
            quote(exchange.uri),
            challenge.algorithm.as_str(),
        );
        if qop.is_some() || challenge.session {
            text.push_str(&format!(", cnonce=\"{}\"", self.cnonce));
        }
        if let Some(qop) = qop {
            text.push_str(&format!(", qop={qop}, nc={count}"));
        }
        if let Some(opaque) = &challenge.opaque {
            text.push_str(&format!(", opaque={}", quote(opaque)));
        }
        text
    }
}

/// Why credentials are not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("no digest credentials, or one of their parameters is missing")]
    Malformed,
    #[error("for another realm, nonce, algorithm or URI than ours")]
    Mismatch,
    #[error("wrong user or password")]
    Wrong,
}

/// Checks received credentials against the challenge they answer, and gives the nonce count
/// they were made with (0 without qop): the caller sees to it that none is used twice.
///
/// # Errors
/// Malformed, not for this challenge, or wrong.
pub fn verify(
    credentials: &AuthValue,
    challenge: &Challenge,
    password: &str,
    exchange: &Exchange<'_>,
) -> Result<u32, DigestError> {
    if !credentials.is_digest() {
        return Err(DigestError::Malformed);
    }
    let needed = |name| credentials.get(name).ok_or(DigestError::Malformed);
    let (username, realm, nonce) = (needed("username")?, needed("realm")?, needed("nonce")?);
    let (uri, response) = (needed("uri")?, needed("response")?);
    let name = credentials.get("algorithm");
    let algorithm = Algorithm::parse(name.as_deref()).ok_or(DigestError::Mismatch)?;
    let same = realm == challenge.realm
        && nonce == challenge.nonce
        && algorithm == (challenge.algorithm, challenge.session)
        && uri == exchange.uri;
    if !same {
        return Err(DigestError::Mismatch);
    }
    let qop = credentials.get("qop");
    let allowed = match qop.as_deref() {
        Some("auth") => challenge.qop_auth,
        Some("auth-int") => challenge.qop_auth_int,
        None => !challenge.qop_auth && !challenge.qop_auth_int,
        Some(_) => false,
    };
    if !allowed {
        return Err(DigestError::Mismatch);
    }
    let count = credentials.get("nc").unwrap_or_default();
    let cnonce = credentials.get("cnonce").unwrap_or_default();
    let proof = Proof {
        algorithm: algorithm.0,
        session: algorithm.1,
        username: &username,
        realm: &realm,
        password,
        nonce: &nonce,
        cnonce: &cnonce,
        count: &count,
        qop: qop.as_deref(),
    };
    let expected = proof.compute(exchange);
    if !same_secret(
        expected.as_bytes(),
        response.to_ascii_lowercase().as_bytes(),
    ) {
        return Err(DigestError::Wrong);
    }
    match qop {
        Some(_) => u32::from_str_radix(&count, 16).map_err(|_| DigestError::Malformed),
        None => Ok(0),
    }
}

/// Compares without telling by its duration where the difference is.
fn same_secret(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .fold(0, |sum, (left, right)| sum | (left ^ right))
            == 0
}

/// All that goes into a response (RFC 7616 section 3.4.1).
struct Proof<'a> {
    algorithm: Algorithm,
    session: bool,
    username: &'a str,
    realm: &'a str,
    password: &'a str,
    nonce: &'a str,
    cnonce: &'a str,
    count: &'a str,
    qop: Option<&'a str>,
}

impl Proof<'_> {
    fn compute(&self, exchange: &Exchange<'_>) -> String {
        let hash = |text: String| self.algorithm.hex(text.as_bytes());
        let Proof {
            username,
            realm,
            password,
            nonce,
            cnonce,
            count,
            ..
        } = self;
        let mut secret = hash(format!("{username}:{realm}:{password}"));
        if self.session {
            secret = hash(format!("{secret}:{nonce}:{cnonce}"));
        }
        let Exchange { method, uri, body } = exchange;
        let request = match self.qop {
            Some("auth-int") => hash(format!("{method}:{uri}:{}", self.algorithm.hex(body))),
            _ => hash(format!("{method}:{uri}")),
        };
        match self.qop {
            Some(qop) => hash(format!("{secret}:{nonce}:{count}:{cnonce}:{qop}:{request}")),
            None => hash(format!("{secret}:{nonce}:{request}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7616 section 3.9.1.
    fn example(algorithm: Algorithm) -> Proof<'static> {
        Proof {
            algorithm,
            session: false,
            username: "Mufasa",
            realm: "http-auth@example.org",
            password: "Circle of Life",
            nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            count: "00000001",
            qop: Some("auth"),
        }
    }

    #[test]
    fn the_rfcs_examples() {
        let exchange = Exchange {
            method: "GET",
            uri: "/dir/index.html",
            body: b"",
        };
        assert_eq!(
            example(Algorithm::Md5).compute(&exchange),
            "8ca523f5e9506fed4657c9700eebdbec"
        );
        assert_eq!(
            example(Algorithm::Sha256).compute(&exchange),
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
        );
    }

    fn challenges(text: &str) -> Headers {
        let mut headers = Headers::new();
        headers.append("Proxy-Authenticate", text);
        headers
    }

    #[test]
    fn the_strongest_challenge_is_taken_commas_in_quotes_or_not() {
        let headers = challenges(
            "Digest realm=\"a, b\", nonce=\"1\", algorithm=MD5, qop=\"auth,auth-int\", \
             Digest realm=\"a, b\", nonce=\"2\", algorithm=SHA-256, qop=\"auth\", Digest realm=\"x\", nonce=\"3\", algorithm=FUTURE",
        );
        let challenge = Challenge::strongest(&headers, "Proxy-Authenticate").unwrap();
        assert_eq!(
            (challenge.realm.as_str(), challenge.nonce.as_str()),
            ("a, b", "2")
        );
        assert_eq!(challenge.algorithm, Algorithm::Sha256);
        assert!(
            Challenge::strongest(&challenges("Basic realm=\"x\""), "Proxy-Authenticate").is_none()
        );
    }

    #[test]
    fn answers_are_accepted_once_right_and_refused_when_anything_differs() {
        let mut random = rand::rng();
        let exchange = Exchange {
            method: "INVITE",
            uri: "sip:b@h",
            body: b"v=0",
        };
        for (algorithm, session, qop_auth, qop_auth_int) in [
            (Algorithm::Md5, false, false, false),
            (Algorithm::Md5, true, true, false),
            (Algorithm::Sha256, false, true, true),
            (Algorithm::Sha256, true, false, true),
            (Algorithm::Sha512Slash256, false, true, false),
        ] {
            let mut challenge = Challenge::new("a \"realm\"", algorithm, &mut random);
            challenge.session = session;
            challenge.qop_auth = qop_auth;
            challenge.qop_auth_int = qop_auth_int;
            challenge.opaque = Some("o,p".into());
            let sent = challenges(&challenge.to_header());
            let read = Challenge::strongest(&sent, "Proxy-Authenticate").unwrap();
            assert_eq!(read, challenge);
            let mut client = DigestClient::new("al,ice", "secret", read, &mut random);
            let answer = |text: &str| AuthValue::parse_all(text).unwrap().remove(0);
            let first = answer(&client.answer(&exchange));
            let second = answer(&client.answer(&exchange));
            let qop = u32::from(qop_auth || qop_auth_int);
            assert_eq!(verify(&first, &challenge, "secret", &exchange), Ok(qop));
            assert_eq!(
                verify(&second, &challenge, "secret", &exchange),
                Ok(2 * qop)
            );
            assert_eq!(
                verify(&first, &challenge, "other", &exchange),
                Err(DigestError::Wrong)
            );
            let bye = Exchange {
                method: "BYE",
                ..exchange
            };
            assert_eq!(
                verify(&first, &challenge, "secret", &bye),
                Err(DigestError::Wrong)
            );
            let elsewhere = Exchange {
                uri: "sip:c@h",
                ..exchange
            };
            assert_eq!(
                verify(&first, &challenge, "secret", &elsewhere),
                Err(DigestError::Mismatch)
            );
            if qop_auth_int && !qop_auth {
                let body = Exchange {
                    body: b"v=1",
                    ..exchange
                };
                assert_eq!(
                    verify(&first, &challenge, "secret", &body),
                    Err(DigestError::Wrong)
                );
            }
        }
    }
}
