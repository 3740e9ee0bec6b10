//! Telephone events (RFC 4733): digits as RTP payloads.

/// One report of an event; an event is sent as several reports of growing duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventReport {
    /// Event code: 0-9 digits, 10 `*`, 11 `#`, 12-15 A-D, 16 flash.
    pub event: u8,
    /// The event is over.
    pub end: bool,
    /// Level in -dBm0, 0..=63.
    pub volume: u8,
    /// Duration so far, in RTP clock ticks.
    pub duration: u16,
}

impl EventReport {
    /// Reads a payload (section 2.3); `None` when it is shorter than a report.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let report: [u8; 4] = payload.get(..4)?.try_into().ok()?;
        Some(Self {
            event: report[0],
            end: report[1] & 0x80 != 0,
            volume: report[1] & 0x3F,
            duration: u16::from_be_bytes([report[2], report[3]]),
        })
    }

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> [u8; 4] {
        let [high, low] = self.duration.to_be_bytes();
        [
            self.event,
            u8::from(self.end) << 7 | (self.volume & 0x3F),
            high,
            low,
        ]
    }

    /// Whether a payload whose type nobody knows looks like a DTMF report: four bytes, a DTMF
    /// event, the reserved bit zero.
    #[must_use]
    pub fn resembles(payload: &[u8]) -> bool {
        payload.len() == 4 && payload[0] <= 16 && payload[1] & 0x40 == 0
    }
}

/// The key of a DTMF event, `None` for other events.
#[must_use]
pub fn key(event: u8) -> Option<char> {
    Some(match event {
        0..=9 => char::from(b'0' + event),
        10 => '*',
        11 => '#',
        12..=15 => char::from(b'A' + event - 12),
        _ => return None,
    })
}

/// The two frequencies of a DTMF event in Hz (ITU-T Q.23).
#[must_use]
pub fn frequencies(event: u8) -> Option<(u16, u16)> {
    const LOW: [u16; 4] = [697, 770, 852, 941];
    const HIGH: [u16; 4] = [1_209, 1_336, 1_477, 1_633];
    let (row, column) = match event {
        1..=9 => ((event - 1) / 3, (event - 1) % 3),
        0 => (3, 1),
        10 => (3, 0),
        11 => (3, 2),
        12..=15 => (event - 12, 3),
        _ => return None,
    };
    Some((LOW[usize::from(row)], HIGH[usize::from(column)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_their_encoding() {
        let report = EventReport {
            event: 11,
            end: true,
            volume: 10,
            duration: 1_600,
        };
        assert_eq!(report.encode(), [11, 0x8A, 0x06, 0x40]);
        assert_eq!(EventReport::parse(&report.encode()), Some(report));
        assert_eq!(EventReport::parse(&[1, 2, 3]), None);
    }

    #[test]
    fn keys_and_frequencies_are_those_of_a_telephone() {
        assert_eq!((key(5), frequencies(5)), (Some('5'), Some((770, 1_336))));
        assert_eq!((key(10), frequencies(10)), (Some('*'), Some((941, 1_209))));
        assert_eq!((key(13), frequencies(13)), (Some('B'), Some((770, 1_633))));
        assert_eq!((key(16), frequencies(16)), (None, None));
    }

    #[test]
    fn only_four_byte_dtmf_reports_resemble_events() {
        assert!(EventReport::resembles(&[5, 0x0A, 0, 160]));
        assert!(
            !EventReport::resembles(&[5, 0x4A, 0, 160]),
            "reserved bit set"
        );
        assert!(!EventReport::resembles(&[0xFF; 4]));
        assert!(!EventReport::resembles(&[5, 10, 0]));
    }
}
