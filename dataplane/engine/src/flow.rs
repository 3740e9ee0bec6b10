//! The tables behind the slots: ports, flows (one m-line of a session) and their legs.

use std::mem::offset_of;
use std::net::SocketAddr;

use crate::dial::Dialler;
use crate::digits::DigitWatch;
use crate::fork::Fork;
use crate::latch::Latch;
use crate::play::Player;
use crate::rate::Rates;
use crate::spec::{MediaKind, MediaSpec, PAYLOADS_MAX, PayloadSpec, PortSlots, SessionSpec, Side};
use crate::stream::StreamTable;
use crate::tap::Tap;
use crate::transform::Transform;

/// Bytes that the processor fetches at once.
pub(crate) const CACHE_LINE: usize = 64;

/// Not an index of a flow.
pub(crate) const NO_FLOW: u32 = u32::MAX;

/// Not the number of a tap.
pub(crate) const NO_TAP: u32 = u32::MAX;

/// What a slot's port is for. Two to a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(crate) struct Port {
    /// Its flow, or [`NO_FLOW`].
    pub(crate) flow: u32,
    pub(crate) side: Side,
    /// The RTCP port rather than the RTP port.
    pub(crate) rtcp: bool,
    /// What came lately.
    pub(crate) rates: Rates,
}

const _: () = assert!(size_of::<Port>() == 32);

impl Port {
    pub(crate) const FREE: Self = Self {
        flow: NO_FLOW,
        side: Side::Caller,
        rtcp: false,
        rates: Rates::NEW,
    };
}

/// One side of a flow: who is there and what it sends.
///
/// Fields are in the order of memory, because a packet's cost is the cache lines it touches: those it
/// needs of the side it comes from fill two ([`Latch::source`] to its end, `altered` to the streams'),
/// those of the side it goes to one ([`Latch::destination`] to `may_send`).
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Leg {
    /// Where the last accepted RTP packet came from: another source continues its stream.
    pub(crate) last_source: Option<SocketAddr>,
    pub(crate) latch: Latch,
    pub(crate) slots: PortSlots,
    pub(crate) may_send: bool,
    pub(crate) transform: Transform,
    pub(crate) expect_media: bool,
    /// Since when it is expected to send.
    pub(crate) expect_since_ns: u64,
    /// What we dial towards it.
    pub(crate) dialler: Option<Box<Dialler>>,
    /// What it sends is not relayed as it is: it is muted, or the other side is played to.
    pub(crate) altered: bool,
    pub(crate) payloads: Vec<PayloadSpec>,
    pub(crate) streams: StreamTable,
    pub(crate) digits: DigitWatch,
    pub(crate) mute: bool,
    /// SSRC and timestamp, as the other side sees them, that packets of ours reach until; what it sends
    /// next is shown behind that.
    pub(crate) played_until: Option<(u32, u32)>,
    /// What we play to it.
    pub(crate) player: Option<Box<Player>>,
}

const _: () = {
    let latch = offset_of!(Leg, latch);
    let judged = latch + offset_of!(Latch, source);
    assert!(judged.is_multiple_of(CACHE_LINE));
    assert!(latch + Latch::JUDGED_END <= judged + CACHE_LINE);
    let far = latch + offset_of!(Latch, destination);
    assert!(far.is_multiple_of(CACHE_LINE));
    assert!(offset_of!(Leg, may_send) < far + CACHE_LINE);
    let own = offset_of!(Leg, altered);
    assert!(own.is_multiple_of(CACHE_LINE));
    assert!(offset_of!(Leg, streams) + StreamTable::HOT_BYTES <= own + CACHE_LINE);
};

impl Leg {
    fn new(slots: PortSlots) -> Self {
        Self {
            last_source: None,
            latch: Latch::new(),
            slots,
            may_send: false,
            transform: Transform::default(),
            expect_media: false,
            expect_since_ns: 0,
            dialler: None,
            altered: false,
            payloads: Vec::with_capacity(PAYLOADS_MAX),
            streams: StreamTable::new(),
            digits: DigitWatch::default(),
            mute: false,
            played_until: None,
            player: None,
        }
    }

