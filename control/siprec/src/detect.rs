//! Whether a request opens a recording session, and towards which role of ours.

use serde::{Deserialize, Serialize};

/// What of a request tells it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signs<'a> {
    /// Option tags of Require and Supported.
    pub option_tags: &'a [&'a str],
    /// The Contact header's values as written.
    pub contacts: &'a [&'a str],
    /// The Accept-Contact header's values as written.
    pub accept_contacts: &'a [&'a str],
    /// Whether a body part is recording metadata.
    pub has_metadata: bool,
    /// Whether the sender is configured as a recording client whatever it writes.
    pub is_trusted_client: bool,
}

/// By what a recording session was recognised, the surest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// Option tag `siprec` and feature tag `+sip.src` (RFC 7866 section 6.1.1).
    OptionAndFeature,
    /// Feature tag `+sip.src` alone.
    Feature,
    /// Contact parameter `src`, as BroadWorks and AudioCodes write it.
    ShortFeature,
    /// A body part of recording metadata.
    Metadata,
    /// Option tag `siprec` alone.
    Option,
    /// The configuration.
    Trusted,
}

/// By what a request from a client opens a recording session with us as the recorder; None if it does
/// not. With `strict` only RFC 7866's own sign counts.
#[must_use]
pub fn as_server(signs: &Signs<'_>, strict: bool) -> Option<Sign> {
    let option = has_option(signs);
    let feature = has_parameter(signs.contacts, "+sip.src");
    if option && feature {
        return Some(Sign::OptionAndFeature);
    }
    if strict {
        return None;
    }
    if feature {
        return Some(Sign::Feature);
    }
    if has_parameter(signs.contacts, "src") {
        return Some(Sign::ShortFeature);
    }
    if signs.has_metadata {
        return Some(Sign::Metadata);
    }
    if option && !has_parameter(signs.contacts, "+sip.srs") {
        return Some(Sign::Option);
    }
    signs.is_trusted_client.then_some(Sign::Trusted)
}

/// Whether a request asks us, as the client, to record to its sender: both signs are needed
/// (RFC 7866 section 6.2).
#[must_use]
pub fn as_client(signs: &Signs<'_>) -> bool {
    has_option(signs)
        && (has_parameter(signs.contacts, "+sip.srs")
            || has_parameter(signs.accept_contacts, "+sip.src"))
}

/// The parameter of a Contact that says which part its owner has in a recording session, as written in RFC
/// 7866 or in short; `None` where there is none.
#[must_use]
pub fn role_of(contact: &str) -> Option<&'static str> {
    ["+sip.src", "+sip.srs", "src"]
        .into_iter()
        .find(|parameter| has_parameter(&[contact], parameter))
}

fn has_option(signs: &Signs<'_>) -> bool {
    signs
        .option_tags
        .iter()
        .flat_map(|tags| tags.split(','))
        .any(|tag| tag.trim().eq_ignore_ascii_case("siprec"))
}

/// Whether a Contact has a header parameter: what follows the closing bracket, or the first semicolon
/// where there is no bracket.
fn has_parameter(contacts: &[&str], wanted: &str) -> bool {
    contacts.iter().any(|contact| {
        let parameters = match contact.rfind('>') {
            Some(end) => &contact[end + 1..],
            None => contact.split_once(';').map_or("", |(_, rest)| rest),
        };
        parameters.split([';', ',']).any(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default().trim();
            name.eq_ignore_ascii_case(wanted)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(option_tags: &[&str], contact: &str, has_metadata: bool) -> Option<Sign> {
        let signs = Signs {
            option_tags,
            contacts: &[contact],
            has_metadata,
            ..Signs::default()
        };
        as_server(&signs, false)
    }

    #[test]
    fn every_sign_that_real_clients_give_is_taken() {
        assert_eq!(
            server(&["timer, siprec"], "<sip:src@h:5060>;+sip.src", true),
            Some(Sign::OptionAndFeature)
        );
        assert_eq!(
            server(&[], "\"a>b\" <sip:h>;+SIP.SRC=\"TRUE\"", false),
            Some(Sign::Feature)
        );
        assert_eq!(server(&[], "<sip:h>;src", false), Some(Sign::ShortFeature));
        assert_eq!(server(&[], "<sip:h>", true), Some(Sign::Metadata));
        assert_eq!(server(&["siprec"], "<sip:h>", false), Some(Sign::Option));
        let trusted = Signs {
            is_trusted_client: true,
            ..Signs::default()
        };
        assert_eq!(as_server(&trusted, false), Some(Sign::Trusted));
    }

    #[test]
    fn an_ordinary_call_is_none_even_with_look_alikes() {
        assert_eq!(server(&["timer"], "<sip:src@h;src>", false), None);
        assert_eq!(server(&[], "<sip:h;+sip.src>", false), None);
    }

    #[test]
    fn strict_wants_both_signs() {
        let signs = Signs {
            contacts: &["<sip:h>;+sip.src"],
            has_metadata: true,
            ..Signs::default()
        };
        assert_eq!(as_server(&signs, true), None);
    }

    #[test]
    fn a_recorder_that_invites_needs_both_signs() {
        let both = Signs {
            option_tags: &["siprec"],
            contacts: &["<sip:srs>;+sip.srs"],
            ..Signs::default()
        };
        assert!(as_client(&both));
        assert_eq!(
            as_server(&both, false),
            None,
            "it is a recorder, not a client"
        );
        assert!(!as_client(&Signs {
            option_tags: &[],
            ..both
        }));
        assert!(!as_client(&Signs {
            contacts: &["<sip:srs>"],
            ..both
        }));
    }
}
