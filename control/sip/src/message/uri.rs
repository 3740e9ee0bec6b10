//! URIs: sip, sips and tel taken apart, any other kept whole (RFC 3261 section 19.1, RFC 3966,
//! RFC 8141). The text is kept as written; parts are ranges of it.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::HeaderError;
use super::text::{percent_decode, percent_encode_user};

/// The scheme of a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Sip,
    Sips,
    Tel,
    Urn,
    /// Any other scheme: a request to it is answered 416.
    Other,
}

/// A URI, lossless: `to_string` gives what was parsed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Uri {
    text: String,
    scheme: Scheme,
    /// User part without password; the number of a tel URI; empty range where absent.
    user: Option<Range<usize>>,
    password: Option<Range<usize>>,
    host: Range<usize>,
    port: Option<u16>,
    /// Parameters without the first `;`.
    params: Range<usize>,
    /// Headers without the `?`.
    headers: Option<Range<usize>>,
}

impl Uri {
    /// A SIP URI of user (plain text, encoded here), host (an IPv6 address with or without
    /// brackets) and port.
    ///
    /// # Errors
    /// When the host is none.
    pub fn sip(user: Option<&str>, host: &str, port: Option<u16>) -> Result<Uri, HeaderError> {
        let user = user
            .map(|user| percent_encode_user(user) + "@")
            .unwrap_or_default();
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Uri::from_str(&format!("sip:{user}{}{port}", bracketed(host)))
    }

    /// The whole URI as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The scheme as written.
    pub fn scheme_text(&self) -> &str {
        self.text.split(':').next().unwrap_or("")
    }

    /// Whether it is a `sip` or `sips` URI.
    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// The user part, or the number of a tel URI, as written (escapes kept), without password.
    pub fn user(&self) -> Option<&str> {
        self.user.clone().map(|range| &self.text[range])
    }

