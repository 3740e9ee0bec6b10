//! What was said on the wire lately: SIP messages and media events in one bounded ring, so that a
//! call can be explained afterwards.

mod keys;
mod ladder;
mod pcapng;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use trunkline_link::message::{Event, RecordingPhase, Side, StreamReceipt};
use trunkline_sinks::Timestamp;
use trunkline_sip::transaction::Transport;

pub use ladder::summary;
pub use pcapng::write as write_pcapng;

/// Bytes of memory for messages, their places in the ring included.
const BYTES_MAX: usize = 32 << 20;
/// What a message takes besides its bytes and its Call-ID: its place, twice as a ring grows by doubling,
/// and two blocks of the allocator.
const PLACE_BYTES: usize = 2 * size_of::<Message>() + 48;
/// Messages and media events kept.
const ENTRIES_MAX: usize = 1 << 16;
/// Streams whose losses are followed.
const STREAMS_MAX: usize = 1 << 16;

/// One SIP message as it was on the wire.
#[derive(Debug, Clone)]
pub struct Message {
    /// When it came or was handed to the socket.
    pub at: Timestamp,
    /// Transport.
    pub transport: Transport,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// Whether it came to us.
    pub received: bool,
    /// Its Call-ID.
    pub call_id: String,
    /// The message.
    pub bytes: Arc<[u8]>,
}

/// Something that happened to a call's media.
#[derive(Debug, Clone, Serialize)]
pub struct Mark {
    /// When.
    pub at: Timestamp,
    /// What: `first_rtp`, `latched`, `source_changed`, `loss`, `media_timeout`, `recording_running`,
    /// `recording_paused`, `recording_stopped`, `transfer_started`, `bridged`.
    pub event: &'static str,
    /// `caller` or `callee`; empty where no side is meant.
    pub side: &'static str,
    /// In words.
    pub detail: String,
}

#[derive(Debug, Default)]
struct Ring {
    messages: VecDeque<Message>,
    bytes: usize,
    marks: VecDeque<(Arc<str>, Mark)>,
    /// Messages that had to make room.
    dropped: u64,
    /// Packets told to be missing so far, by call, side, m-line and SSRC.
    streams: HashMap<(Arc<str>, Side, u8, u32), u64>,
}

/// The ring; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    ring: Arc<Mutex<Ring>>,
    /// Keys that are pressed are not shown.
    masks_keys: bool,
}

const fn side_name(side: Side) -> &'static str {
    match side {
        Side::Caller => "caller",
        Side::Callee => "callee",
    }
}

