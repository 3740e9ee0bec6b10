//! The capture side: frames into extents, extents to the recorder.

use std::collections::VecDeque;

use trunkline_engine::{Captured, DropReason, FrameKind as Kind, FrameMeta};
use trunkline_link::limits::EXTENT_BYTES;
use trunkline_link::pool::{Fenced, Filling, Streamer};
use trunkline_sn3::extent::{AppendError, Appender, FrameRoom};
use trunkline_sn3::{FrameHead, FrameKind, flags};

use crate::recorder::message::{CaptureQueues, Closed};

/// Notes (facts, marks) of a recording that wait for an extent at most.
const NOTES_MAX: usize = 256;
/// Extents looked at for their age in one duty cycle.
const AGED_PER_CYCLE: usize = 64;
/// How often recordings that wait for an extent to finish are looked at.
const RETRY_NS: u64 = 10_000_000;
/// How long a recording waits for an extent to finish.
const FINISH_PATIENCE_NS: u64 = 5_000_000_000;

/// Bytes of one event in a telephone-event payload (RFC 4733 section 2.3); the first says which.
const EVENT_BYTES: usize = 4;
/// Bytes of an RTP header of ours.
const RTP_HEADER_BYTES: usize = 12;
/// Stands in place of a masked event: no event has this number.
const MASKED_EVENT: u8 = 255;
/// What is kept of a masked payload at most: 16 events.
const MASKED_BYTES_MAX: usize = 16 * EVENT_BYTES;

/// An extent being filled.
#[derive(Debug)]
struct OpenExtent {
    extent: Filling,
    appender: Appender,
}

/// What appending a frame needs beside its extent.
#[derive(Debug)]
struct Making {
    /// Where frames are made.
    room: Box<FrameRoom>,
    streamer: Streamer,
    /// Tracks with frames that others cannot read yet.
    unpublished: Vec<u32>,
}

/// A frame that is not a packet.
#[derive(Debug)]
struct Note {
    kind: FrameKind,
    wall_ns: u64,
    payload: Vec<u8>,
}

/// One recording's writing state. Its index is the engine's tap number. What a packet needs lies in
/// the first cache line.
#[derive(Debug)]
#[repr(C, align(64))]
struct Track {
    open: Option<OpenExtent>,
    origin_ns: u64,
    /// Frames that come before the next packet, oldest first.
    notes: VecDeque<Note>,
    session: u64,
    recording: u64,
    /// No packet comes any more; since when it waits to hand over its notes.
    finishing_ns: Option<u64>,
    /// Ordinal of the open extent, or of the next one.
    ordinal: u32,
}

const _: () = assert!(std::mem::offset_of!(Track, session) <= 64);
const _: () = assert!(size_of::<Option<Track>>() == 128);

/// Totals of the capture side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CaptureTotals {
    /// Frames appended.
    pub(super) frames: u64,
    /// Their bytes in extents.
    pub(super) bytes: u64,
    /// RTCP and opaque datagrams that found no extent (audio is in the receipts).
    pub(super) beside_dropped: u64,
    /// Extents handed to the recorder.
    pub(super) extents: u64,
    /// Notes given up.
    pub(super) notes_dropped: u64,
}

/// All recordings of a worker.
#[derive(Debug)]
pub(super) struct Capture {
    worker: u16,
    queues: CaptureQueues,
    extent_age_ns: u64,
    tracks: Vec<Option<Track>>,
    free: Vec<u32>,
    making: Making,
    /// Recordings of a batch that are fetched ahead; empty between batches.
    pub(super) fetching: Vec<u32>,
    /// Open extents by age: when opened, track, ordinal. Entries of closed ones are skipped.
    ages: VecDeque<(u64, u32, u32)>,
    /// Tracks that wait for an extent to finish.
    finishing: Vec<u32>,
    retry_ns: u64,
    /// What the recorder's queue had no room for.
    unsent: VecDeque<Closed>,
    sent: bool,
    /// Telephone-events are written without the keys they say.
    pub(super) mask_events: bool,
    /// No extent was to be had at the last try.
    pub(super) short: bool,
    pub(super) totals: CaptureTotals,
    /// The duty cycle's clock.
    pub(super) now_ns: u64,
}

impl Capture {
    pub(super) fn new(worker: u16, queues: CaptureQueues, extent_age_ns: u64) -> Self {
        Self {
            worker,
            queues,
            extent_age_ns,
            tracks: Vec::with_capacity(256),
            free: Vec::with_capacity(256),
            making: Making {
                room: Box::default(),
                streamer: Streamer::default(),
                unpublished: Vec::with_capacity(4096),
            },
            fetching: Vec::with_capacity(4096),
            ages: VecDeque::with_capacity(4096),
            finishing: Vec::new(),
            retry_ns: 0,
            unsent: VecDeque::new(),
            sent: false,
            mask_events: false,
            short: false,
            totals: CaptureTotals::default(),
            now_ns: 0,
        }
    }