    /// The user part, or the number of a tel URI, percent-decoded.
    pub fn user_decoded(&self) -> Option<Cow<'_, str>> {
        self.user().map(percent_decode)
    }

    pub fn password(&self) -> Option<&str> {
        self.password.clone().map(|range| &self.text[range])
    }

    /// The host as written (IPv6 in brackets); empty for schemes without one.
    pub fn host(&self) -> &str {
        &self.text[self.host.clone()]
    }

    /// The host as an IP address, if it is one. The three-colon form that RFC 5118 section
    /// 4.10 tells of is read as two colons.
    pub fn host_ip(&self) -> Option<IpAddr> {
        host_ip(self.host())
    }

    /// The port as written, `None` when absent.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// What follows the scheme's colon, for schemes that are not taken apart.
    pub fn opaque(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, rest)| rest)
    }

    /// The parameters in order, names and values as written.
    pub fn params(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.text[self.params.clone()]
            .split(';')
            .filter(|item| !item.is_empty())
            .map(|item| match item.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (item, None),
            })
    }

    /// The value of a parameter, percent-decoded; `Some("")` for a flag.
    pub fn param(&self, name: &str) -> Option<Cow<'_, str>> {
        self.params()
            .find(|(item, _)| percent_decode(item).eq_ignore_ascii_case(name))
            .map(|(_, value)| percent_decode(value.unwrap_or("")))
    }

    /// Whether a parameter is present (`lr`).
    pub fn has_param(&self, name: &str) -> bool {
        self.param(name).is_some()
    }

    /// The headers part (`?name=value&…`) as written, without the `?`.
    pub fn headers_text(&self) -> Option<&str> {
        self.headers.clone().map(|range| &self.text[range])
    }

    /// The headers of the URI, names and values percent-decoded.
    pub fn headers(&self) -> Vec<(String, String)> {
        let text = self.headers_text().unwrap_or("");
        let items = text.split('&').filter(|item| !item.is_empty());
        items
            .map(|item| {
                let (name, value) = item.split_once('=').unwrap_or((item, ""));
                (
                    percent_decode(name).into_owned(),
                    percent_decode(value).into_owned(),
                )
            })
            .collect()
    }

    /// The same URI with another user part (plain text, encoded here); SIP URIs only, others
    /// stay as they are.
    pub fn with_user(&self, user: Option<&str>) -> Uri {
        self.rebuilt(user.map(percent_encode_user).as_deref(), None)
    }

    /// The same URI with another host and port; SIP URIs only.
    pub fn with_host(&self, host: &str, port: Option<u16>) -> Uri {
        self.rebuilt(self.user_and_password(), Some((host, port)))
    }

    /// The same URI with a parameter set (in its place or at the end) or, with `None`,
    /// without it.
    pub fn with_param(&self, name: &str, value: Option<&str>) -> Uri {
        let mut params = String::new();
        let mut placed = false;
        let new = value.map(|value| {
            if value.is_empty() {
                format!(";{name}")
            } else {
                format!(";{name}={value}")
            }
        });
        for (item, old) in self.params() {
            if item.eq_ignore_ascii_case(name) {
                if !placed {
                    params.push_str(new.as_deref().unwrap_or(""));
                }
                placed = true;
            } else {
                params.push(';');
                params.push_str(item);
                if let Some(old) = old {
                    params.push('=');
                    params.push_str(old);
                }
            }
        }
        if !placed {
            params.push_str(new.as_deref().unwrap_or(""));
        }
        let start = self.params.start - usize::from(!self.params.is_empty());
        let text = format!(
            "{}{params}{}",
            &self.text[..start],
            &self.text[self.params.end..]
        );
        text.parse().unwrap_or_else(|_| self.clone())
    }

    /// The same URI without its headers part (a Request-URI has none).
    pub fn without_headers(&self) -> Uri {
        match &self.headers {
            Some(range) => self.text[..range.start - 1]
                .parse()
                .unwrap_or_else(|_| self.clone()),
            None => self.clone(),
        }
    }

    /// Whether both name the same resource (RFC 3261 section 19.1.4, without the headers).
    pub fn equivalent(&self, other: &Uri) -> bool {
        if !self.is_sip() || !other.is_sip() {
            return self.text.eq_ignore_ascii_case(&other.text);
        }
        let same_param = |name: &str, value: Option<&str>, there: &Uri| {
            let theirs = there.param(name);
            match theirs {
                Some(theirs) => percent_decode(value.unwrap_or("")).eq_ignore_ascii_case(&theirs),
                None => !["user", "ttl", "method", "maddr", "transport"]
                    .iter()
                    .any(|must| must.eq_ignore_ascii_case(name)),
            }
        };
        self.scheme == other.scheme
            && self.user_decoded() == other.user_decoded()
            && self.password() == other.password()
            && self.host().eq_ignore_ascii_case(other.host())
            && self.port == other.port
            && self
                .params()
                .all(|(name, value)| same_param(name, value, other))
            && other
                .params()
                .all(|(name, value)| same_param(name, value, self))
    }

    fn user_and_password(&self) -> Option<&str> {
        let user = self.user.as_ref()?;
        let end = self
            .password
            .as_ref()
            .map_or(user.end, |password| password.end);
        Some(&self.text[user.start..end])
    }

    fn rebuilt(&self, user: Option<&str>, host: Option<(&str, Option<u16>)>) -> Uri {
        if !self.is_sip() {
            return self.clone();
        }
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let (host, port) = host.unwrap_or((self.host(), self.port));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let tail = self.params.start - usize::from(!self.params.is_empty());
        let tail = &self.text[tail..];
        let text = format!(
            "{}:{user}{}{port}{tail}",
            self.scheme_text(),
            bracketed(host)
        );
        text.parse().unwrap_or_else(|_| self.clone())
    }
}

/// A host fit for a URI: an IPv6 address gets its brackets.
pub fn bracketed(host: &str) -> Cow<'_, str> {
    if host.contains(':') && !host.starts_with('[') {
        Cow::Owned(format!("[{host}]"))
    } else {
        Cow::Borrowed(host)
    }
}

/// A host (with or without brackets) as an IP address.
pub fn host_ip(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Some(address);
    }
    if bare.contains(":::") {
        return bare
            .replacen(":::", "::", 1)
            .parse::<Ipv6Addr>()
            .ok()
            .map(IpAddr::V6);
    }
    None
}

