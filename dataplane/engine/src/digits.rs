//! Digits that a side dials by telephone-event packets (RFC 4733), each told once.

use trunkline_rtp::{RtpHeader, TelephoneEvent};

/// A digit as it was dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialled {
    /// Event code.
    pub(crate) event: u8,
    /// How long it lasted, in timestamp units.
    pub(crate) duration: u16,
}

/// What a side dials. Packets of one event share its timestamp; the last one comes several times.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DigitWatch {
    current: Option<Current>,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    ssrc: u32,
    timestamp: u32,
    dialled: Dialled,
    told: bool,
}

impl DigitWatch {
    /// Takes in a telephone-event packet; gives the digit that has ended by it. One whose end was lost
    /// ends with the beginning of the next.
    #[cold]
    pub(crate) fn observe(&mut self, header: &RtpHeader, payload: &[u8]) -> Option<Dialled> {
        let block = TelephoneEvent::parse(payload)?;
        let dialled = Dialled {
            event: block.event,
            duration: block.duration,
        };
        let mut lost = None;
        if let Some(current) = &mut self.current
            && current.ssrc == header.ssrc
        {
            let ahead = header.timestamp.wrapping_sub(current.timestamp);
            if ahead > u32::MAX / 2 {
                // Of an earlier event, late.
                return None;
            }
            if ahead == 0 {
                current.dialled.duration = current.dialled.duration.max(block.duration);
                let ends = block.end && !current.told;
                current.told |= block.end;
                return ends.then_some(current.dialled);
            }
            lost = (!current.told).then_some(current.dialled);
        }
        self.current = Some(Current {
            ssrc: header.ssrc,
            timestamp: header.timestamp,
            dialled,
            // One that follows a lost end and ends with its first packet is told by that one's repetition.
            told: block.end && lost.is_none(),
        });
        lost.or(block.end.then_some(dialled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(
        watch: &mut DigitWatch,
        timestamp: u32,
        event: u8,
        duration: u16,
        end: bool,
    ) -> String {
        let mut packet = vec![0x80, 101, 0, 1];
        packet.extend_from_slice(&timestamp.to_be_bytes());
        packet.extend_from_slice(&7_u32.to_be_bytes());
        let header = RtpHeader::parse(&packet).expect("a header");
        let block = TelephoneEvent {
            event,
            end,
            volume: 10,
            duration,
        };
        watch
            .observe(&header, &block.encode())
            .map_or(String::new(), |one| {
                format!("{}:{}", one.event, one.duration)
            })
    }

    #[test]
    fn each_digit_is_told_once_however_often_its_end_comes() {
        let mut watch = DigitWatch::default();
        let heard: Vec<String> = [
            (100, 5, 160, false),
            (100, 5, 320, false),
            (100, 5, 480, true),
            (100, 5, 480, true),
            (100, 5, 480, true),
            (900, 5, 160, true),
            (900, 5, 160, true),
            (100, 5, 480, true),
        ]
        .into_iter()
        .map(|(timestamp, event, duration, end)| {
            observe(&mut watch, timestamp, event, duration, end)
        })
        .filter(|told| !told.is_empty())
        .collect();
        assert_eq!(heard, ["5:480", "5:160"]);
    }

    #[test]
    fn a_digit_whose_end_is_lost_ends_with_the_next() {
        let mut watch = DigitWatch::default();
        assert_eq!(observe(&mut watch, 100, 1, 160, false), "");
        assert_eq!(observe(&mut watch, 900, 2, 160, false), "1:160");
        assert_eq!(observe(&mut watch, 900, 2, 320, true), "2:320");
        assert_eq!(observe(&mut watch, 1800, 3, 160, false), "");
        assert_eq!(observe(&mut watch, 2700, 4, 160, true), "3:160");
        assert_eq!(observe(&mut watch, 2700, 4, 160, true), "4:160");
    }

    #[test]
    fn what_is_no_event_is_none() {
        let mut watch = DigitWatch::default();
        let header =
            RtpHeader::parse(&[0x80, 101, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7]).expect("a header");
        assert_eq!(watch.observe(&header, &[1, 0x80]), None);
    }
}
