//! Typed headers, parsed when asked for. A missing header is `Ok(None)` where it may be
//! missing, an error where it may not.

use super::address::{Contact, NameAddr};
use super::cseq::{CSeq, RAck, number};
use super::error::HeaderError;
use super::header_values::{
    AuthValue, MediaType, Reason, Replaces, SessionExpires, SubscriptionState, TokenParams,
};
use super::headers::Headers;
use super::lexer::top_via;
use super::method::Method;
use super::text::{find_outside, split_outside};
use super::uri::Uri;
use super::via::Via;

impl Headers {
    /// The top Via element.
    ///
    /// # Errors
    /// None there, or malformed.
    pub fn via(&self) -> Result<Via, HeaderError> {
        top_via(self)
    }

    /// All Via elements, top first.
    ///
    /// # Errors
    /// One is malformed.
    pub fn vias(&self) -> Result<Vec<Via>, HeaderError> {
        self.list("Via")
            .iter()
            .map(|text| Via::parse(text))
            .collect()
    }

    /// From.
    ///
    /// # Errors
    /// Missing or malformed.
    pub fn from_address(&self) -> Result<NameAddr, HeaderError> {
        self.required_address("From")
    }

    /// To.
    ///
    /// # Errors
    /// Missing or malformed.
    pub fn to_address(&self) -> Result<NameAddr, HeaderError> {
        self.required_address("To")
    }

    fn required_address(&self, name: &'static str) -> Result<NameAddr, HeaderError> {
        self.address(name)?.ok_or(HeaderError::missing(name))
    }

    /// The first address of any header that holds addresses (Refer-To, Referred-By,
    /// P-Asserted-Identity…).
    ///
    /// # Errors
    /// Malformed.
    pub fn address(&self, name: &'static str) -> Result<Option<NameAddr>, HeaderError> {
        self.get(name)
            .map(|text| NameAddr::parse(&text, name))
            .transpose()
    }

    /// All addresses of a header that holds a list of them (P-Asserted-Identity, Diversion,
    /// History-Info, Route…).
    ///
    /// # Errors
    /// One is malformed.
    pub fn addresses(&self, name: &'static str) -> Result<Vec<NameAddr>, HeaderError> {
        self.list(name)
            .iter()
            .map(|text| NameAddr::parse(text, name))
            .collect()
    }

    /// The tag of From.
    pub fn from_tag(&self) -> Option<String> {
        self.from_address().ok()?.tag().map(str::to_owned)
    }

    /// The tag of To.
    pub fn to_tag(&self) -> Option<String> {
        self.to_address().ok()?.tag().map(str::to_owned)
    }

    /// Call-ID.
    ///
    /// # Errors
    /// Missing, empty, or with a blank in it.
    pub fn call_id(&self) -> Result<String, HeaderError> {
        let text = self.get("Call-ID").ok_or(HeaderError::missing("Call-ID"))?;
        if text.is_empty() || text.contains([' ', '\t']) {
            return Err(HeaderError::new("Call-ID", "not one word"));
        }
        Ok(text.into_owned())
    }

    /// CSeq.
    ///
    /// # Errors
    /// Missing or malformed.
    pub fn cseq(&self) -> Result<CSeq, HeaderError> {
        CSeq::parse(&self.get("CSeq").ok_or(HeaderError::missing("CSeq"))?)
    }

    /// RAck of a PRACK.
    ///
    /// # Errors
    /// Missing or malformed.
    pub fn rack(&self) -> Result<RAck, HeaderError> {
        RAck::parse(&self.get("RAck").ok_or(HeaderError::missing("RAck"))?)
    }

    /// RSeq of a reliable provisional response.
    ///
    /// # Errors
    /// Malformed.
    pub fn rseq(&self) -> Result<Option<u32>, HeaderError> {
        self.number("RSeq", u32::MAX)
    }

    /// Max-Forwards, at most 255.
    ///
    /// # Errors
    /// Malformed or too large.
    pub fn max_forwards(&self) -> Result<Option<u32>, HeaderError> {
        self.number("Max-Forwards", 255)
    }

    /// Content-Length.
    ///
    /// # Errors
    /// Malformed.
    pub fn content_length(&self) -> Result<Option<u32>, HeaderError> {
        self.number("Content-Length", u32::MAX)
    }

    /// Min-SE in seconds.
    ///
    /// # Errors
    /// Malformed.
    pub fn min_se(&self) -> Result<Option<u32>, HeaderError> {
        let text = self.get("Min-SE");
        let first = text
            .as_deref()
            .map(|text| text.split(';').next().unwrap_or("").trim());
        first
            .map(|text| number(text, u32::MAX).ok_or(HeaderError::new("Min-SE", "bad number")))
            .transpose()
    }

    fn number(&self, name: &'static str, max: u32) -> Result<Option<u32>, HeaderError> {
        let text = self.get(name);
        let bad = HeaderError::new(name, "bad number");
        text.map(|text| number(&text, max).ok_or(bad)).transpose()
    }

    /// Expires in seconds; a number too large to hold counts as the largest.
    ///
    /// # Errors
    /// Not a number.
    pub fn expires(&self) -> Result<Option<u32>, HeaderError> {
        self.seconds("Expires")
    }

    /// Retry-After in seconds, its comment and parameters left out.
    ///
    /// # Errors
    /// Not a number.
    pub fn retry_after(&self) -> Result<Option<u32>, HeaderError> {
        self.seconds("Retry-After")
    }