/// Whether a host is well-formed: a name, an IPv4 address or an IPv6 reference in brackets.
pub(crate) fn valid_host(host: &str) -> bool {
    if host.starts_with('[') {
        return matches!(host_ip(host), Some(IpAddr::V6(_))) && host.ends_with(']');
    }
    !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// Splits `host[:port]` and judges both.
pub(crate) fn split_host_port(text: &str) -> Option<(&str, Option<u16>)> {
    let host_end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        text.find(':').unwrap_or(text.len())
    };
    let host = &text[..host_end];
    if !valid_host(host) {
        return None;
    }
    match text[host_end..].strip_prefix(':') {
        Some(digits) => {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain
                .then(|| digits.parse().ok())
                .flatten()
                .map(|port| (host, Some(port)))
        }
        None if host_end == text.len() => Some((host, None)),
        None => None,
    }
}

impl FromStr for Uri {
    type Err = HeaderError;

    fn from_str(text: &str) -> Result<Uri, HeaderError> {
        let error = |why| HeaderError::new("URI", why);
        if text
            .bytes()
            .any(|byte| byte <= b' ' || byte >= 0x7f || b"<>\"".contains(&byte))
        {
            return Err(error("a byte that no URI may hold"));
        }
        let colon = text.find(':').ok_or_else(|| error("no scheme"))?;
        let name = &text[..colon];
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !name.starts_with(|first: char| first.is_ascii_alphabetic()) || !name.bytes().all(plain)
        {
            return Err(error("bad scheme"));
        }
        let scheme = match name.to_ascii_lowercase().as_str() {
            "sip" => Scheme::Sip,
            "sips" => Scheme::Sips,
            "tel" => Scheme::Tel,
            "urn" => Scheme::Urn,
            _ => Scheme::Other,
        };
        if colon + 1 == text.len() {
            return Err(error("nothing after the scheme"));
        }
        match scheme {
            Scheme::Sip | Scheme::Sips => parse_sip(text, scheme, colon + 1),
            Scheme::Tel => parse_tel(text, colon + 1),
            Scheme::Urn | Scheme::Other => Ok(whole(text, scheme)),
        }
    }
}

fn whole(text: &str, scheme: Scheme) -> Uri {
    let end = text.len()..text.len();
    Uri {
        text: text.to_owned(),
        scheme,
        user: None,
        password: None,
        host: end.clone(),
        port: None,
        params: end,
        headers: None,
    }
}

fn parse_tel(text: &str, start: usize) -> Result<Uri, HeaderError> {
    let end = text[start..].find(';').map_or(text.len(), |at| start + at);
    if end == start {
        return Err(HeaderError::new("URI", "tel without a number"));
    }
    let params = (end + 1).min(text.len())..text.len();
    Ok(Uri {
        user: Some(start..end),
        params,
        ..whole(text, Scheme::Tel)
    })
}

fn parse_sip(text: &str, scheme: Scheme, start: usize) -> Result<Uri, HeaderError> {
    let error = |why| HeaderError::new("URI", why);
    let mut uri = whole(text, scheme);
    let mut host_start = start;
    if let Some(at) = text[start..].find('@').map(|at| start + at) {
        let user_end = text[start..at].find(':').map_or(at, |colon| start + colon);
        if user_end == start {
            return Err(error("empty user part"));
        }
        uri.user = Some(start..user_end);
        uri.password = (user_end < at).then(|| user_end + 1..at);
        host_start = at + 1;
    }
    let rest = &text[host_start..];
    let host_end = rest
        .find([';', '?'])
        .map_or(text.len(), |at| host_start + at);
    let (host, port) =
        split_host_port(&text[host_start..host_end]).ok_or_else(|| error("bad host or port"))?;
    uri.host = host_start..host_start + host.len();
    uri.port = port;
    let query = text[host_end..].find('?').map(|at| host_end + at);
    let params_end = query.unwrap_or(text.len());
    uri.params = (host_end + 1).min(params_end)..params_end;
    if host_end == params_end {
        uri.params = host_end..host_end;
    }
    uri.headers = query.map(|query| query + 1..text.len());
    if text[uri.params.clone()].contains('@') {
        return Err(error("@ in a parameter"));
    }
    Ok(uri)
}

