//! Whose recording client wrote a message, by its name and by its habits.

use trunkline_siprec::metadata::Dialect;

/// What of a first message tells its maker.
#[derive(Debug, Default)]
pub(super) struct Traits<'a> {
    /// User-Agent.
    pub(super) agent: &'a str,
    pub(super) from: &'a str,
    pub(super) contact: &'a str,
    /// The metadata document as written; empty = none.
    pub(super) document: &'a str,
    pub(super) dialect: Option<Dialect>,
    /// Content types of the body's parts, in order.
    pub(super) parts: &'a [String],
    /// Labels of the m-lines, in order.
    pub(super) labels: &'a [String],
}

/// A family of clients, and why it is thought to be it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Guess {
    pub(super) family: &'static str,
    pub(super) because: Vec<&'static str>,
}

/// What a client does, in words, and how that is seen.
type Habit = (&'static str, fn(&Traits<'_>) -> bool);

/// How a family calls itself, in lower case, and what it does that few others do.
struct Habits {
    family: &'static str,
    names: &'static [&'static str],
    does: &'static [Habit],
}

/// A name counts as much as so many habits.
const NAME_WEIGHT: usize = 3;

fn has_part(traits: &Traits<'_>, kind: &str) -> bool {
    traits.parts.iter().any(|part| part == kind)
}

fn says_only_src(traits: &Traits<'_>) -> bool {
    let parameters = traits.contact.rsplit_once('>').map_or("", |(_, rest)| rest);
    parameters
        .split(';')
        .any(|one| one.trim().eq_ignore_ascii_case("src"))
}

fn metadata_first(traits: &Traits<'_>) -> bool {
    traits
        .parts
        .first()
        .is_some_and(|part| part.contains("rs-metadata"))
}

fn older_namespace(traits: &Traits<'_>) -> bool {
    let document = traits.document;
    document.contains("ns:recording\"") || document.contains("ns:recording'")
}

fn large_labels(traits: &Traits<'_>) -> bool {
    let large = |label: &String| label.parse::<u64>().is_ok_and(|number| number > 99_999);
    !traits.labels.is_empty() && traits.labels.iter().all(large)
}

const FAMILIES: &[Habits] = &[
    Habits {
        family: "Oracle / Acme Packet",
        names: &["acme packet", "oracle"],
        does: &[
            ("its own extensions (apkt)", |one| {
                one.document.contains("acmepacket.com")
            }),
            ("large numbers as labels", large_labels),
            (
                "the namespace without :1 and ids as attributes of the drafts",
                |one| older_namespace(one) && one.dialect == Some(Dialect::Draft),
            ),
        ],
    },
    Habits {
        family: "Avaya SBCE",
        names: &["avaya"],
        does: &[
            ("streams without an id", |one| {
                one.document.contains("stream_id=\"\"")
            }),
            ("<dataMode> in the RFC's form of the document", |one| {
                one.document.contains("<dataMode>") && one.dialect == Some(Dialect::Rfc7865)
            }),
        ],
    },
    Habits {
        family: "Cisco CUBE",
        names: &["cisco-sipgateway"],
        does: &[("a part of GTD", |one| has_part(one, "application/gtd"))],
    },
    Habits {
        family: "Cisco CUCM (built-in bridge)",
        names: &["cisco-cucm"],
        does: &[("x-nearend, x-farend or x-refci in From", |one| {
            ["x-nearend", "x-farend", "x-refci"]
                .iter()
                .any(|word| one.from.contains(word))
        })],
    },
    Habits {
        family: "BroadWorks / Webex",
        names: &["broadworks", "webex"],
        does: &[
            ("<recording_metadata>", |one| {
                one.dialect == Some(Dialect::Broadworks)
            }),
            ("metadata before the session description", metadata_first),
            ("src for +sip.src in Contact", says_only_src),
        ],
    },
    Habits {
        family: "Ribbon / Sonus",
        names: &["ribbon", "sonus"],
        does: &[("the prefix tns:", |one| {
            one.document.contains("<tns:recording")
        })],
    },
    Habits {
        family: "AudioCodes",
        names: &["mediant", "audiocodes"],
        does: &[(
            "src for +sip.src in Contact, with ids of the drafts",
            |one| says_only_src(one) && one.dialect == Some(Dialect::Draft),
        )],
    },
    Habits {
        family: "Metaswitch",
        names: &["metaswitch"],
        does: &[("one mixed line", |one| {
            one.labels.len() <= 1 && one.document.contains("<mode>mixed")
        })],
    },
    Habits {
        family: "NetSapiens",
        names: &["netsapiens"],
        does: &[],
    },
    Habits {
        family: "FreeSWITCH (mod_siprec)",
        names: &["freeswitch"],
        does: &[("one line of label 0", |one| one.labels == ["0"])],
    },
    Habits {
        family: "SEMS",
        names: &["sems"],
        does: &[("labels a_leg and b_leg", |one| {
            one.labels
                .iter()
                .any(|label| label == "a_leg" || label == "b_leg")
        })],
    },
    Habits {
        family: "OpenSIPS",
        names: &["opensips"],
        does: &[(
            "the boundary-named multipart of its module, labels 0 and 1",
            |one| one.labels == ["0", "1"] && one.document.contains("<sipSessionID>"),
        )],
    },
    Habits {
        family: "drachtio",
        names: &["drachtio"],
        does: &[],
    },
    Habits {
        family: "Trunkline",
        names: &["trunkline"],
        does: &[],
    },
];