    fn seconds(&self, name: &'static str) -> Result<Option<u32>, HeaderError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let digits = text.split([';', '(', ' ', '\t']).next().unwrap_or("");
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HeaderError::new(name, "bad number"));
        }
        Ok(Some(digits.parse().unwrap_or(u32::MAX)))
    }

    /// All Contact elements.
    ///
    /// # Errors
    /// One is malformed.
    pub fn contacts(&self) -> Result<Vec<Contact>, HeaderError> {
        let parse = |text: &String| {
            if text == "*" {
                return Ok(Contact::Star);
            }
            NameAddr::parse(text, "Contact").map(Contact::Address)
        };
        self.list("Contact").iter().map(parse).collect()
    }

    /// The first Contact that is an address.
    ///
    /// # Errors
    /// One is malformed.
    pub fn contact(&self) -> Result<Option<NameAddr>, HeaderError> {
        let contacts = self.contacts()?;
        Ok(contacts.into_iter().find_map(|contact| match contact {
            Contact::Address(address) => Some(address),
            Contact::Star => None,
        }))
    }

    /// The URI of the first Contact.
    pub fn contact_uri(&self) -> Option<Uri> {
        self.contact().ok().flatten().map(|contact| contact.uri)
    }

    /// Route, top first.
    ///
    /// # Errors
    /// One is malformed.
    pub fn routes(&self) -> Result<Vec<NameAddr>, HeaderError> {
        self.addresses("Route")
    }

    /// Record-Route, top first.
    ///
    /// # Errors
    /// One is malformed.
    pub fn record_routes(&self) -> Result<Vec<NameAddr>, HeaderError> {
        self.addresses("Record-Route")
    }

    /// Content-Type.
    ///
    /// # Errors
    /// Malformed.
    pub fn content_type(&self) -> Result<Option<MediaType>, HeaderError> {
        self.get("Content-Type")
            .map(|text| MediaType::parse(&text))
            .transpose()
    }

    /// The option tags of Require.
    pub fn require(&self) -> Vec<String> {
        self.list("Require")
    }

    /// Whether Supported or Require names this option.
    pub fn supports(&self, option: &str) -> bool {
        self.list_contains("Supported", option) || self.list_contains("Require", option)
    }

    /// The methods of Allow, `None` when it is absent.
    pub fn allow(&self) -> Option<Vec<Method>> {
        let methods = || {
            self.list("Allow")
                .iter()
                .map(|name| Method::from(name.as_str()))
                .collect()
        };
        self.contains("Allow").then(methods)
    }

    /// All reasons (RFC 3326).
    ///
    /// # Errors
    /// One is malformed.
    pub fn reasons(&self) -> Result<Vec<Reason>, HeaderError> {
        self.list("Reason")
            .iter()
            .map(|text| Reason::parse(text))
            .collect()
    }

    /// Event: package and parameters.
    ///
    /// # Errors
    /// Malformed.
    pub fn event(&self) -> Result<Option<TokenParams>, HeaderError> {
        self.get("Event")
            .map(|text| TokenParams::parse(&text, "Event"))
            .transpose()
    }

    /// Content-Disposition.
    ///
    /// # Errors
    /// Malformed.
    pub fn content_disposition(&self) -> Result<Option<TokenParams>, HeaderError> {
        let name = "Content-Disposition";
        self.get(name)
            .map(|text| TokenParams::parse(&text, name))
            .transpose()
    }

    /// Subscription-State.
    ///
    /// # Errors
    /// Malformed.
    pub fn subscription_state(&self) -> Result<Option<SubscriptionState>, HeaderError> {
        self.get("Subscription-State")
            .map(|text| SubscriptionState::parse(&text))
            .transpose()
    }

    /// Session-Expires (RFC 4028).
    ///
    /// # Errors
    /// Malformed.
    pub fn session_expires(&self) -> Result<Option<SessionExpires>, HeaderError> {
        self.get("Session-Expires")
            .map(|text| SessionExpires::parse(&text))
            .transpose()
    }

    /// Replaces (RFC 3891).
    ///
    /// # Errors
    /// Malformed.
    pub fn replaces(&self) -> Result<Option<Replaces>, HeaderError> {
        self.get("Replaces")
            .map(|text| Replaces::parse(&text))
            .transpose()
    }

    /// All challenges or credentials of a header (`WWW-Authenticate`, `Proxy-Authorization`…),
    /// over all its fields; one field may hold several.
    ///
    /// # Errors
    /// One is malformed.
    pub fn auth_values(&self, name: &str) -> Result<Vec<AuthValue>, HeaderError> {
        let mut values = Vec::new();
        for text in self.get_all(name) {
            values.extend(AuthValue::parse_all(&text)?);
        }
        Ok(values)
    }

    /// Writes what the server transport notes about the source into the top Via.
    ///
    /// # Errors
    /// No readable top Via.
    pub fn note_source(&mut self, source: std::net::SocketAddr) -> Result<(), HeaderError> {
        let mut via = self.via()?;
        via.note_source(source);
        replace_top_via(self, &via);
        Ok(())
    }
}

/// Replaces the first Via element, leaving the others of its field as they are.
pub(crate) fn replace_top_via(headers: &mut Headers, via: &Via) {
    let text = headers.get("Via").unwrap_or_default().into_owned();
    let rest = find_outside(&text, b',').map_or("", |at| &text[at..]);
    // Elements are separated again as usual; an empty tail stays empty.
    let rest: Vec<_> = split_outside(rest, b',')
        .filter(|part| !part.is_empty())
        .collect();
    let mut value = via.to_string();
    for part in rest {
        value.push_str(", ");
        value.push_str(part);
    }
    headers.set_first("Via", value);
}