impl fmt::Display for Uri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Serialize for Uri {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Uri {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn parts_of_sip_uris() {
        let full = uri("sip:al%20ice:pw@[2001:db8::1]:5070;transport=tcp;lr?Subject=a%20b&x=");
        assert_eq!(full.user_decoded().unwrap(), "al ice");
        assert_eq!(full.password(), Some("pw"));
        assert_eq!(full.host(), "[2001:db8::1]");
        assert_eq!(full.host_ip(), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(full.port(), Some(5070));
        assert_eq!(full.param("Transport").unwrap(), "tcp");
        assert!(full.has_param("lr"));
        assert_eq!(
            full.headers(),
            [("Subject".into(), "a b".into()), ("x".into(), "".into())]
        );
        let bare = uri("sip:example.com?a=b");
        assert_eq!(
            (bare.host(), bare.user(), bare.headers_text()),
            ("example.com", None, Some("a=b"))
        );
        assert_eq!(
            uri("sip:user;par=u%40example.net@example.com").user(),
            Some("user;par=u%40example.net")
        );
    }

    #[test]
    fn tel_and_urn_and_unknown_schemes_stay_whole() {
        let tel = uri("tel:+1-201-555-0123;phone-context=example.com");
        assert_eq!(tel.user(), Some("+1-201-555-0123"));
        assert_eq!(tel.param("phone-context").unwrap(), "example.com");
        assert_eq!(uri("urn:service:sos").opaque(), "service:sos");
        assert_eq!(uri("soap.beep://192.0.2.103:3002").scheme(), Scheme::Other);
    }

    #[test]
    fn ill_formed_uris_are_refused() {
        for text in [
            "",
            "sip",
            "sip:",
            ":x",
            "sip:a b@c",
            "<sip:a@b>",
            "sip:2001:db8::10",
            "sip:a@b:99999",
            "sip:a@b:",
            "sip:a@b:x",
            "sip:@b",
            "sip:a@b@c",
            "sip:a@[::1",
            "sip:a@[1.2.3.4]",
            "tel:",
            "sip:ü@b",
            "1sip:a@b",
        ] {
            assert!(text.parse::<Uri>().is_err(), "{text}");
        }
    }

    #[test]
    fn changes_keep_the_rest() {
        let base = uri("sip:a@h;x=1?q=2");
        assert_eq!(base.with_user(Some("b c")).as_str(), "sip:b%20c@h;x=1?q=2");
        assert_eq!(base.with_user(None).as_str(), "sip:h;x=1?q=2");
        assert_eq!(
            base.with_host("::1", Some(5)).as_str(),
            "sip:a@[::1]:5;x=1?q=2"
        );
        assert_eq!(base.with_param("x", None).as_str(), "sip:a@h?q=2");
        assert_eq!(
            base.with_param("lr", Some("")).as_str(),
            "sip:a@h;x=1;lr?q=2"
        );
        assert_eq!(base.with_param("X", Some("9")).as_str(), "sip:a@h;X=9?q=2");
        assert_eq!(uri("sip:h").with_param("lr", Some("")).as_str(), "sip:h;lr");
        assert_eq!(base.without_headers().as_str(), "sip:a@h;x=1");
    }

    #[test]
    fn equivalence_as_rfc_3261_compares() {
        let same = |a: &str, b: &str| uri(a).equivalent(&uri(b));
        assert!(same(
            "sip:%61lice@atlanta.com;transport=TCP",
            "sip:alice@AtLanTa.CoM;Transport=tcp"
        ));
        assert!(same(
            "sip:carol@chicago.com",
            "sip:carol@chicago.com;newparam=5"
        ));
        assert!(!same("sip:ALICE@a.com", "sip:alice@a.com"));
        assert!(!same("sip:bob@b.com", "sip:bob@b.com:5060"));
        assert!(!same("sip:bob@b.com", "sip:bob@b.com;transport=udp"));
    }
}