    /// A new recording; gives its tap number.
    pub(super) fn begin(
        &mut self,
        session: u64,
        recording: u64,
        origin_ns: u64,
        first_ordinal: u32,
    ) -> u32 {
        let track = Some(Track {
            session,
            recording,
            origin_ns,
            ordinal: first_ordinal,
            open: None,
            notes: VecDeque::with_capacity(4),
            finishing_ns: None,
        });
        match self.free.pop() {
            Some(tap) => {
                self.tracks[tap as usize] = track;
                tap
            }
            None => {
                self.tracks.push(track);
                (self.tracks.len() - 1) as u32
            }
        }
    }

    /// Recordings not handed over yet.
    pub(super) fn recordings(&self) -> usize {
        self.tracks.len() - self.free.len()
    }

    /// Extents ready to be taken.
    pub(super) fn ready(&self) -> usize {
        self.queues.ready.len()
    }

    /// Ordinal that a recording's next extent will have.
    pub(super) fn next_ordinal(&self, tap: u32) -> u32 {
        let track = self.tracks.get(tap as usize).and_then(Option::as_ref);
        track.map_or(0, |track| track.ordinal + u32::from(track.open.is_some()))
    }

    /// Fetches what [`Self::packet`] needs of a recording.
    #[inline]
    pub(super) fn fetch_track(&self, tap: u32) {
        if let Some(track) = self.tracks.get(tap as usize) {
            trunkline_link::prefetch(std::ptr::from_ref(track).cast());
        }
    }

    /// Fetches what [`Self::publish`] needs, once the recording itself was fetched.
    #[inline]
    pub(super) fn fetch_extent(&self, tap: u32) {
        if let Some(Some(Track {
            open: Some(open), ..
        })) = self.tracks.get(tap as usize)
        {
            open.extent.fetch();
        }
    }

    /// Appends a packet.
    #[inline]
    pub(super) fn packet(&mut self, tap: u32, meta: &FrameMeta, bytes: &[u8]) -> Captured {
        let Some(Some(track)) = self.tracks.get_mut(tap as usize) else {
            return Captured::Dropped(DropReason::NoExtent);
        };
        if meta.telephone_event && self.mask_events {
            return self.packet_masked(tap, meta, bytes);
        }
        let head = frame_head(meta, track.origin_ns);
        if let Some(open) = &mut track.open
            && track.notes.is_empty()
            && let Some(bytes) = open.append(tap, &mut self.making, &head, bytes)
        {
            self.totals.frames += 1;
            self.totals.bytes += bytes;
            return Captured::Written;
        }
        self.packet_elsewhere(tap, &head, bytes)
    }

    /// Appends a telephone-event without the key that it says.
    #[cold]
    fn packet_masked(&mut self, tap: u32, meta: &FrameMeta, bytes: &[u8]) -> Captured {
        let Some(Some(track)) = self.tracks.get_mut(tap as usize) else {
            return Captured::Dropped(DropReason::NoExtent);
        };
        let mut head = frame_head(meta, track.origin_ns);
        head.flags |= flags::MASKED;
        let mut masked = [0u8; MASKED_BYTES_MAX];
        let length = bytes.len().min(MASKED_BYTES_MAX);
        masked[..length].copy_from_slice(&bytes[..length]);
        // A packet of ours is kept whole: its events come after the header.
        let header = match meta.kind {
            Kind::Injected => RTP_HEADER_BYTES,
            _ => 0,
        };
        for event in masked.iter_mut().skip(header).step_by(EVENT_BYTES) {
            *event = MASKED_EVENT;
        }
        self.packet_elsewhere(tap, &head, &masked[..length])
    }

    /// Appends a packet behind the notes that wait, to the next extent if need be.
    #[cold]
    fn packet_elsewhere(&mut self, tap: u32, head: &FrameHead, bytes: &[u8]) -> Captured {
        if self.write_notes(tap) && self.append(tap, head, bytes) {
            return Captured::Written;
        }
        if head.kind != FrameKind::Rtp {
            self.totals.beside_dropped += 1;
        }
        Captured::Dropped(DropReason::NoExtent)
    }

