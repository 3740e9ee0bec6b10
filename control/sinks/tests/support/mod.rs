//! Makes segments with recorded calls, as the dataplane would leave them.

use std::path::Path;
use trunkline_sinks::Timestamp;
use trunkline_sn3::chain;
use trunkline_sn3::extent::{Appender, Seal, extent_flags};
use trunkline_sn3::facts::{CallClose, CallOpen, LegFact, ParticipantFact, PayloadFact};
use trunkline_sn3::file::DirectoryStore;
use trunkline_sn3::record::ClockTriple;
use trunkline_sn3::writer::{SegmentOrigin, SegmentWriter};
use trunkline_sn3::{FrameHead, FrameKind};

/// CLOCK_MONOTONIC of every recording's origin here.
pub const ORIGIN_NS: u64 = 5_000_000_000;
const FRAME_NS: u64 = 20_000_000;

/// A call to be written.
#[derive(Debug, Clone)]
pub struct Script {
    pub number: u64,
    pub recording_id: String,
    pub call_id: String,
    pub started_at: Timestamp,
    /// Packets of 20 ms from each side, caller first; PCMU.
    pub packets: u16,
    /// Sequence numbers of the caller that never arrive.
    pub lost: Vec<u16>,
    /// With a close fact, and the last extent marked.
    pub closed: bool,
}

impl Script {
    pub fn new(number: u64, started_at: Timestamp, packets: u16) -> Self {
        Self {
            number,
            recording_id: trunkline_sinks::object::new_id(),
            call_id: trunkline_sinks::object::new_id(),
            started_at,
            packets,
            lost: Vec::new(),
            closed: true,
        }
    }

    fn at(&self, ms: u64) -> String {
        Timestamp(self.started_at.0.saturating_add_unsigned(ms)).to_string()
    }

    fn duration_ms(&self) -> u64 {
        u64::from(self.packets) * 20
    }

    fn open_fact(&self) -> CallOpen {
        let leg = |side| LegFact {
            side,
            media: 0,
            kind: "audio".into(),
            ptime_ms: 20,
            alternate: 0,
            payloads: vec![PayloadFact {
                pt: 0,
                codec: "PCMU".into(),
                clock_hz: 8000,
                channels: 1,
                fmtp: String::new(),
            }],
        };
        CallOpen {
            recording_id: self.recording_id.clone(),
            call_id: self.call_id.clone(),
            caller: "alice".into(),
            callee: "+4930".into(),
            sip_call_ids: vec![
                format!("a{}@test", self.number),
                format!("b{}@test", self.number),
            ],
            call_started_at: self.at(0),
            started_at: self.at(0),
            answered_mono_ns: ORIGIN_NS,
            answered_at: self.at(0),
            participants: self.participants(),
            legs: vec![leg(0), leg(1)],
            attributes: [("queue".to_owned(), "sales".to_owned())].into(),
            ..CallOpen::default()
        }
    }

    fn participants(&self) -> Vec<ParticipantFact> {
        let party = |role: &str, user: &str, channel| ParticipantFact {
            role: role.into(),
            uri: format!("sip:{user}@192.0.2.1"),
            channel,
            from: self.at(0),
            ..ParticipantFact::default()
        };
        vec![party("caller", "alice", 0), party("callee", "+4930", 1)]
    }

    fn close_fact(&self) -> CallClose {
        let receipt = serde_json::json!({
            "caller": { "expected": self.packets, "written": self.packets, "lost": 0, "dropped": 0 },
            "callee": { "expected": self.packets, "written": self.packets, "lost": 0, "dropped": 0 },
            "streams": [],
        });
        CallClose {
            ended_at: self.at(self.duration_ms()),
            ended_mono_ns: ORIGIN_NS + self.duration_ms() * 1_000_000,
            ended_by: "callee".into(),
            verdict: "complete".into(),
            receipt,
            participants: self.participants(),
        }
    }

