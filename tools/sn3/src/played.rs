//! What we played to parties ourselves, as a capture shows it: digits, tones, announcements.

use serde_json::{Value, json};
use trunkline_sn3::{Capture, flags};

/// A longer silence ends what is told of as one.
const GAP_NS: u64 = 1_000_000_000;

/// Packets of one payload type that followed each other.
pub(crate) struct Played {
    /// Side that heard it.
    to: u8,
    media: u8,
    payload_type: u8,
    codec: String,
    packets: u64,
    from_ns: u64,
    to_ns: u64,
}

/// Everything that was played, by its beginning.
pub(crate) fn played(capture: &Capture) -> Vec<Played> {
    let mut all: Vec<Played> = Vec::new();
    for frame in capture.frames() {
        if frame.flags & flags::INJECTED == 0 {
            continue;
        }
        let (to, payload_type) = (1 - frame.side.min(1), frame.pt.unwrap_or(0));
        let goes_on = |one: &&mut Played| {
            (one.to, one.media, one.payload_type) == (to, frame.media, payload_type)
                && frame.wall_ns.saturating_sub(one.to_ns) < GAP_NS
        };
        match all.iter_mut().rev().find(goes_on) {
            Some(known) => {
                known.packets += 1;
                known.to_ns = frame.wall_ns;
            }
            None => all.push(Played {
                to,
                media: frame.media,
                payload_type,
                codec: codec(capture, to, frame.media, payload_type, frame.wall_ns),
                packets: 1,
                from_ns: frame.wall_ns,
                to_ns: frame.wall_ns,
            }),
        }
    }
    all
}

/// Payload types of what is played are those of the side that hears it.
fn codec(capture: &Capture, to: u8, media: u8, payload_type: u8, at_ns: u64) -> String {
    let found = capture.facts().payload_at(to, media, payload_type, at_ns);
    let fixed = trunkline_codec::CodecKind::from_static_payload_type(payload_type);
    match (found, fixed) {
        (Some(found), _) => found.codec.clone(),
        (None, Some(fixed)) => fixed.kind.name().to_owned(),
        (None, None) => "unknown".to_owned(),
    }
}

impl Played {
    pub(crate) fn as_json(&self) -> Value {
        json!({
            "to": crate::info::side_name(self.to),
            "media": self.media,
            "codec": self.codec,
            "payload_type": self.payload_type,
            "packets": self.packets,
            "from_ms": self.from_ns as f64 / 1e6,
            "to_ms": self.to_ns as f64 / 1e6,
        })
    }

    pub(crate) fn as_text(&self) -> String {
        format!(
            "played     to the {}: {} packets of {} (payload type {}), {:.3} s to {:.3} s",
            crate::info::side_name(self.to),
            self.packets,
            self.codec,
            self.payload_type,
            self.from_ns as f64 / 1e9,
            self.to_ns as f64 / 1e9,
        )
    }
}