    /// Adds a frame that is not a packet; it is written as soon as there is an extent.
    pub(super) fn note(&mut self, tap: u32, kind: FrameKind, at_ns: u64, payload: Vec<u8>) {
        let Some(Some(track)) = self.tracks.get_mut(tap as usize) else {
            return;
        };
        if track.notes.len() >= NOTES_MAX {
            self.totals.notes_dropped += 1;
            return;
        }
        let wall_ns = at_ns.saturating_sub(track.origin_ns);
        track.notes.push_back(Note {
            kind,
            wall_ns,
            payload,
        });
        self.write_notes(tap);
    }

    /// Writes the notes that wait; false when some still do.
    fn write_notes(&mut self, tap: u32) -> bool {
        loop {
            let Some(Some(track)) = self.tracks.get_mut(tap as usize) else {
                return false;
            };
            let Some(note) = track.notes.pop_front() else {
                return true;
            };
            let head = FrameHead::note(note.kind, note.wall_ns);
            if !self.append(tap, &head, &note.payload) {
                if let Some(Some(track)) = self.tracks.get_mut(tap as usize) {
                    track.notes.push_front(note);
                }
                return false;
            }
        }
    }

    /// Appends a frame to the open extent or a new one; false when there is none.
    fn append(&mut self, tap: u32, head: &FrameHead, bytes: &[u8]) -> bool {
        for _ in 0..2 {
            let Some(Some(track)) = self.tracks.get_mut(tap as usize) else {
                return false;
            };
            if let Some(open) = &mut track.open {
                if let Some(bytes) = open.append(tap, &mut self.making, head, bytes) {
                    self.totals.frames += 1;
                    self.totals.bytes += bytes;
                    return true;
                }
                self.close(tap);
            }
            if !self.open(tap) {
                return false;
            }
        }
        let Some(Some(track)) = self.tracks.get_mut(tap as usize) else {
            return false;
        };
        // A fresh extent takes everything that is allowed in; what is not is given up.
        let appended = track
            .open
            .as_mut()
            .and_then(|open| open.append(tap, &mut self.making, head, bytes));
        self.totals.frames += u64::from(appended.is_some());
        self.totals.bytes += appended.unwrap_or(0);
        self.totals.notes_dropped += u64::from(appended.is_none());
        true
    }

    /// Takes a ready extent for a recording.
    fn open(&mut self, tap: u32) -> bool {
        let Some(Some(track)) = self.tracks.get_mut(tap as usize) else {
            return false;
        };
        let Some(mut extent) = self.queues.ready.pop() else {
            self.short = true;
            return false;
        };
        self.short = false;
        extent.open(self.worker, track.recording, track.ordinal, track.origin_ns);
        let appender = Appender::open(
            extent.bytes_mut(),
            track.recording,
            track.ordinal,
            self.now_ns,
        );
        track.open = Some(OpenExtent {
            extent: extent.fill(),
            appender,
        });
        self.ages.push_back((self.now_ns, tap, track.ordinal));
        true
    }

    /// Hands the open extent over.
    fn close(&mut self, tap: u32) {
        let Some(Some(track)) = self.tracks.get_mut(tap as usize) else {
            return;
        };
        let Some(mut open) = track.open.take() else {
            return;
        };
        track.ordinal += 1;
        open.publish(&self.making.streamer.fence());
        self.totals.extents += 1;
        self.hand_over(Closed::Extent(open.extent.close()));
    }

    /// Lets others read what was appended since the last time: once for all packets of a batch,
    /// because each time waits for what was stored past the caches.
    pub(super) fn publish(&mut self) {
        let Making {
            streamer,
            unpublished,
            ..
        } = &mut self.making;
        if unpublished.is_empty() {
            return;
        }
        let fenced = streamer.fence();
        for tap in unpublished.drain(..) {
            if let Some(Some(Track {
                open: Some(open), ..
            })) = self.tracks.get_mut(tap as usize)
            {
                open.publish(&fenced);
            }
        }
    }

    fn hand_over(&mut self, message: Closed) {
        self.sent = true;
        // The queue has room for every extent there is; this is for a recorder that is gone.
        if self.unsent.is_empty() {
            if let Err(message) = self.queues.closed.push(message) {
                self.unsent.push_back(message);
            }
        } else {
            self.unsent.push_back(message);
        }
    }

    /// Nothing more comes of a recording: its notes are written, its extent is handed over, and the
    /// recorder is told. Waits in the background if there is no extent for the notes.
    pub(super) fn finish(&mut self, tap: u32) {
        if !self.try_finish(tap) {
            if let Some(Some(track)) = self.tracks.get_mut(tap as usize) {
                track.finishing_ns.get_or_insert(self.now_ns);
            }
            self.finishing.push(tap);
            self.retry_ns = self.now_ns + RETRY_NS;
        }
    }

