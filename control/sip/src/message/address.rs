//! name-addr and addr-spec with parameters: From, To, Contact, Route, Refer-To and their kin
//! (RFC 3261 section 20.10).

use std::fmt;

use super::error::HeaderError;
use super::params::Params;
use super::text::{find_outside, quote, quoted_end, trim, unquote};
use super::uri::Uri;

/// An address: optional display name, URI, header parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAddr {
    /// The display name as plain text (no quotes, no escapes).
    pub display: Option<String>,
    pub uri: Uri,
    /// Parameters of the header, not of the URI.
    pub params: Params,
}

impl NameAddr {
    /// An address of a URI alone.
    pub fn new(uri: Uri) -> NameAddr {
        NameAddr {
            display: None,
            uri,
            params: Params::default(),
        }
    }

    /// Parses one element; `header` names it in errors.
    ///
    /// # Errors
    /// Unbalanced quotes or brackets, a bad URI, a bad parameter.
    pub fn parse(text: &str, header: &'static str) -> Result<NameAddr, HeaderError> {
        let error = |why| HeaderError::new(header, why);
        let text = trim(text);
        let (display, rest) = if text.starts_with('"') {
            let end = quoted_end(text).ok_or_else(|| error("unterminated quoted string"))?;
            let rest = trim(&text[end..]);
            if !rest.starts_with('<') {
                return Err(error("no <URI> after the display name"));
            }
            (Some(unquote(&text[..end]).into_owned()), rest)
        } else {
            match text.find('<') {
                Some(at) if !text[..at].contains(';') => {
                    let display = trim(&text[..at]);
                    if display.contains(['"', ',', ':', '@', '>']) {
                        return Err(error("display name needs quotes"));
                    }
                    (
                        (!display.is_empty()).then(|| display.to_owned()),
                        &text[at..],
                    )
                }
                _ => (None, text),
            }
        };
        let (uri, params) = match rest.strip_prefix('<') {
            Some(inner) => {
                let end = inner.find('>').ok_or_else(|| error("no > after the URI"))?;
                (&inner[..end], trim(&inner[end + 1..]))
            }
            None => {
                let end = find_outside(rest, b';').unwrap_or(rest.len());
                let uri = trim(&rest[..end]);
                // Section 20: a URI with a comma, question mark or semicolon needs brackets.
                if uri.contains([',', '?']) {
                    return Err(error("URI needs <>"));
                }
                (uri, &rest[end..])
            }
        };
        let params = match params.strip_prefix(';') {
            Some(params) => Params::parse(params, false).map_err(error)?,
            None if params.is_empty() => Params::default(),
            None => return Err(error("unexpected text after the URI")),
        };
        let uri: Uri = uri.parse().map_err(|inner: HeaderError| error(inner.why))?;
        Ok(NameAddr {
            display,
            uri,
            params,
        })
    }

    /// The tag parameter.
    pub fn tag(&self) -> Option<&str> {
        self.params.get("tag").filter(|tag| !tag.is_empty())
    }

    /// The same address with this tag (or, with `None`, without one).
    pub fn with_tag(mut self, tag: Option<&str>) -> NameAddr {
        match tag {
            Some(tag) => self.params.set("tag", Some(tag)),
            None => {
                self.params.remove("tag");
            }
        }
        self
    }

    /// The q parameter in thousandths, 1000 when absent or bad.
    pub fn q_milli(&self) -> u16 {
        let q = self
            .params
            .get("q")
            .and_then(|text| text.parse::<f32>().ok());
        q.filter(|q| (0.0..=1.0).contains(q))
            .map_or(1000, |q| (q * 1000.0).round() as u16)
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(display) = &self.display {
            write!(formatter, "{} ", quote(display))?;
        }
        write!(formatter, "<{}>{}", self.uri, self.params)
    }
}

/// One element of a Contact header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contact {
    /// `*`: all bindings (REGISTER only).
    Star,
    Address(NameAddr),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> NameAddr {
        NameAddr::parse(text, "To").unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn forms_that_occur() {
        let address =
            parse(r#""J Rosenberg \\\""       <sip:jdrosen@example.com>  ;  tag = 98asjd8"#);
        assert_eq!(address.display.as_deref(), Some(r#"J Rosenberg \""#));
        assert_eq!(address.tag(), Some("98asjd8"));
        assert_eq!(
            parse("caller<sip:caller@example.com>;tag=3")
                .display
                .as_deref(),
            Some("caller")
        );
        let bare = parse("sip:vivekg@chair-dnrc.example.com ;   tag    = 19n");
        assert_eq!(
            (bare.uri.as_str(), bare.tag()),
            ("sip:vivekg@chair-dnrc.example.com", Some("19n"))
        );
        assert_eq!(parse("tel:+1;tag=2").tag(), Some("2"));
        assert_eq!(parse("<tel:+1;phone-context=x>").tag(), None);
        assert_eq!(parse("Müller <sip:m@x>").display.as_deref(), Some("Müller"));
        assert_eq!(
            parse("<sip:a@b>;x=\"a;,b\";tag=1").to_string(),
            "<sip:a@b>;x=\"a;,b\";tag=1"
        );
    }

    #[test]
    fn forms_to_refuse() {
        for text in [
            "\"Mr. J. User <sip:j.user@example.com>",
            "Bell, Alexander <sip:a.g.bell@example.com>;tag=43",
            "\"Watson, Thomas\" < sip:t.watson@example.org >",
            "sip:user@example.com?Route=%3Csip:sip.example.com%3E",
            "<sip:a@b",
            "<sip:a@b> x",
            "",
        ] {
            assert!(NameAddr::parse(text, "To").is_err(), "{text}");
        }
    }
}
