//! Smaller header values: media types, reasons, session timers, subscriptions, Replaces,
//! challenges and credentials.

use std::borrow::Cow;
use std::fmt;

use super::cseq::number;
use super::error::HeaderError;
use super::params::Params;
use super::text::{find_outside, is_token, quote, split_outside, trim, unquote};

/// A token with parameters: Event, Content-Disposition and their like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenParams {
    pub token: String,
    pub params: Params,
}

impl TokenParams {
    /// Parses `token;params`; `header` names it in errors.
    ///
    /// # Errors
    /// No token, or bad parameters.
    pub fn parse(text: &str, header: &'static str) -> Result<TokenParams, HeaderError> {
        let end = find_outside(text, b';').unwrap_or(text.len());
        let token = trim(&text[..end]);
        if !is_token(token) {
            return Err(HeaderError::new(header, "no token"));
        }
        let params = Params::parse(text.get(end + 1..).unwrap_or(""), false)
            .map_err(|why| HeaderError::new(header, why))?;
        Ok(TokenParams {
            token: token.to_owned(),
            params,
        })
    }
}

impl fmt::Display for TokenParams {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.token, self.params)
    }
}

/// A media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    pub kind: String,
    pub subtype: String,
    pub params: Params,
}

impl MediaType {
    /// Parses `type/subtype;params`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<MediaType, HeaderError> {
        let error = |why| HeaderError::new("Content-Type", why);
        let end = find_outside(text, b';').unwrap_or(text.len());
        let (kind, subtype) = text[..end]
            .split_once('/')
            .ok_or_else(|| error("no subtype"))?;
        let (kind, subtype) = (trim(kind), trim(subtype));
        if !is_token(kind) || !is_token(subtype) {
            return Err(error("no media type"));
        }
        let params = Params::parse(text.get(end + 1..).unwrap_or(""), false).map_err(error)?;
        Ok(MediaType {
            kind: kind.to_owned(),
            subtype: subtype.to_owned(),
            params,
        })
    }

    /// Whether it is this type and subtype, in any case.
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype)
    }

    /// Whether it is `application/sdp`.
    pub fn is_sdp(&self) -> bool {
        self.is("application", "sdp")
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}{}", self.kind, self.subtype, self.params)
    }
}

/// Why a request was sent (RFC 3326): `SIP;cause=…` or `Q.850;cause=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub protocol: String,
    pub cause: Option<u32>,
    pub text: Option<String>,
}

impl Reason {
    /// A reason to be sent.
    pub fn new(protocol: &str, cause: u32, text: &str) -> Reason {
        let (protocol, text) = (protocol.to_owned(), Some(text.to_owned()));
        Reason {
            protocol,
            cause: Some(cause),
            text: text.filter(|text| !text.is_empty()),
        }
    }

    /// Parses one element.
    ///
    /// # Errors
    /// No protocol, or bad parameters.
    pub fn parse(text: &str) -> Result<Reason, HeaderError> {
        let value = TokenParams::parse(text, "Reason")?;
        let cause = value
            .params
            .get("cause")
            .and_then(|cause| number(cause, u32::MAX));
        let text = value.params.unquoted("text").map(Cow::into_owned);
        Ok(Reason {
            protocol: value.token,
            cause,
            text,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.protocol)?;
        if let Some(cause) = self.cause {
            write!(formatter, ";cause={cause}")?;
        }
        if let Some(text) = &self.text {
            write!(formatter, ";text={}", quote(text))?;
        }
        Ok(())
    }
}

/// Session-Expires (RFC 4028 section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    /// The interval in seconds.
    pub seconds: u32,
    /// `Some(true)` when the UAC of the request refreshes, `Some(false)` when the UAS does.
    pub refresher_uac: Option<bool>,
}

