//! Frames into extents, by the calls that a worker makes.

use trunkline_link::limits::EXTENT_BYTES;
use trunkline_link::pool::{Extent, Fenced, Filling, Streamer};
use trunkline_sn3::extent::{Appender, FrameRoom};
use trunkline_sn3::{FrameHead, FrameKind};

/// Bytes of a G.711 payload of 20 ms.
pub const PAYLOAD_BYTES: usize = 160;

/// What frames are made with.
#[derive(Default)]
pub struct Maker {
    room: Box<FrameRoom>,
    streamer: Streamer,
}

impl Maker {
    /// Before what was appended is published.
    pub fn fence(&mut self) -> Fenced<'_> {
        self.streamer.fence()
    }
}

/// A recording with its open extent.
pub struct Open {
    pub recording: u64,
    pub ordinal: u32,
    sequence: u32,
    extent: Filling,
    appender: Appender,
}

impl Open {
    pub fn start(extent: Extent, recording: u64, ordinal: u32) -> Self {
        let (extent, appender) = open(extent, recording, ordinal);
        Self {
            recording,
            ordinal,
            sequence: 0,
            extent,
            appender,
        }
    }

    /// Appends the next packet; false when the extent is full.
    #[inline]
    pub fn append(&mut self, maker: &mut Maker, payload: &[u8]) -> bool {
        let head = FrameHead {
            side: (self.sequence & 1) as u8,
            ssrc: 7 + (self.sequence & 1),
            pt: 8,
            seq: (self.sequence >> 1) as u16,
            rtp_ts: (self.sequence >> 1) * 160,
            ..FrameHead::note(FrameKind::Rtp, u64::from(self.sequence) * 10_000_000)
        };
        let Self {
            extent, appender, ..
        } = self;
        let Maker { room, streamer } = maker;
        let put = |at: usize, frame: &[u8]| extent.stream(streamer, at, frame);
        let done = appender
            .append_by(room, EXTENT_BYTES, &head, payload, put)
            .is_ok();
        self.sequence += u32::from(done);
        done
    }

    #[inline]
    pub fn publish(&mut self, fenced: &Fenced<'_>) {
        self.extent.publish(fenced, self.appender.used() as usize);
    }

    /// Goes on in another extent; gives the full one.
    pub fn go_on(&mut self, maker: &mut Maker, next: Extent) -> Extent {
        self.publish(&maker.fence());
        self.ordinal += 1;
        let (extent, appender) = open(next, self.recording, self.ordinal);
        self.appender = appender;
        std::mem::replace(&mut self.extent, extent).close()
    }

    /// Ends it; gives the extent.
    pub fn end(mut self, maker: &mut Maker) -> Extent {
        self.publish(&maker.fence());
        self.extent.close()
    }
}

fn open(mut extent: Extent, recording: u64, ordinal: u32) -> (Filling, Appender) {
    extent.open(0, recording, ordinal, 0);
    let now_ns = trunkline_link::monotonic_ns().unwrap_or(0);
    let appender = Appender::open(extent.bytes_mut(), recording, ordinal, now_ns);
    (extent.fill(), appender)
}

/// Packets as they lie in a device's buffers: 64 of a batch, 2 KiB apart.
pub struct Packets(Vec<u8>);

impl Packets {
    pub const BATCH: usize = 64;
    const STEP: usize = 2048;

    pub fn new() -> Self {
        let bytes = (0..Self::BATCH * Self::STEP).map(|at| (at * 7) as u8);
        Self(bytes.collect())
    }

    #[inline]
    pub fn payload(&self, index: usize) -> &[u8] {
        let at = index % Self::BATCH * Self::STEP;
        &self.0[at..at + PAYLOAD_BYTES]
    }
}

/// A filled extent in memory of one's own, and the bytes used.
pub fn image(room: &mut Vec<u8>, recording: u64, ordinal: u32, packets: &Packets) -> u32 {
    room.resize(EXTENT_BYTES, 0);
    let mut appender = Appender::open(room, recording, ordinal, 1_000);
    for sequence in 0u16.. {
        let head = FrameHead {
            seq: sequence,
            ssrc: 7,
            ..FrameHead::note(FrameKind::Rtp, u64::from(sequence) * 10_000_000)
        };
        let payload = packets.payload(usize::from(sequence));
        if appender.append(room, &head, payload).is_err() {
            break;
        }
    }
    appender.used()
}
