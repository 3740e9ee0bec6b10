//! A session in a laboratory: an engine, both parties, and everything that comes out.
#![allow(dead_code)]

use std::net::SocketAddr;

use trunkline_engine::{
    Actions, Captured, Codec, Engine, Event, FrameMeta, LegFlags, LegSpec, Limits, MediaKind,
    MediaSpec, PayloadSpec, PortSlots, SessionSpec, Side, StreamReceipt, TAIL_ROOM_BYTES,
};

pub const SECOND: u64 = 1_000_000_000;
pub const MS: u64 = 1_000_000;
pub const SESSION: u64 = 7;
/// Slots of the first m-line.
pub const SLOTS: [PortSlots; 2] = [PortSlots { rtp: 0, rtcp: 1 }, PortSlots { rtp: 2, rtcp: 3 }];

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Where the parties say they are.
pub fn party(side: Side) -> SocketAddr {
    address(match side {
        Side::Caller => "192.0.2.1:5004",
        Side::Callee => "198.51.100.1:6004",
    })
}

/// A datagram that left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub slot: u32,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// Everything an engine did.
#[derive(Debug, Default)]
pub struct Log {
    pub sent: Vec<Sent>,
    pub frames: Vec<(u32, FrameMeta, Vec<u8>)>,
    pub events: Vec<Event>,
    /// What capture answers, next last; written when empty.
    pub refusals: Vec<Captured>,
    forwarded: Option<(u32, SocketAddr, usize)>,
}

impl Actions for Log {
    fn forward(&mut self, slot: u32, destination: SocketAddr, length: usize) {
        assert!(
            self.forwarded
                .replace((slot, destination, length))
                .is_none(),
            "forwarded twice"
        );
    }

    fn forward_copy(&mut self, slot: u32, destination: SocketAddr, packet: &[u8]) {
        assert!(self.forwarded.is_none(), "held packets come first");
        self.sent.push(Sent {
            slot,
            to: destination,
            bytes: packet.to_vec(),
        });
    }