impl SessionExpires {
    /// Parses the value.
    ///
    /// # Errors
    /// Not a number of seconds.
    pub fn parse(text: &str) -> Result<SessionExpires, HeaderError> {
        let error = |why| HeaderError::new("Session-Expires", why);
        let end = text.find(';').unwrap_or(text.len());
        let seconds = number(trim(&text[..end]), u32::MAX).ok_or_else(|| error("bad number"))?;
        let params = Params::parse(text.get(end + 1..).unwrap_or(""), false).map_err(error)?;
        let refresher_uac = match params.get("refresher") {
            Some(who) if who.eq_ignore_ascii_case("uac") => Some(true),
            Some(who) if who.eq_ignore_ascii_case("uas") => Some(false),
            _ => None,
        };
        Ok(SessionExpires {
            seconds,
            refresher_uac,
        })
    }
}

impl fmt::Display for SessionExpires {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.seconds)?;
        match self.refresher_uac {
            Some(true) => formatter.write_str(";refresher=uac"),
            Some(false) => formatter.write_str(";refresher=uas"),
            None => Ok(()),
        }
    }
}

/// Subscription-State (RFC 6665 section 4.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionState {
    /// `active`, `pending`, `terminated` or an extension, as written.
    pub state: String,
    pub expires: Option<u32>,
    pub reason: Option<String>,
}

impl SubscriptionState {
    /// Parses the value.
    ///
    /// # Errors
    /// No state, or bad parameters.
    pub fn parse(text: &str) -> Result<SubscriptionState, HeaderError> {
        let value = TokenParams::parse(text, "Subscription-State")?;
        let expires = value
            .params
            .get("expires")
            .and_then(|text| number(text, u32::MAX));
        let reason = value.params.get("reason").map(str::to_owned);
        Ok(SubscriptionState {
            state: value.token,
            expires,
            reason,
        })
    }

    pub fn is_terminated(&self) -> bool {
        self.state.eq_ignore_ascii_case("terminated")
    }
}

/// Replaces (RFC 3891): the dialog to take the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaces {
    pub call_id: String,
    /// The local tag of the element that receives it.
    pub to_tag: String,
    /// The remote tag of the element that receives it.
    pub from_tag: String,
    pub early_only: bool,
}

impl Replaces {
    /// Parses the value.
    ///
    /// # Errors
    /// No Call-ID, or a tag is missing.
    pub fn parse(text: &str) -> Result<Replaces, HeaderError> {
        let error = |why| HeaderError::new("Replaces", why);
        let end = text.find(';').unwrap_or(text.len());
        let call_id = trim(&text[..end]);
        let params = Params::parse(text.get(end + 1..).unwrap_or(""), false).map_err(error)?;
        let tag = |name| {
            params
                .get(name)
                .map(str::to_owned)
                .ok_or_else(|| error("missing tag"))
        };
        if call_id.is_empty() {
            return Err(error("no Call-ID"));
        }
        Ok(Replaces {
            call_id: call_id.to_owned(),
            to_tag: tag("to-tag")?,
            from_tag: tag("from-tag")?,
            early_only: params.has("early-only"),
        })
    }
}

impl fmt::Display for Replaces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Replaces {
            call_id,
            to_tag,
            from_tag,
            early_only,
        } = self;
        write!(formatter, "{call_id};to-tag={to_tag};from-tag={from_tag}")?;
        if *early_only {
            formatter.write_str(";early-only")
        } else {
            Ok(())
        }
    }
}

/// A challenge or credentials: scheme and parameters (RFC 3261 section 25.1, RFC 7616).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthValue {
    /// `Digest`, or any other scheme as written.
    pub scheme: String,
    /// Names in lower case, values as written (quotes kept), in order.
    pub params: Vec<(String, String)>,
}