    fn try_finish(&mut self, tap: u32) -> bool {
        let written = self.write_notes(tap);
        let Some(Some(track)) = self.tracks.get_mut(tap as usize) else {
            return true;
        };
        let waited_ns = self.now_ns - track.finishing_ns.unwrap_or(self.now_ns);
        if !written && waited_ns < FINISH_PATIENCE_NS {
            return false;
        }
        self.totals.notes_dropped += track.notes.len() as u64;
        let (session, recording) = (track.session, track.recording);
        self.close(tap);
        self.hand_over(Closed::Finish { session, recording });
        self.tracks[tap as usize] = None;
        self.free.push(tap);
        true
    }

    /// Closes what is old and retries what waits; bounded. True when the recorder got something in
    /// this duty cycle.
    pub(super) fn housekeeping(&mut self) -> bool {
        self.publish();
        for _ in 0..AGED_PER_CYCLE {
            let Some(&(opened_ns, tap, ordinal)) = self.ages.front() else {
                break;
            };
            let track = self.tracks.get(tap as usize).and_then(Option::as_ref);
            let open = track.is_some_and(|track| track.open.is_some() && track.ordinal == ordinal);
            if open && self.now_ns < opened_ns + self.extent_age_ns {
                break;
            }
            if open {
                self.close(tap);
            }
            self.ages.pop_front();
        }
        self.short &= self.queues.ready.is_empty();
        if !self.finishing.is_empty() && self.now_ns >= self.retry_ns {
            for tap in std::mem::take(&mut self.finishing) {
                self.finish(tap);
            }
        }
        while let Some(message) = self.unsent.pop_front() {
            if let Err(message) = self.queues.closed.push(message) {
                self.unsent.push_front(message);
                break;
            }
        }
        std::mem::take(&mut self.sent)
    }

    /// When [`Self::housekeeping`] has something to do.
    pub(super) fn next_deadline_ns(&self) -> Option<u64> {
        let age = self
            .ages
            .front()
            .map(|&(opened_ns, ..)| opened_ns + self.extent_age_ns);
        let retry = (!self.finishing.is_empty()).then_some(self.retry_ns);
        let unsent = (!self.unsent.is_empty()).then_some(self.now_ns + RETRY_NS);
        [age, retry, unsent].into_iter().flatten().min()
    }

    /// Finishes everything, waiting for nothing.
    pub(super) fn shut_down(&mut self) {
        self.publish();
        self.finishing.clear();
        for tap in 0..self.tracks.len() as u32 {
            if let Some(Some(track)) = self.tracks.get_mut(tap as usize) {
                track.finishing_ns = Some(0);
                self.try_finish(tap);
            }
        }
    }
}

impl OpenExtent {
    /// Appends; gives the bytes taken, `None` when there is no room.
    #[inline]
    fn append(
        &mut self,
        tap: u32,
        making: &mut Making,
        head: &FrameHead,
        bytes: &[u8],
    ) -> Option<u64> {
        let Self { extent, appender } = self;
        let (before, known) = (appender.used(), extent.is_unpublished());
        let Making {
            room,
            streamer,
            unpublished,
        } = making;
        let put = |at: usize, frame: &[u8]| extent.stream(streamer, at, frame);
        match appender.append_by(room, EXTENT_BYTES, head, bytes, put) {
            Ok(used) => {
                if !known {
                    unpublished.push(tap);
                }
                Some(u64::from(used - before))
            }
            Err(AppendError::NoRoom | AppendError::TooLong) => None,
        }
    }

    #[inline]
    fn publish(&mut self, fenced: &Fenced<'_>) {
        if self.extent.is_unpublished() {
            self.extent.publish(fenced, self.appender.used() as usize);
        }
    }
}

#[inline]
fn frame_head(meta: &FrameMeta, origin_ns: u64) -> FrameHead {
    let kind = match meta.kind {
        Kind::Rtp => FrameKind::Rtp,
        Kind::Rtcp => FrameKind::Rtcp,
        Kind::Opaque | Kind::Injected => FrameKind::Opaque,
    };
    let injected = match meta.kind {
        Kind::Injected => flags::INJECTED,
        _ => 0,
    };
    let duplicate = if meta.duplicate { flags::DUPLICATE } else { 0 };
    let late = if meta.late { flags::LATE } else { 0 };
    FrameHead {
        kind,
        side: meta.side as u8,
        media: meta.media,
        ssrc: meta.ssrc,
        pt: meta.payload_type,
        marker: meta.marker,
        flags: duplicate | late | injected,
        seq: meta.sequence,
        seq_cycles: meta.sequence_cycles,
        rtp_ts: meta.timestamp,
        wall_ns: meta.at_ns.saturating_sub(origin_ns),
    }
}
