//! Builds segments as a worker and the recorder would.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;

use trunkline_sn3::chain::{self, Link};
use trunkline_sn3::extent::{Appender, Seal, extent_flags};
use trunkline_sn3::facts::{CallClose, CallOpen, LegFact, PayloadFact};
use trunkline_sn3::file::SegmentStore;
use trunkline_sn3::layout::EXTENT_BYTES;
use trunkline_sn3::record::{ClockTriple, DropRecord, PauseRecord};
use trunkline_sn3::sim::{SimDisk, SimFile};
use trunkline_sn3::writer::{SegmentOrigin, SegmentWriter};
use trunkline_sn3::{FrameHead, FrameKind, flags};

/// A small seeded generator (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

pub const ORIGIN: SegmentOrigin = SegmentOrigin {
    worker: 0,
    epoch: 42,
    clock: ClockTriple {
        mono_ns: 1_000,
        utc_ns: 1_700_000_000_000_000_000,
        sync: 1,
    },
    flags: 0,
    cipher: 0,
};

/// One frame to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub head: FrameHead,
    pub payload: Vec<u8>,
}

/// A two-way call of `packets` packets a side with all sorts of frames.
pub fn call(packets: u16, seed: u64) -> Vec<Item> {
    let mut random = Random(seed | 1);
    let mut items = vec![
        note(
            FrameKind::Clock,
            0,
            ClockTriple {
                mono_ns: 5_000,
                utc_ns: 99,
                sync: 1,
            }
            .encode()
            .to_vec(),
        ),
        note(
            FrameKind::CallOpen,
            0,
            serde_json::to_vec(&open_fact()).expect("JSON"),
        ),
    ];
    for n in 0..packets {
        for side in 0..2u8 {
            let late = n == 7 && side == 1;
            let head = FrameHead {
                kind: FrameKind::Rtp,
                side,
                media: 0,
                ssrc: if n < packets / 2 {
                    0x1000 + u32::from(side)
                } else {
                    0x2000
                },
                pt: if n % 50 == 49 { 101 } else { 0 },
                marker: n == 0 || n % 50 == 0,
                flags: if late { flags::LATE } else { 0 },
                seq: n.wrapping_add(65_500),
                seq_cycles: u16::from(n.checked_add(65_500).is_none()),
                rtp_ts: u32::from(n) * 160,
                wall_ns: 1_500_000_000 + u64::from(n) * 20_000_000 + u64::from(side) * 1_000,
            };
            let length = if n % 50 == 49 { 4 } else { 160 };
            let payload: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            if n == 3 {
                let twice = FrameHead {
                    flags: flags::DUPLICATE,
                    ..head
                };
                items.push(Item {
                    head,
                    payload: payload.clone(),
                });
                items.push(Item {
                    head: twice,
                    payload,
                });
                continue;
            }
            items.push(Item { head, payload });
        }
        match n {
            10 => items.push(rtcp(0, 1_700_000_000, 60)),
            11 => items.push(rtcp(1, 1_720_000_000, 5_000)),
            12 => items.push(Item {
                head: FrameHead {
                    seq: 9,
                    ..items[4].head
                },
                payload: Vec::new(),
            }),
            13 => items.push(note(
                FrameKind::Pause,
                1_800_000_000,
                PauseRecord { by: 1 }.encode().to_vec(),
            )),
            14 => items.push(note(
                FrameKind::Resume,
                1_900_000_000,
                PauseRecord { by: 1 }.encode().to_vec(),
            )),
            15 => {
                let record = DropRecord {
                    reason: 4,
                    side: 1,
                    media: 0,
                    ssrc: 7,
                    count: 3,
                };
                items.push(note(
                    FrameKind::Drop,
                    1_950_000_000,
                    record.encode().to_vec(),
                ));
            }
            _ => {}
        }
    }
    let end = items.last().map_or(0, |item| item.head.wall_ns);
    let close = CallClose {
        ended_mono_ns: 5_000 + end,
        verdict: "complete".into(),
        ..Default::default()
    };
    items.push(note(
        FrameKind::CallClose,
        end,
        serde_json::to_vec(&close).expect("JSON"),
    ));
    items
}

pub fn open_fact() -> CallOpen {
    CallOpen {
        recording_id: "rec".into(),
        caller: "alice".into(),
        answered_mono_ns: 5_000 + 1_400_000_000,
        legs: vec![LegFact {
            side: 0,
            kind: "audio".into(),
            payloads: vec![PayloadFact {
                codec: "PCMU".into(),
                clock_hz: 8000,
                ..Default::default()
            }],
            ..LegFact::default()
        }],
        attributes: [("long".to_owned(), "x".repeat(9_000))].into(),
        ..CallOpen::default()
    }
}

pub fn note(kind: FrameKind, wall_ns: u64, payload: Vec<u8>) -> Item {
    Item {
        head: FrameHead::note(kind, wall_ns),
        payload,
    }
}

