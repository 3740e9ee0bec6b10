//! What the engine wants done, and what it reports.

use std::net::SocketAddr;

use crate::spec::{Continuity, DropReason, Side};

/// The worker's side of the engine. Calls come in the order in which things happened.
pub trait Actions {
    /// Send the first `length` bytes of the buffer given to [`crate::Engine::handle_packet`], which
    /// is at most the received length + [`crate::TAIL_ROOM_BYTES`]. Called at most once a packet,
    /// and nothing touches the buffer afterwards.
    fn forward(&mut self, slot: u32, destination: SocketAddr, length: usize);

    /// Send a copy of these bytes (packets held back while their source was on probation).
    /// Comes before the `forward` of the packet in hand.
    fn forward_copy(&mut self, slot: u32, destination: SocketAddr, packet: &[u8]);

    /// Record a packet as it was received. `tap` is what [`crate::Engine::start_tap`] was given.
    fn capture(&mut self, tap: u32, frame: &FrameMeta, bytes: &[u8]) -> Captured;

    /// More came to this slot's port, from anybody, than a port may ask of a worker: leave it unread
    /// for [`crate::UNREAD_NS`]. Called for every packet above the cap.
    fn over_cap(&mut self, _slot: u32) {}

    /// Something to tell control.
    fn event(&mut self, event: Event);
}

/// What became of a packet given to [`Actions::capture`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Captured {
    /// It is in the recording.
    Written,
    /// It is not.
    Dropped(DropReason),
}

/// What a captured packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Audio RTP; the bytes are its payload without CSRC, extension and padding (may be empty).
    Rtp,
    /// RTCP; the bytes are the whole compound packet.
    Rtcp,
    /// Anything else; the bytes are the whole datagram.
    Opaque,
    /// RTP that we sent ourselves towards the other side; the bytes are the whole packet. Side is the one
    /// that it is shown as, the RTP fields are as sent.
    Injected,
}

/// What stands beside a captured packet's bytes. The RTP fields are 0 where there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameMeta {
    /// Kind.
    pub kind: FrameKind,
    /// Side it was received from.
    pub side: Side,
    /// m-line index.
    pub media: u8,
    /// SSRC as received.
    pub ssrc: u32,
    /// Sequence number as received.
    pub sequence: u16,
    /// Times the sequence number had wrapped.
    pub sequence_cycles: u16,
    /// Timestamp as received.
    pub timestamp: u32,
    /// Payload type as received.
    pub payload_type: u8,
    /// Marker bit.
    pub marker: bool,
    /// Its sequence number was heard before.
    pub duplicate: bool,
    /// It came after a later one.
    pub late: bool,
    /// An RFC 4733 telephone-event: what it says is a key that somebody pressed.
    pub telephone_event: bool,
    /// Arrival, ns.
    pub at_ns: u64,
}

/// Reports for control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A side's media now comes from this address (told also for the advertised one).
    EndpointLearned {
        /// Session.
        session: u64,
        /// m-line index.
        media: u8,
        /// Side.
        side: Side,
        /// RTCP rather than RTP.
        rtcp: bool,
        /// The address.
        address: SocketAddr,
    },
    /// A side's source changed; the far end sees one continuous stream.
    SourceChanged {
        /// Session.
        session: u64,
        /// m-line index.
        media: u8,
        /// Side.
        side: Side,
        /// What is added from now on.
        continuity: Continuity,
    },
    /// A side has dialled a digit by telephone-event packets. Told once a digit.
    Digit {
        /// Session.
        session: u64,
        /// Side.
        side: Side,
        /// Event code (RFC 4733): 0-9, 10 = `*`, 11 = `#`, 12-15 = A-D, 16 = flash.
        event: u8,
        /// How long it lasted.
        duration_ms: u32,
    },
    /// A side has heard what is played to it, once through or until it was ended.
    Played {
        /// Session.
        session: u64,
        /// m-line index.
        media: u8,
        /// Side that heard it.
        to: Side,
        /// Number that it was given.
        play: u64,
        /// First and last packet that carried it, ns.
        from_ns: u64,
        /// See `from_ns`.
        to_ns: u64,
        /// Packets that carried it.
        packets: u32,
        /// How much of it, µs.
        played_us: u64,
        /// All of it.
        whole: bool,
    },
    /// A side that should send has been silent for the media timeout. Told once a silence.
    MediaTimeout {
        /// Session.
        session: u64,
        /// Side.
        side: Side,
    },
}