    /// When anything accepted came from this side, 0 = never.
    pub(crate) fn heard_ns(&self) -> u64 {
        self.latch.heard_ns.max(self.latch.rtcp_heard_ns)
    }

    /// Whether a payload type was negotiated.
    pub(crate) fn negotiated(&self, payload_type: u8) -> bool {
        self.payloads
            .iter()
            .any(|payload| payload.pt == payload_type)
    }
}

/// One m-line of a session. All but the legs is in one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Flow {
    pub(crate) session: u64,
    /// Index of its session.
    pub(crate) owner: u32,
    /// Number of its session's tap while that is running, else [`NO_TAP`].
    pub(crate) tap: u32,
    pub(crate) media: u8,
    pub(crate) kind: MediaKind,
    /// A recorder's session: what comes in goes nowhere.
    pub(crate) is_fork_target: bool,
    pub(crate) forks: Vec<Fork>,
    pub(crate) legs: [Leg; 2],
}

const _: () = assert!(offset_of!(Flow, legs) == CACHE_LINE);

impl Flow {
    pub(crate) fn new(session: u64, owner: u32, media: u8, spec: &MediaSpec) -> Self {
        Self {
            session,
            owner,
            tap: NO_TAP,
            media,
            kind: spec.kind,
            is_fork_target: false,
            forks: Vec::new(),
            legs: spec.slots.map(Leg::new),
        }
    }

    /// The leg of a side.
    #[inline]
    pub(crate) fn leg(&mut self, side: Side) -> &mut Leg {
        &mut self.legs[side as usize]
    }

    /// The legs, `side`'s own first.
    #[inline]
    pub(crate) fn pair(&mut self, side: Side) -> (&mut Leg, &mut Leg) {
        let [caller, callee] = &mut self.legs;
        match side {
            Side::Caller => (caller, callee),
            Side::Callee => (callee, caller),
        }
    }

    /// Notes which sides' packets are not relayed as they are.
    pub(crate) fn note_altered(&mut self) {
        for side in Side::BOTH {
            let (own, far) = self.pair(side);
            let heard = far.player.as_ref().is_some_and(|one| one.is_heard());
            own.altered = own.mute || heard || own.played_until.is_some();
        }
    }

    /// Whether `spec` describes this flow.
    pub(crate) fn is(&self, spec: &MediaSpec) -> bool {
        self.kind == spec.kind && [self.legs[0].slots, self.legs[1].slots] == spec.slots
    }
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) media_timeout_ns: u64,
    pub(crate) added_ns: u64,
    /// Indexes of its flows, in m-line order.
    pub(crate) flows: Vec<u32>,
    pub(crate) tap: Option<Box<Tap>>,
    /// Number of the tap in [`crate::Actions::capture`].
    pub(crate) tap_id: u32,
    /// A side's silence was reported.
    pub(crate) timed_out: [bool; 2],
    /// Sessions its forks lead to.
    pub(crate) forks: Vec<u64>,
    /// The session whose fork leads here.
    pub(crate) fork_of: Option<u64>,
    /// When its forks send their next sender reports, and wall clock minus ours.
    pub(crate) report_ns: u64,
    pub(crate) unix_offset_ns: u64,
}

impl Session {
    pub(crate) fn new(now_ns: u64, spec: &SessionSpec) -> Self {
        Self {
            id: spec.session,
            media_timeout_ns: spec.media_timeout_ns,
            added_ns: now_ns,
            flows: Vec::new(),
            tap: None,
            tap_id: 0,
            timed_out: [false; 2],
            forks: Vec::new(),
            fork_of: None,
            report_ns: 0,
            unix_offset_ns: 0,
        }
    }

    /// The number of its tap while that is running, else [`NO_TAP`].
    pub(crate) fn running_tap(&self) -> u32 {
        let running = self.tap.as_ref().is_some_and(|tap| tap.is_running());
        if running { self.tap_id } else { NO_TAP }
    }
}
