//! The worker's counter page.

use trunkline_device::Device;
use trunkline_engine::DROP_REASONS;
use trunkline_link::counters::WorkerCounter as Counter;
use trunkline_link::message::DropReason;

use super::Worker;
use super::message::Idle;

/// How often the page of a busy worker is written.
const PUBLISH_NS: u64 = 1_000_000;
/// How often a busy worker asks the kernel for drops on the sockets that its ports share.
const SHARED_DROPS_NS: u64 = 250_000_000;
/// How often it does when nothing comes.
const SHARED_DROPS_IDLE_NS: u64 = 1_000_000_000;

/// What is counted by the worker itself.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) cycles: u64,
    pub(super) parks: u64,
    pub(super) commands: u64,
    /// Slots with a socket.
    pub(super) slots: u64,
    pub(super) socket_drops: u64,
    /// When the kernel is asked next for drops on shared sockets.
    shared_drops_due_ns: u64,
    /// What the device had received at the last time.
    received_before: u64,
    /// Audio packets that recordings lack, by reason.
    pub(super) capture_dropped: [u64; DROP_REASONS],
    /// When the page was written last, and whether anything happened since.
    published_ns: u64,
    changed: bool,
}

impl Totals {
    pub(super) fn count_cycle(&mut self, commands: usize) {
        self.cycles += 1;
        self.commands += commands as u64;
    }

    /// Whether the page is to be written: whenever the worker comes to rest, else once a
    /// millisecond. A spinning worker rests only after something has happened.
    pub(super) fn is_due(&mut self, now_ns: u64, busy: bool, idle: Idle) -> bool {
        self.changed |= busy;
        let rests = !busy && (self.changed || idle == Idle::Park);
        rests || now_ns.saturating_sub(self.published_ns) >= PUBLISH_NS
    }
}

impl<D: Device> Worker<D> {
    /// Asks now and then for [`Self::take_shared_drops`].
    pub(super) fn look_for_shared_drops(&mut self, now_ns: u64) {
        if now_ns >= self.totals.shared_drops_due_ns {
            let received = self.device.counters().received;
            let before = std::mem::replace(&mut self.totals.received_before, received);
            let wait_ns = if received == before {
                SHARED_DROPS_IDLE_NS
            } else {
                SHARED_DROPS_NS
            };
            self.totals.shared_drops_due_ns = now_ns + wait_ns;
            self.take_shared_drops();
        }
    }

    /// When the kernel's own counts are to be looked at, where there are any and anybody to count for:
    /// a flood of which nothing comes through does not wake a worker.
    pub(super) fn kernel_counts_due_ns(&self) -> Option<u64> {
        let counts = self.engine.sessions() > 0 && self.device.counts_unseen();
        counts.then_some(self.totals.shared_drops_due_ns)
    }

    /// Takes what the kernel dropped at ports left unread.
    pub(super) fn take_unread_drops(&mut self) {
        let Self {
            device,
            engine,
            unread,
            totals,
            ..
        } = self;
        unread.take_drops(device, |slot, dropped| {
            totals.socket_drops += dropped;
            engine.attribute_drops(slot, trunkline_engine::DropReason::Socket, dropped);
        });
    }

    /// The same, and what was dropped on sockets that all ports share. Whose that was nobody knows: it
    /// counts once, and what any stream lacks may be of it rather than the network's.
    pub(super) fn take_shared_drops(&mut self) {
        self.take_unread_drops();
        let rise = self.device.take_shared_drops();
        if rise > 0 {
            self.totals.socket_drops += rise;
            for slot in 0..self.config.slots_max {
                self.engine
                    .attribute_drops(slot, trunkline_engine::DropReason::Socket, rise);
            }
        }
    }

    /// Stores the totals where control reads them.
    pub(super) fn publish(&mut self, now_ns: u64) {
        self.totals.published_ns = now_ns;
        self.totals.changed = false;
        let counters = &self.counters;
        let engine = self.engine.counters();
        let device = self.device.counters();
        let capture = &self.capture.totals;
        for (counter, value) in [
            (Counter::RtpPacketsIn, engine.rtp_in),
            (Counter::RtpBytesIn, engine.rtp_bytes_in),
            (Counter::RtpPacketsOut, engine.rtp_out),
            (Counter::RtpBytesOut, engine.rtp_bytes_out),
            (Counter::RtcpPacketsIn, engine.rtcp_in),
            (Counter::RtcpPacketsOut, engine.rtcp_out),
            (Counter::OpaquePacketsIn, engine.opaque_in),
            (Counter::OpaquePacketsOut, engine.opaque_out),
            (Counter::Strangers, engine.strangers + device.strangers),
            (Counter::Truncated, device.truncated),
            (Counter::Malformed, engine.malformed),
            (Counter::RateCap, engine.rate_capped),
            (Counter::PortsLeftUnread, self.unread.total),
            (Counter::UnknownPayload, engine.unknown_payload),
            (Counter::NoFlow, engine.no_flow + device.late),
            (Counter::NotSent, engine.not_sent + engine.transform_failed),
            (Counter::MuteWithheld, engine.mute_withheld),
            (Counter::Muted, engine.muted),
            (Counter::Played, engine.played),
            (Counter::Forked, engine.forked),
            (Counter::ForkWithheld, engine.fork_withheld),
            (Counter::ForkIn, engine.fork_in),
            (Counter::SocketDrops, self.totals.socket_drops),
            (Counter::BufferRing, device.buffers_exhausted),
            (Counter::CqOverflow, device.cq_overflow),
            (Counter::SendFailed, device.send_failed),
            (Counter::Latched, engine.latched),
            (Counter::SourceChanges, engine.source_changes),
            (Counter::SsrcEvicted, engine.ssrc_evicted),
            (Counter::MediaTimeouts, engine.media_timeouts),
            (Counter::CaptureFrames, capture.frames),
            (Counter::CaptureBytes, capture.bytes),
            (Counter::Sessions, self.engine.sessions() as u64),
            (Counter::Recordings, self.capture.recordings() as u64),
            (Counter::Slots, self.totals.slots),
            (Counter::ExtentsReady, self.capture.ready() as u64),
            (Counter::ExtentsFull, capture.extents),
            (Counter::Cycles, self.totals.cycles),
            (Counter::Parks, self.totals.parks),
            (Counter::Commands, self.totals.commands),
            (Counter::EventsDropped, self.reports.dropped),
            (Counter::HeartbeatNs, now_ns),
        ] {
            counters.set(counter, value);
        }
        for (reason, dropped) in DropReason::ALL.into_iter().zip(self.totals.capture_dropped) {
            let no_extent = matches!(reason, DropReason::NoExtent);
            let beside = if no_extent {
                capture.beside_dropped + capture.notes_dropped
            } else {
                0
            };
            counters.set(Counter::capture_dropped(reason), dropped + beside);
        }
    }
}