fn rtcp(side: u8, wall_ns: u64, length: usize) -> Item {
    let head = FrameHead {
        side,
        ssrc: 0x1000,
        ..FrameHead::note(FrameKind::Rtcp, wall_ns)
    };
    Item {
        head,
        payload: vec![0x80 | side; length],
    }
}

/// Writes recordings side by side as a recorder does: extents in turns, chained, the last one flagged.
pub struct Builder {
    pub writer: SegmentWriter<SimFile>,
    disk: SimDisk,
    chains: BTreeMap<u64, (u32, u32, Link)>,
    /// Encrypts what is put.
    pub key: Option<trunkline_sn3::cipher::DataKey>,
}

impl Builder {
    pub fn new(disk: &SimDisk) -> Self {
        let mut store = disk.clone();
        let writer = SegmentWriter::create(&mut store, &ORIGIN).expect("a segment");
        Self {
            writer,
            disk: disk.clone(),
            chains: BTreeMap::new(),
            key: None,
        }
    }

    /// Seals `extent` as the next of its recording.
    pub fn put(&mut self, recording: u64, extent: &[u8], used: u32, last: bool) {
        let link = self
            .chains
            .get(&recording)
            .map_or(chain::START, |chain| chain.2);
        self.put_after(recording, extent, used, last, link);
    }

    /// The same, chained to any link.
    pub fn put_after(&mut self, recording: u64, extent: &[u8], used: u32, last: bool, link: Link) {
        let before = self.chains.get(&recording).copied();
        let (prev_segment, prev_page, _) = before.unwrap_or((0, 0, chain::START));
        let flags = if last { extent_flags::LAST } else { 0 };
        let asked = Seal {
            used,
            prev_segment,
            prev_page,
            flags,
            previous_link: Some(link),
            encryption: self.key.as_ref().map(|key| (key, 77)),
            ..Seal::default()
        };
        if !self.writer.has_room() {
            self.writer.flush().expect("written");
        }
        let staged = self.writer.stage(extent, &asked).expect("an extent");
        let link = staged.link.expect("chained");
        let place = (self.writer.number(), staged.page, link);
        self.chains.insert(recording, place);
    }

    /// Checkpoints and goes on in a new segment.
    pub fn roll(&mut self) {
        self.writer.finish(9_999).expect("finished");
        self.writer = SegmentWriter::create(&mut self.disk.clone(), &ORIGIN).expect("a segment");
    }

    /// Head of the recording's hash chain.
    pub fn head(&self, recording: u64) -> Link {
        self.chains[&recording].2
    }

    pub fn last(&self, recording: u64) -> (u32, u32) {
        let (segment, page, _) = self.chains[&recording];
        (segment, page)
    }
}

/// A recording's extents as a worker fills them.
pub fn extents(recording: u64, items: &[Item]) -> Vec<(Vec<u8>, u32)> {
    let mut done = Vec::new();
    let mut extent = vec![0u8; EXTENT_BYTES];
    let mut appender = Appender::open(&mut extent, recording, 0, 1_000);
    for item in items {
        if appender
            .append(&mut extent, &item.head, &item.payload)
            .is_err()
        {
            done.push((extent.clone(), appender.used()));
            appender = Appender::open(&mut extent, recording, done.len() as u32, 1_000);
            appender
                .append(&mut extent, &item.head, &item.payload)
                .expect("fits an empty extent");
        }
    }
    done.push((extent, appender.used()));
    done
}

/// One segment (number 1) with these recordings, their extents interleaved, checkpoints in between.
pub fn one_segment(disk: &SimDisk, recordings: &[(u64, Vec<Item>)]) -> Builder {
    let mut builder = Builder::new(disk);
    let mut waiting: Vec<_> = recordings
        .iter()
        .map(|(recording, items)| {
            (
                *recording,
                extents(*recording, items).into_iter().peekable(),
            )
        })
        .collect();
    let mut count = 0;
    while !waiting.is_empty() {
        for (recording, left) in &mut waiting {
            if let Some((extent, used)) = left.next() {
                let last = left.peek().is_none();
                builder.put(*recording, &extent, used, last);
                count += 1;
                if count % 5 == 0 {
                    builder.writer.checkpoint(7_777).expect("durable");
                }
            }
        }
        waiting.retain_mut(|(_, left)| left.peek().is_some());
    }
    builder.writer.checkpoint(8_888).expect("durable");
    builder
}

/// What a capture gives back.
pub fn read_items(capture: &trunkline_sn3::Capture) -> Vec<Item> {
    capture
        .frames()
        .map(|frame| Item {
            head: FrameHead {
                kind: frame.kind,
                side: frame.side,
                media: frame.media,
                ssrc: frame.ssrc.unwrap_or(0),
                pt: frame.pt.unwrap_or(0),
                marker: frame.marker,
                flags: frame.flags,
                seq: frame.seq,
                seq_cycles: frame.seq_cycles,
                rtp_ts: frame.rtp_ts,
                wall_ns: frame.wall_ns,
            },
            payload: frame.payload.into_owned(),
        })
        .collect()
}

/// A store that is only there to name the type.
pub fn store(disk: &SimDisk) -> impl SegmentStore<File = SimFile> {
    disk.clone()
}
