//! What the conductor knows of a session.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use trunkline_link::message::{
    Continuity, Event, LegUpdate, MediaKind, MediaOpen, RecordingPhase, Side, SnapshotSession,
};

/// A port pair in use by one side of one m-line.
#[derive(Debug)]
pub struct PortUse {
    /// The even port.
    pub port: u16,
    /// Slots of RTP and RTCP.
    pub slots: [u32; 2],
    /// Our own descriptors of the two sockets, for reading their drop counters; none where ports
    /// have no sockets: the worker counts then.
    pub files: Option<[OwnedFd; 2]>,
    /// Drop counters as last read.
    pub drops: [u32; 2],
}

/// One m-line.
#[derive(Debug)]
pub struct MediaLine {
    /// What it carries.
    pub kind: MediaKind,
    /// Ports by side, caller first.
    pub ports: [PortUse; 2],
}

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The worker has not confirmed it yet.
    Installing,
    /// Relaying.
    Live,
    /// The worker is taking it down.
    Closing,
}

/// Something learned that a control after this one, or a dataplane after this one, needs.
#[derive(Debug, Default, Clone, Copy)]
struct Learned {
    rtp: Option<SocketAddr>,
    rtcp: Option<SocketAddr>,
    continuity: Option<Continuity>,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Id.
    pub session: u64,
    /// Worker that has it.
    pub worker: usize,
    /// Interface of each side.
    pub interface: [u8; 2],
    /// m-lines in order.
    pub media: Vec<MediaLine>,
    /// m-lines of an extension that the worker has not confirmed.
    pub extension: Vec<MediaLine>,
    /// Phase.
    pub phase: Phase,
    /// Control's opaque record.
    pub record: Vec<u8>,
    /// Its recording that is not finished, 0 = none.
    pub recording: u64,
    /// Since when no control claims it, CLOCK_MONOTONIC ns.
    pub unclaimed_ns: Option<u64>,
    /// It is being ended because nobody claims it.
    pub orphaned: bool,
    learned: Vec<[Learned; 2]>,
}

impl Session {
    /// A session about to be installed.
    #[must_use]
    pub fn new(session: u64, worker: usize, interface: [u8; 2]) -> Self {
        Self {
            session,
            worker,
            interface,
            media: Vec::new(),
            extension: Vec::new(),
            phase: Phase::Installing,
            record: Vec::new(),
            recording: 0,
            unclaimed_ns: None,
            orphaned: false,
            learned: Vec::new(),
        }
    }

    /// The attached control knows of it.
    pub fn claim(&mut self) {
        self.unclaimed_ns = None;
    }

    /// The RTP ports of all confirmed m-lines.
    #[must_use]
    pub fn ports(&self) -> Vec<[u16; 2]> {
        self.media
            .iter()
            .map(|line| [line.ports[0].port, line.ports[1].port])
            .collect()
    }

    /// Remembers what a worker reported.
    pub fn learn(&mut self, event: &Event) {
        let (media, side) = match event {
            Event::EndpointLearned { media, side, .. }
            | Event::SourceChanged { media, side, .. } => (usize::from(*media), *side as usize),
            _ => return,
        };
        if media >= trunkline_link::limits::MEDIA_MAX {
            return;
        }
        if self.learned.len() <= media {
            self.learned.resize(media + 1, Default::default());
        }
        let learned = &mut self.learned[media][side];
        match event {
            Event::EndpointLearned {
                rtcp: true,
                address,
                ..
            } => learned.rtcp = Some(*address),
            Event::EndpointLearned { address, .. } => learned.rtp = Some(*address),
            Event::SourceChanged { continuity, .. } => learned.continuity = Some(*continuity),
            _ => {}
        }
    }

    /// Remembers what an earlier dataplane had learned.
    pub fn learn_restored(&mut self, update: &LegUpdate) {
        let (session, media, side) = (update.session, update.media, update.side);
        let Some(restore) = update.restore else {
            return;
        };
        for (rtcp, address) in [(false, restore.learned_rtp), (true, restore.learned_rtcp)] {
            if let Some(address) = address {
                self.learn(&Event::EndpointLearned {
                    session,
                    media,
                    side,
                    rtcp,
                    address,
                });
            }
        }
        if let Some(continuity) = restore.continuity {
            self.learn(&Event::SourceChanged {
                session,
                media,
                side,
                continuity,
            });
        }
    }

    /// What a control that attaches is told of it: the session, then everything learned.
    #[must_use]
    pub fn snapshot(&self, phase: RecordingPhase, origin_mono_ns: u64) -> Vec<Event> {
        let media = self
            .media
            .iter()
            .map(|line| MediaOpen {
                kind: line.kind,
                ports: [line.ports[0].port, line.ports[1].port],
            })
            .collect();
        let mut events = vec![Event::SnapshotSession(SnapshotSession {
            session: self.session,
            media,
            interface: self.interface,
            recording: self.recording,
            phase,
            origin_mono_ns,
            record: self.record.clone(),
        })];
        for (media, sides) in self.learned.iter().enumerate() {
            for side in Side::BOTH {
                self.snapshot_learned(media as u8, side, sides[side as usize], &mut events);
            }
        }
        events
    }

    fn snapshot_learned(&self, media: u8, side: Side, learned: Learned, events: &mut Vec<Event>) {
        let session = self.session;
        for (rtcp, address) in [(false, learned.rtp), (true, learned.rtcp)] {
            if let Some(address) = address {
                events.push(Event::EndpointLearned {
                    session,
                    media,
                    side,
                    rtcp,
                    address,
                });
            }
        }
        if let Some(continuity) = learned.continuity {
            events.push(Event::SourceChanged {
                session,
                media,
                side,
                continuity,
            });
        }
    }
}
