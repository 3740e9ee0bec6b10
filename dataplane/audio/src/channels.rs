//! Which channel a run is heard in. A channel belongs to a party, never to the order of arrival.

use crate::report::StreamReport;
use crate::scan::SIDES;
use trunkline_sn3::capture::CaptureFacts;
use trunkline_sn3::facts::ParticipantFact;

/// Channels of the output, at most (what FLAC can hold).
pub const CHANNELS_MAX: usize = 8;
/// A party's first packets may come a little before the note that it joined, ns.
const JOIN_SLACK_NS: i64 = 1_000_000_000;

/// How sides and parties become channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChannelLayout {
    /// The caller left, whoever is bridged to the caller right.
    #[default]
    Stereo,
    /// Both sides mixed into one.
    Mono,
    /// One for each party: the caller first, then the others in the order they joined; further
    /// audio m-lines of a party have channels of their own.
    Parties,
}

/// What one channel holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// 0 = caller, 1 = callee; `None` where both are mixed.
    pub side: Option<u8>,
    /// The party's URI where the capture names it, else `caller` or `callee`.
    pub party: String,
    /// m-line index.
    pub media: u8,
}

/// The channels in order.
#[derive(Debug, Clone)]
pub(crate) struct Channels {
    pub(crate) list: Vec<Channel>,
    parties: Vec<Party>,
    layout: ChannelLayout,
}

#[derive(Debug, Clone)]
struct Party {
    side: u8,
    name: String,
    from_ns: i64,
}

impl Channels {
    pub(crate) fn new(layout: ChannelLayout, facts: &CaptureFacts) -> Self {
        let mut channels = Self {
            list: Vec::new(),
            parties: Vec::new(),
            layout,
        };
        match layout {
            ChannelLayout::Mono => channels.list.push(Channel {
                side: None,
                party: "caller and callee".to_owned(),
                media: 0,
            }),
            ChannelLayout::Stereo => {
                for side in 0..2 {
                    channels.list.push(Channel {
                        side: Some(side),
                        party: SIDES[usize::from(side)].to_owned(),
                        media: 0,
                    });
                }
            }
            ChannelLayout::Parties => {
                channels.parties = parties(facts);
                for party in channels.parties.iter().take(CHANNELS_MAX) {
                    channels.list.push(Channel {
                        side: Some(party.side),
                        party: party.name.clone(),
                        media: 0,
                    });
                }
            }
        }
        channels
    }

    /// The channel of a run; a new one where the layout has one for each party and m-line.
    pub(crate) fn of(&mut self, side: u8, media: u8, first_ns: i64) -> usize {
        match self.layout {
            ChannelLayout::Mono => 0,
            ChannelLayout::Stereo => usize::from(side & 1),
            ChannelLayout::Parties => self.of_party(side & 1, media, first_ns),
        }
    }

    fn of_party(&mut self, side: u8, media: u8, first_ns: i64) -> usize {
        let on_side = |party: &&Party| party.side == side;
        let joined = |party: &&Party| party.from_ns <= first_ns.saturating_add(JOIN_SLACK_NS);
        let speaking = self.parties.iter().filter(on_side).rfind(joined);
        let party = speaking
            .or_else(|| self.parties.iter().find(on_side))
            .map_or(SIDES[usize::from(side)].to_owned(), |p| p.name.clone());
        let known = self.list.iter().position(|channel| {
            channel.side == Some(side) && channel.party == party && channel.media == media
        });
        match known {
            Some(index) => index,
            None if self.list.len() < CHANNELS_MAX => {
                self.list.push(Channel {
                    side: Some(side),
                    party,
                    media,
                });
                self.list.len() - 1
            }
            None => {
                let other = self.list.iter().rposition(|c| c.side == Some(side));
                other.unwrap_or(usize::from(side))
            }
        }
    }

    /// The channel in which a side's telephone events are made audible.
    pub(crate) fn of_events(&mut self, side: u8, streams: &[StreamReport], at_ms: i64) -> usize {
        let speaking = streams
            .iter()
            .zip(0..)
            .filter(|(stream, _)| stream.side == side && !stream.stray)
            .min_by_key(|(stream, _)| (stream.first_ms - at_ms).max(at_ms - stream.last_ms).max(0));
        speaking.map_or(self.of(side, 0, 0), |(stream, _)| stream.channel)
    }
}