    /// All frames in order.
    fn frames(&self) -> Vec<(FrameHead, Vec<u8>)> {
        let note = |kind, wall_ns, payload: Vec<u8>| (FrameHead::note(kind, wall_ns), payload);
        let utc_ns = self.started_at.0.cast_unsigned() * 1_000_000;
        let clock = ClockTriple {
            mono_ns: ORIGIN_NS,
            utc_ns,
            sync: 1,
        };
        let open = serde_json::to_vec(&self.open_fact()).unwrap();
        let mut frames = vec![
            note(FrameKind::Clock, 0, clock.encode().to_vec()),
            note(FrameKind::CallOpen, 0, open),
        ];
        for packet in 0..self.packets {
            for side in [0u8, 1] {
                if side == 0 && self.lost.contains(&packet) {
                    continue;
                }
                let head = FrameHead {
                    kind: FrameKind::Rtp,
                    side,
                    media: 0,
                    ssrc: 100 + u32::from(side),
                    pt: 0,
                    marker: packet == 0,
                    flags: 0,
                    seq: packet,
                    seq_cycles: 0,
                    rtp_ts: u32::from(packet) * 160,
                    wall_ns: u64::from(packet) * FRAME_NS,
                };
                // Loud on the left, quiet on the right.
                frames.push((head, vec![if side == 0 { 0x80 } else { 0xff }; 160]));
            }
        }
        if self.closed {
            let close = serde_json::to_vec(&self.close_fact()).unwrap();
            frames.push(note(
                FrameKind::CallClose,
                self.duration_ms() * 1_000_000,
                close,
            ));
        }
        frames
    }
}

/// Writes one finished segment with the recordings one after the other.
pub fn write_segment(directory: &Path, scripts: &[Script]) {
    let mut store = DirectoryStore::buffered(directory).unwrap();
    let clock = ClockTriple {
        mono_ns: ORIGIN_NS,
        utc_ns: 1,
        sync: 0,
    };
    let origin = SegmentOrigin {
        worker: 0,
        epoch: 1,
        clock,
        flags: 0,
        cipher: 0,
    };
    let mut writer = SegmentWriter::create(&mut store, &origin).unwrap();
    for script in scripts {
        write_recording(&mut writer, script);
    }
    writer.flush().unwrap();
    writer.finish(ORIGIN_NS).unwrap();
}

fn write_recording<F: trunkline_sn3::file::SegmentFile>(
    writer: &mut SegmentWriter<F>,
    script: &Script,
) {
    let mut previous = (0, 0, chain::START);
    let mut ordinal = 0;
    let mut extent = vec![0u8; trunkline_sn3::layout::EXTENT_BYTES];
    let mut appender = Appender::open(&mut extent, script.number, ordinal, ORIGIN_NS);
    let frames = script.frames();
    for (index, (head, payload)) in frames.iter().enumerate() {
        if appender.append(&mut extent, head, payload).is_err() {
            previous = stage(writer, &extent, appender.used(), previous, 0);
            ordinal += 1;
            appender = Appender::open(&mut extent, script.number, ordinal, ORIGIN_NS);
            appender.append(&mut extent, head, payload).unwrap();
        }
        if index + 1 == frames.len() {
            let last = if script.closed { extent_flags::LAST } else { 0 };
            stage(writer, &extent, appender.used(), previous, last);
        }
    }
}

fn stage<F: trunkline_sn3::file::SegmentFile>(
    writer: &mut SegmentWriter<F>,
    extent: &[u8],
    used: u32,
    previous: (u32, u32, chain::Link),
    flags: u8,
) -> (u32, u32, chain::Link) {
    let (prev_segment, prev_page, _) = previous;
    if !writer.has_room() {
        writer.flush().unwrap();
    }
    let seal = Seal {
        used,
        prev_segment,
        prev_page,
        flags,
        previous_link: Some(previous.2),
        ..Seal::default()
    };
    let staged = writer.stage(extent, &seal).unwrap();
    (writer.number(), staged.page, staged.link.unwrap())
}