    fn capture(&mut self, tap: u32, frame: &FrameMeta, bytes: &[u8]) -> Captured {
        match self.refusals.pop() {
            None | Some(Captured::Written) => {
                self.frames.push((tap, *frame, bytes.to_vec()));
                Captured::Written
            }
            Some(refusal) => refusal,
        }
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

pub struct Lab {
    pub engine: Engine,
    pub log: Log,
    pub now_ns: u64,
}

/// PCMU, PCMA, telephone-event.
pub fn payloads() -> Vec<PayloadSpec> {
    let payload = |pt, codec| PayloadSpec {
        pt,
        to_pt: pt,
        codec,
        clock_hz: 8000,
    };
    vec![
        payload(0, Codec::Pcmu),
        payload(8, Codec::Pcma),
        payload(101, Codec::TelephoneEvent),
    ]
}

/// What an SDP of this side usually says.
pub fn leg(side: Side) -> LegSpec {
    LegSpec {
        session: SESSION,
        media: 0,
        side,
        flags: LegFlags {
            learn: true,
            expect_media: true,
            may_send: true,
            ..LegFlags::default()
        },
        rtp: Some(party(side)),
        rtcp: None,
        signalling: Some(party(side).ip()),
        payloads: payloads(),
        restore: None,
    }
}

impl Lab {
    /// A session of one m-line that nobody has described yet.
    pub fn bare(kind: MediaKind) -> Self {
        let limits = Limits {
            slots_max: 64,
            sessions_max: 16,
            probations_max: 8,
        };
        let mut lab = Self {
            engine: Engine::new(limits),
            log: Log::default(),
            now_ns: 1000 * SECOND,
        };
        let media = vec![MediaSpec { kind, slots: SLOTS }];
        let spec = SessionSpec {
            session: SESSION,
            media_timeout_ns: 0,
            media,
        };
        lab.engine.add_session(lab.now_ns, &spec).unwrap();
        lab
    }

    /// An audio session after offer and answer.
    pub fn call() -> Self {
        let mut lab = Self::bare(MediaKind::Audio);
        for side in Side::BOTH {
            lab.update(&leg(side));
        }
        lab
    }

    pub fn update(&mut self, spec: &LegSpec) {
        self.engine.update_leg(self.now_ns, spec).unwrap();
    }

    pub fn wait(&mut self, ns: u64) {
        self.now_ns += ns;
    }

    /// A datagram arrives; gives what was sent because of it.
    pub fn arrive(&mut self, slot: u32, source: SocketAddr, bytes: &[u8]) -> Vec<Sent> {
        self.arrive_cut(slot, source, bytes, false)
    }

    pub fn arrive_cut(
        &mut self,
        slot: u32,
        source: SocketAddr,
        bytes: &[u8],
        cut: bool,
    ) -> Vec<Sent> {
        let before = self.log.sent.len();
        let mut buffer = bytes.to_vec();
        buffer.resize(bytes.len() + TAIL_ROOM_BYTES, 0xee);
        let Self {
            engine,
            log,
            now_ns,
        } = self;
        engine.handle_packet(*now_ns, slot, source, &mut buffer, bytes.len(), cut, log);
        if let Some((slot, to, length)) = self.log.forwarded.take() {
            assert!(length <= buffer.len());
            self.log.sent.push(Sent {
                slot,
                to,
                bytes: buffer[..length].to_vec(),
            });
        }
        self.log.sent[before..].to_vec()
    }

    /// RTP of a side from where it says it is.
    pub fn rtp(&mut self, side: Side, packet: &Rtp) -> Vec<Sent> {
        self.rtp_from(side, party(side), packet)
    }

    pub fn rtp_from(&mut self, side: Side, source: SocketAddr, packet: &Rtp) -> Vec<Sent> {
        self.arrive(SLOTS[side as usize].rtp, source, &packet.bytes())
    }

    /// `count` packets 20 ms apart; gives those that were relayed.
    pub fn talk(
        &mut self,
        side: Side,
        source: SocketAddr,
        packet: &mut Rtp,
        count: usize,
    ) -> Vec<Sent> {
        let mut sent = Vec::new();
        for _ in 0..count {
            sent.extend(self.rtp_from(side, source, packet));
            packet.advance();
            self.wait(20 * MS);
        }
        sent
    }

    pub fn strangers(&self) -> u64 {
        self.engine.counters().strangers
    }

    pub fn receipts(&self) -> Vec<StreamReceipt> {
        let mut receipts = Vec::new();
        assert!(self.engine.tap_receipts(SESSION, &mut receipts));
        receipts.iter().for_each(assert_adds_up);
        receipts
    }

    /// Runs housekeeping to this moment.
    pub fn housekeeping_until(&mut self, end_ns: u64) {
        while let Some(deadline) = self.engine.next_deadline_ns().filter(|&at| at <= end_ns) {
            self.now_ns = self.now_ns.max(deadline);
            self.engine.handle_timeout(self.now_ns, &mut self.log);
        }
        self.now_ns = end_ns;
    }
}

pub fn assert_adds_up(receipt: &StreamReceipt) {
    let dropped: u64 = receipt.dropped.iter().sum();
    assert_eq!(
        receipt.expected,
        receipt.written + receipt.lost + dropped,
        "{receipt:?}"
    );
}

/// An RTP packet in the making.
#[derive(Debug, Clone)]
pub struct Rtp {
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub pt: u8,
    pub marker: bool,
    pub payload: Vec<u8>,
}

impl Rtp {
    pub fn new(ssrc: u32, sequence: u16) -> Self {
        let timestamp = u32::from(sequence) * 160;
        Self {
            ssrc,
            sequence,
            timestamp,
            pt: 0,
            marker: false,
            payload: vec![0x55; 160],
        }
    }

    pub fn advance(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(160);
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0x80, u8::from(self.marker) << 7 | self.pt];
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    pub fn read(bytes: &[u8]) -> Self {
        let packet = trunkline_rtp::RtpPacket::parse(bytes).unwrap();
        Self {
            ssrc: packet.ssrc(),
            sequence: packet.sequence(),
            timestamp: packet.timestamp(),
            pt: packet.payload_type(),
            marker: packet.marker(),
            payload: packet.payload().to_vec(),
        }
    }
}

/// SR of `ssrc` with one report block about `other`.
pub fn sender_report(ssrc: u32, timestamp: u32, other: u32, highest: u32) -> Vec<u8> {
    let mut bytes = vec![0x81, 200, 0, 12];
    for value in [ssrc, 1, 2, timestamp, 10, 1600, other, 0, highest, 3, 4, 5] {
        bytes.extend(u32::to_be_bytes(value));
    }
    bytes
}