/// The parties in the order of their channels: both sides at least.
fn parties(facts: &CaptureFacts) -> Vec<Party> {
    let closed = facts.close.iter().map(|(_, close)| &close.participants);
    let changed = facts
        .changes
        .iter()
        .rev()
        .filter_map(|(_, change)| change.participants.as_ref());
    let opened = facts.open.iter().map(|open| &open.participants);
    let told: &[ParticipantFact] = closed
        .chain(changed)
        .chain(opened)
        .find(|list| !list.is_empty())
        .map_or(&[], Vec::as_slice);
    let origin_utc_ns = facts
        .clock
        .map(|(wall_ns, clock)| i128::from(clock.utc_ns) - i128::from(wall_ns));
    let mut parties: Vec<Party> = told
        .iter()
        .map(|participant| {
            let from_ns = utc_ns(&participant.from).zip(origin_utc_ns);
            let name = if participant.uri.is_empty() {
                &participant.role
            } else {
                &participant.uri
            };
            Party {
                side: participant.channel.min(1),
                name: name.clone(),
                from_ns: from_ns.map_or(i64::MIN, |(utc, origin)| {
                    i64::try_from(utc - origin).unwrap_or(i64::MAX)
                }),
            }
        })
        .collect();
    for side in 0..2 {
        if !parties.iter().any(|party| party.side == side) {
            parties.push(Party {
                side,
                name: SIDES[usize::from(side)].to_owned(),
                from_ns: i64::MIN,
            });
        }
    }
    parties.sort_by_key(|party| (party.side, party.from_ns));
    parties.dedup_by(|a, b| a.side == b.side && a.name == b.name);
    parties
}

/// A time of RFC 3339 as ns since 1970.
fn utc_ns(text: &str) -> Option<i128> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    if bytes.len() < 20 || bytes[10] | 0x20 != b't' {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let seconds = number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?;
    let fraction: String = text
        .get(19..)?
        .strip_prefix('.')
        .unwrap_or("")
        .chars()
        .take_while(char::is_ascii_digit)
        .take(9)
        .collect();
    let zone = text
        .get(19..)?
        .trim_start_matches(['.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    let offset_s = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), ..] => {
            let hours: i64 = zone.get(1..3)?.parse().ok()?;
            let minutes: i64 = zone.get(4..6)?.parse().ok()?;
            (hours * 3_600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        // Digits of the zone look like a fraction without its point.
        _ => return None,
    };
    // Days of the proleptic Gregorian calendar, with March as the first month.
    let (shifted, moon) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * shifted + shifted.div_euclid(4) - shifted.div_euclid(100)
        + shifted.div_euclid(400)
        + (153 * moon + 2) / 5
        + day
        - 719_469;
    let ns: i128 = format!("{fraction:0<9}").parse().ok()?;
    Some(i128::from(days * 86_400 + seconds - offset_s) * 1_000_000_000 + ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let ms = |text| utc_ns(text).map(|ns| ns / 1_000_000);
        assert_eq!(ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(ms("2026-11-25T08:03:31.250Z"), Some(1_795_593_811_250));
        assert_eq!(ms("2026-11-25T10:03:31.250+02:00"), Some(1_795_593_811_250));
        assert_eq!(ms("2024-02-29T23:59:59.999Z"), Some(1_709_251_199_999));
        for wrong in [
            "",
            "yesterday",
            "2026-11-25",
            "2026-11-25T08:03:31",
            "2026-é1-25T08:03:31Z",
        ] {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_party_that_joins_later_has_a_channel_of_its_own() {
        let participant = |uri: &str, channel, from: &str| ParticipantFact {
            uri: uri.to_owned(),
            channel,
            from: from.to_owned(),
            ..ParticipantFact::default()
        };
        let clock = trunkline_sn3::record::ClockTriple {
            mono_ns: 0,
            utc_ns: 1_795_593_811_250_000_000,
            sync: 1,
        };
        let open = trunkline_sn3::facts::CallOpen {
            participants: vec![
                participant("sip:desk@b", 1, "2026-11-25T08:05:00.000Z"),
                participant("sip:a@b", 0, "2026-11-25T08:03:31.250Z"),
                participant("sip:agent@b", 1, "2026-11-25T08:03:31.250Z"),
            ],
            ..Default::default()
        };
        let facts = CaptureFacts {
            clock: Some((0, clock)),
            open: Some(open),
            ..CaptureFacts::default()
        };
        let mut channels = Channels::new(ChannelLayout::Parties, &facts);
        assert_eq!(channels.list.len(), 3);
        assert_eq!(channels.of(0, 0, 0), 0);
        assert_eq!(channels.of(1, 0, 5_000_000_000), 1);
        assert_eq!(channels.of(1, 0, 100_000_000_000), 2);
        assert_eq!(channels.list[2].party, "sip:desk@b");
        assert_eq!(channels.of(1, 1, 0), 3, "a second m-line");
    }
}