impl AuthValue {
    /// Parses a header field's value, which may hold several challenges. Commas inside quoted
    /// strings separate nothing.
    ///
    /// # Errors
    /// No scheme, or a parameter without `=`.
    pub fn parse_all(text: &str) -> Result<Vec<AuthValue>, HeaderError> {
        let error = |why| HeaderError::new("Authorization", why);
        let mut values: Vec<AuthValue> = Vec::new();
        for part in split_outside(text, b',').filter(|part| !part.is_empty()) {
            let mut pair = part;
            // `scheme name=value` begins a new challenge; `name = value` continues one.
            let space = part.find([' ', '\t']).filter(|at| is_token(&part[..*at]));
            if let Some(at) = space
                && !trim(&part[at..]).starts_with('=')
            {
                values.push(AuthValue {
                    scheme: part[..at].to_owned(),
                    params: Vec::new(),
                });
                pair = trim(&part[at..]);
            } else if values.is_empty() && is_token(part) {
                values.push(AuthValue {
                    scheme: part.to_owned(),
                    params: Vec::new(),
                });
                continue;
            }
            let current = values.last_mut().ok_or_else(|| error("no scheme"))?;
            match find_outside(pair, b'=') {
                Some(at) if is_token(trim(&pair[..at])) => {
                    let name = trim(&pair[..at]).to_ascii_lowercase();
                    current
                        .params
                        .push((name, trim(&pair[at + 1..]).to_owned()));
                }
                // A scheme of another kind (token68): kept as a nameless value.
                _ if current.params.is_empty() => {
                    current.params.push((String::new(), pair.to_owned()));
                }
                _ => return Err(error("parameter without =")),
            }
        }
        if values.is_empty() {
            Err(error("empty"))
        } else {
            Ok(values)
        }
    }

    pub fn is_digest(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("Digest")
    }

    /// A parameter without quotes and escapes.
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.params
            .iter()
            .find(|(item, _)| item == name)
            .map(|(_, value)| unquote(value))
    }
}

impl fmt::Display for AuthValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.scheme)?;
        for (index, (name, value)) in self.params.iter().enumerate() {
            let separator = if index == 0 { " " } else { ", " };
            match name.as_str() {
                "" => write!(formatter, "{separator}{value}")?,
                name => write!(formatter, "{separator}{name}={value}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_with_commas_inside_quotes() {
        let text =
            r#"Digest realm="a, b=\"c\"", qop="auth,auth-int",nonce = "x=", Basic realm="z""#;
        let values = AuthValue::parse_all(text).unwrap();
        assert_eq!(values.len(), 2);
        assert_eq!(values[0].get("realm").unwrap(), "a, b=\"c\"");
        assert_eq!(values[0].get("qop").unwrap(), "auth,auth-int");
        assert_eq!(values[0].get("nonce").unwrap(), "x=");
        assert_eq!(values[1].scheme, "Basic");
        let other = AuthValue::parse_all("NoOneKnowsThisScheme opaque-data=here").unwrap();
        assert_eq!(other[0].get("opaque-data").unwrap(), "here");
        assert!(AuthValue::parse_all("").is_err());
    }

    #[test]
    fn small_values_round_trip() {
        let reason = Reason::parse("Q.850 ;cause=16 ;text=\"Normal, clearing\"").unwrap();
        assert_eq!(
            (reason.cause, reason.text.as_deref()),
            (Some(16), Some("Normal, clearing"))
        );
        assert_eq!(
            reason.to_string(),
            "Q.850;cause=16;text=\"Normal, clearing\""
        );
        assert_eq!(
            SessionExpires::parse("1800 ;refresher=UAS")
                .unwrap()
                .to_string(),
            "1800;refresher=uas"
        );
        let replaces = Replaces::parse("c@h;from-tag=a;to-tag=b;early-only").unwrap();
        assert_eq!(replaces.to_string(), "c@h;to-tag=b;from-tag=a;early-only");
        assert!(
            SubscriptionState::parse("terminated;reason=noresource")
                .unwrap()
                .is_terminated()
        );
        assert!(
            MediaType::parse("Application/SDP;charset=utf-8")
                .unwrap()
                .is_sdp()
        );
        for text in ["", "x", "a/b/c", "/"] {
            assert!(MediaType::parse(text).is_err(), "{text}");
        }
    }
}