impl Trace {
    /// An empty ring. `masks_keys`: bodies that say which key was pressed are made unreadable.
    #[must_use]
    pub fn new(masks_keys: bool) -> Self {
        Self {
            masks_keys,
            ..Self::default()
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Every critical section leaves it whole, so a poisoned lock is still good.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a message; the oldest make room for it. One without Call-ID belongs to no call.
    pub fn message(
        &self,
        transport: Transport,
        source: SocketAddr,
        destination: SocketAddr,
        received: bool,
        bytes: Arc<[u8]>,
    ) {
        let Some(call_id) = ladder::call_id(&bytes) else {
            return;
        };
        let masked = self.masks_keys.then(|| keys::masked(&bytes)).flatten();
        let bytes = masked.map_or(bytes, Arc::from);
        let mut ring = self.ring();
        ring.bytes += PLACE_BYTES + call_id.len() + bytes.len();
        ring.messages.push_back(Message {
            at: Timestamp::now(),
            transport,
            source,
            destination,
            received,
            call_id,
            bytes,
        });
        while ring.bytes > BYTES_MAX || ring.messages.len() > ENTRIES_MAX {
            let Some(oldest) = ring.messages.pop_front() else {
                break;
            };
            ring.bytes -= PLACE_BYTES + oldest.call_id.len() + oldest.bytes.len();
            ring.dropped += 1;
        }
    }

    /// Notes that a call's media is about to lead elsewhere, or does. `call` is its id in the API.
    pub fn redirected(&self, call: &str, event: &'static str, detail: String) {
        let now = Timestamp::now();
        self.ring().mark(&call.into(), event, None, detail, now);
    }

    /// Notes what an event of the dataplane says of a call's media. `call` is its id in the API,
    /// `mono_ns` is now.
    pub fn link_event(&self, call: &str, event: &Event, mono_ns: u64) {
        let call: Arc<str> = call.into();
        let mut ring = self.ring();
        match event {
            Event::EndpointLearned {
                side,
                rtcp,
                address,
                ..
            } => {
                let detail = format!("{} from {address}", if *rtcp { "RTCP" } else { "RTP" });
                ring.mark(&call, "latched", Some(*side), detail, Timestamp::now());
            }
            Event::SourceChanged {
                side, continuity, ..
            } => {
                let detail = format!("SSRC {:#010x}", continuity.ssrc_in);
                let now = Timestamp::now();
                ring.mark(&call, "source_changed", Some(*side), detail, now);
            }
            Event::MediaTimeout { side, .. } => {
                let now = Timestamp::now();
                ring.mark(&call, "media_timeout", Some(*side), String::new(), now);
            }
            Event::RecordingState {
                phase,
                at_mono_ns,
                streams,
                ..
            } => {
                let event = match phase {
                    RecordingPhase::Running => "recording_running",
                    RecordingPhase::Paused => "recording_paused",
                    RecordingPhase::Stopped => "recording_stopped",
                };
                ring.streams(&call, streams, mono_ns);
                let at = moment(*at_mono_ns, mono_ns);
                ring.mark(&call, event, None, String::new(), at);
            }
            Event::RecordingProgress { streams, .. } => ring.streams(&call, streams, mono_ns),
            Event::RecordingClosed { streams, .. } => {
                ring.streams(&call, streams, mono_ns);
                ring.streams.retain(|(of, ..), _| *of != call);
            }
            _ => {}
        }
    }

    /// Messages with one of these Call-IDs, oldest first, and how many of any call had to make room.
    #[must_use]
    pub fn messages(&self, call_ids: &[String]) -> (Vec<Message>, u64) {
        let ring = self.ring();
        let of_call = |message: &&Message| call_ids.contains(&message.call_id);
        let found = ring.messages.iter().filter(of_call).cloned().collect();
        (found, ring.dropped)
    }

    /// What happened to a call's media, by time.
    #[must_use]
    pub fn marks(&self, call: &str) -> Vec<Mark> {
        let ring = self.ring();
        let own = ring.marks.iter().filter(|(of, _)| &**of == call);
        let mut marks: Vec<Mark> = own.map(|(_, mark)| mark.clone()).collect();
        marks.sort_by_key(|mark| mark.at);
        marks
    }
}

/// UTC of a moment of CLOCK_MONOTONIC.
fn moment(at_ns: u64, now_ns: u64) -> Timestamp {
    let ago_ms = i64::try_from(now_ns.saturating_sub(at_ns) / 1_000_000).unwrap_or(0);
    Timestamp(Timestamp::now().0.saturating_sub(ago_ms))
}

impl Ring {
    fn mark(
        &mut self,
        call: &Arc<str>,
        event: &'static str,
        side: Option<Side>,
        detail: String,
        at: Timestamp,
    ) {
        if self.marks.len() >= ENTRIES_MAX {
            self.marks.pop_front();
        }
        let side = side.map_or("", side_name);
        let mark = Mark {
            at,
            event,
            side,
            detail,
        };
        self.marks.push_back((Arc::clone(call), mark));
    }

    /// First packets and new losses.
    fn streams(&mut self, call: &Arc<str>, streams: &[StreamReceipt], mono_ns: u64) {
        for stream in streams {
            let key = (Arc::clone(call), stream.side, stream.media, stream.ssrc);
            let dropped: u64 = stream.dropped.iter().sum();
            let missing = stream.lost + dropped;
            let known = self.streams.get(&key).copied();
            if known.is_none() && self.streams.len() >= STREAMS_MAX {
                continue;
            }
            self.streams.insert(key, missing);
            if known.is_none() {
                let detail = format!("SSRC {:#010x}", stream.ssrc);
                let at = moment(stream.first_ns, mono_ns);
                self.mark(call, "first_rtp", Some(stream.side), detail, at);
            }
            let more = missing.saturating_sub(known.unwrap_or(0));
            if more > 0 {
                let (lost, expected) = (stream.lost, stream.expected);
                let detail = format!(
                    "{more} packets more; so far {lost} lost and {dropped} dropped of {expected}"
                );
                self.mark(call, "loss", Some(stream.side), detail, Timestamp::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(trace: &Trace, call_id: &str, filler: usize) {
        let text = format!(
            "OPTIONS sip:a SIP/2.0\r\nCall-ID: {call_id}\r\n\r\n{}",
            "x".repeat(filler)
        );
        let address = "127.0.0.1:5060".parse().expect("an address");
        let bytes = text.into_bytes().into();
        trace.message(Transport::Udp, address, address, true, bytes);
    }

    #[test]
    fn the_ring_keeps_the_latest_within_its_bytes() {
        let trace = Trace::default();
        for _ in 0..40 {
            note(&trace, "old", 1 << 20);
        }
        note(&trace, "new", 10);
        let (old, dropped) = trace.messages(&["old".to_owned()]);
        assert!(
            old.len() < 32 && dropped as usize == 40 - old.len(),
            "{dropped}"
        );
        assert_eq!(trace.messages(&["new".to_owned()]).0.len(), 1);
    }

    #[test]
    fn first_packets_and_losses_are_told_once() {
        let trace = Trace::default();
        let mut stream = StreamReceipt {
            side: Side::Caller,
            media: 0,
            ssrc: 7,
            first_sequence: 0,
            expected: 100,
            written: 98,
            lost: 2,
            dropped: [0; 9],
            duplicates: 0,
            reordered: 0,
            bytes: 0,
            first_ns: 0,
            last_ns: 0,
            covered_ns: 0,
        };
        let progress = |stream: &StreamReceipt| Event::RecordingProgress {
            session: 1,
            recording: 1,
            next_ordinal: 1,
            last_segment: 0,
            last_page: 0,
            streams: vec![*stream],
        };
        trace.link_event("a", &progress(&stream), 5_000_000_000);
        trace.link_event("a", &progress(&stream), 6_000_000_000);
        stream.lost = 5;
        trace.link_event("a", &progress(&stream), 7_000_000_000);
        let events: Vec<&str> = trace.marks("a").iter().map(|mark| mark.event).collect();
        assert_eq!(events, ["first_rtp", "loss", "loss"]);
        assert!(trace.marks("b").is_empty());
    }
}
