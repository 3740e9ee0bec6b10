//! Events on their way to control: in order, held while the ring is full, and for a while after, so
//! that what matters for good reaches the next control when this one dies.

use std::collections::VecDeque;

use trunkline_link::attach::{SendOutcome, Server};
use trunkline_link::message::Event;

/// Events held for a control that does not read.
const HELD_MAX: usize = 16_384;
/// Above this many held events, reports that will be repeated anyway are dropped.
const HELD_BUSY: usize = 2_048;
/// Above this many held events, a snapshot waits.
const HELD_FILLING: usize = 256;
/// Final events kept for the next control.
const FINAL_MAX: usize = 4_096;
/// A control that died may not have read what was sent in its last seconds.
const UNREAD_NS: u64 = 10_000_000_000;

/// The way out.
#[derive(Debug, Default)]
pub struct Outbox {
    held: VecDeque<Event>,
    /// Final events (told once, in no snapshot) and when they were sent.
    finals: VecDeque<(u64, Event)>,
    /// Those from before the present attach.
    earlier: VecDeque<(u64, Event)>,
    /// Events dropped since the start.
    pub dropped: u64,
    /// Events sent since the start.
    pub sent: u64,
}

/// Told once and not to be found in a snapshot.
fn is_final(event: &Event) -> bool {
    matches!(
        event,
        Event::RecordingClosed { .. } | Event::SessionEnded { .. }
    )
}

impl Outbox {
    /// Sends an event, or holds it. With nobody attached only final events are kept.
    pub fn send(&mut self, server: &mut Server, event: Event, now_ns: u64) {
        if is_final(&event) {
            if self.finals.len() == FINAL_MAX {
                self.finals.pop_front();
            }
            self.finals.push_back((now_ns, event.clone()));
        }
        self.send_again(server, event);
    }

    /// As [`Self::send`], for events that are not new: final ones are not kept once more.
    pub fn send_again(&mut self, server: &mut Server, event: Event) {
        if !server.is_attached() {
            return;
        }
        let repeated = matches!(event, Event::RecordingProgress { .. });
        if self.held.len() >= if repeated { HELD_BUSY } else { HELD_MAX } {
            self.dropped += 1;
            server.note_overrun();
            return;
        }
        self.held.push_back(event);
        self.flush(server);
    }

    /// Sends what is held. `true`: some of it still is.
    pub fn flush(&mut self, server: &mut Server) -> bool {
        while let Some(event) = self.held.front() {
            match server.send_event(event) {
                SendOutcome::Sent => self.sent += 1,
                SendOutcome::Full => return true,
                SendOutcome::Detached => {
                    self.held.clear();
                    return false;
                }
                SendOutcome::Unsendable(error) => {
                    tracing::error!(%error, ?event, "event does not fit the wire format");
                    self.dropped += 1;
                }
            }
            self.held.pop_front();
        }
        false
    }

    /// Whether control reads too slowly to be given more work.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.held.len() >= HELD_BUSY
    }

    /// Whether a long list should be told no further for now.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        self.held.len() >= HELD_FILLING
    }

    /// The attached control is another one now: nothing held is meant for it.
    pub fn forget(&mut self) {
        self.held.clear();
    }

    /// A control attached: what was sent until now was sent to an earlier one, or to nobody.
    pub fn begin_attach(&mut self) {
        self.earlier.append(&mut self.finals);
        let surplus = self.earlier.len().saturating_sub(FINAL_MAX);
        self.earlier.drain(..surplus);
    }

    /// Final events that an earlier control may not have read, given that the last one went away at
    /// `left_ns`. Given once.
    pub fn take_unread(&mut self, left_ns: u64) -> Vec<Event> {
        let oldest = left_ns.saturating_sub(UNREAD_NS);
        let unread = self
            .earlier
            .drain(..)
            .filter(|(sent_ns, _)| *sent_ns >= oldest);
        unread.map(|(_, event)| event).collect()
    }
}