/// The likeliest family; `None` where nothing points to one.
pub(super) fn guess(traits: &Traits<'_>) -> Option<Guess> {
    let agent = traits.agent.to_ascii_lowercase();
    let mut best: Option<(usize, Guess)> = None;
    for habits in FAMILIES {
        let named = habits.names.iter().any(|name| agent.contains(name));
        let mut because: Vec<&'static str> = habits
            .does
            .iter()
            .filter(|(_, does)| does(traits))
            .map(|(what, _)| *what)
            .collect();
        let weight = because.len() + if named { NAME_WEIGHT } else { 0 };
        if named {
            because.insert(0, "its User-Agent");
        }
        if weight > best.as_ref().map_or(0, |(weight, _)| *weight) {
            let family = habits.family;
            best = Some((weight, Guess { family, because }));
        }
    }
    best.map(|(_, guess)| guess)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(traits: &Traits<'_>) -> Option<&'static str> {
        guess(traits).map(|one| one.family)
    }

    #[test]
    fn families_are_known_by_name_and_by_habit() {
        let named = |agent| Traits {
            agent,
            ..Traits::default()
        };
        assert_eq!(
            family(&named("Cisco-SIPGateway/IOS-17.6.1a")),
            Some("Cisco CUBE")
        );
        assert_eq!(family(&named("Mediant VE SBC/v.7.40A")), Some("AudioCodes"));
        assert_eq!(family(&named("something else")), None);
        let broadworks = Traits {
            contact: "<sip:a@b>;src",
            dialect: Some(Dialect::Broadworks),
            ..Traits::default()
        };
        assert_eq!(family(&broadworks), Some("BroadWorks / Webex"));
        let ribbon = Traits {
            document: "<tns:recording xmlns:tns=\"urn:ietf:params:xml:ns:recording:1\">",
            ..Traits::default()
        };
        assert_eq!(family(&ribbon), Some("Ribbon / Sonus"));
        let labels = ["90216001".to_owned(), "90216002".to_owned()];
        let oracle = Traits {
            labels: &labels,
            document: "<recording xmlns='urn:ietf:params:xml:ns:recording'>",
            dialect: Some(Dialect::Draft),
            ..Traits::default()
        };
        assert_eq!(family(&oracle), Some("Oracle / Acme Packet"));
    }
}
