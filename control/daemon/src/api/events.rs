//! Events as they are published by the core and replayed to API clients.

use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use trunkline_sinks::Timestamp;
use trunkline_sinks::object::{Call, Recording};

/// Events kept for clients that resume.
const EVENTS_KEPT_MAX: usize = 10_000;

/// What an event is about.
#[derive(Debug, Clone)]
pub enum Subject<'a> {
    /// A call, as it is after the event.
    Call(&'a Call),
    /// A recording, as it is after the event.
    Recording(&'a Recording),
    /// A recording that lacks what it should have.
    Alert {
        /// The recording.
        recording: &'a Recording,
        /// `missing`, `silent` or `one_way`.
        why: &'a str,
        /// With `one_way`: the side that is not heard, `caller` or `callee`.
        side: Option<&'a str>,
    },
    /// A recording session, as it is after the event.
    Siprec(&'a crate::siprec::session::Session),
    /// An alarm: its code and what it says.
    Alarm {
        /// `capture_disk`, `capture_no_extent`, `ports_short`, `dataplane_down` ...
        code: &'a str,
        /// In words.
        message: &'a str,
    },
    /// A DTMF digit of a call, with the side that sent it.
    Dtmf {
        /// The call.
        call: &'a Call,
        /// `caller` or `callee`.
        side: &'a str,
        /// The digit.
        digit: char,
    },
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// INVITE in.
    CallStarted,
    /// First 180 from the far side.
    CallRinging,
    /// Media before the answer.
    CallEarly,
    /// Answered.
    CallAnswered,
    /// Put on hold.
    CallHeld,
    /// Taken off hold.
    CallResumed,
    /// A transfer began.
    CallTransferStarted,
    /// A transfer came to nothing; the parties are as they were.
    CallTransferFailed,
    /// Both directions of media stand.
    CallBridged,
    /// Over after an answer.
    CallEnded,
    /// Over without an answer.
    CallFailed,
    /// Capture runs.
    RecordingStarted,
    /// Capture rests.
    RecordingPaused,
    /// Capture goes on.
    RecordingResumed,
    /// Capture ended.
    RecordingStopped,
    /// The final state and the verdict are there.
    RecordingFinished,
    /// Nothing could be kept.
    RecordingFailed,
    /// Something was not recorded.
    RecordingAlert,
    /// A recording session stands.
    SiprecStarted,
    /// A recording session is over.
    SiprecStopped,
    /// Another server has the recording session.
    SiprecFailedOver,
    /// No server has the recording session.
    SiprecFailed,
    /// A digit.
    Dtmf,
    /// A condition began.
    AlarmRaised,
    /// A condition ended.
    AlarmCleared,
}

impl EventKind {
    /// The SSE event name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CallStarted => "call.started",
            Self::CallRinging => "call.ringing",
            Self::CallEarly => "call.early",
            Self::CallAnswered => "call.answered",
            Self::CallHeld => "call.held",
            Self::CallResumed => "call.resumed",
            Self::CallTransferStarted => "call.transfer_started",
            Self::CallTransferFailed => "call.transfer_failed",
            Self::CallBridged => "call.bridged",
            Self::CallEnded => "call.ended",
            Self::CallFailed => "call.failed",
            Self::RecordingStarted => "recording.started",
            Self::RecordingPaused => "recording.paused",
            Self::RecordingResumed => "recording.resumed",
            Self::RecordingStopped => "recording.stopped",
            Self::RecordingFinished => "recording.finished",
            Self::RecordingFailed => "recording.failed",
            Self::RecordingAlert => "recording.alert",
            Self::SiprecStarted => "siprec.started",
            Self::SiprecStopped => "siprec.stopped",
            Self::SiprecFailedOver => "siprec.failed_over",
            Self::SiprecFailed => "siprec.failed",
            Self::Dtmf => "dtmf",
            Self::AlarmRaised => "alarm.raised",
            Self::AlarmCleared => "alarm.cleared",
        }
    }
}

/// One published event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Position since this process started, from 1.
    pub sequence: u64,
    /// Kind.
    pub kind: EventKind,
    /// JSON of `{"at", "call"|"recording"|"siprec"|"alarm": object}`.
    pub data: Arc<str>,
}

/// Keeps the latest events and wakes whoever waits for more. Clones share one hub.
#[derive(Debug, Clone)]
pub struct EventHub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Names this process in event ids, so that ids of an earlier one are told apart.
    epoch: i64,
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    published: u64,
    events: VecDeque<Event>,
}

impl Default for EventHub {
    fn default() -> Self {
        Self::new()
    }
}

impl EventHub {
    /// An empty hub.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared {
            epoch: Timestamp::now().0,
            kept: Mutex::default(),
            newest: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Publishing cannot leave the list half changed, so a poisoned lock is still good.
        self.shared
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes an event. Never waits for readers.
    pub fn publish(&self, kind: EventKind, at: Timestamp, subject: &Subject<'_>) {
        let data: Arc<str> = event_json(at, subject).into();
        let mut kept = self.kept();
        kept.published += 1;
        let sequence = kept.published;
        if kept.events.len() == EVENTS_KEPT_MAX {
            kept.events.pop_front();
        }
        kept.events.push_back(Event {
            sequence,
            kind,
            data,
        });
        drop(kept);
        self.shared.newest.send_replace(sequence);
    }

    /// The id that stands for an event in `Last-Event-ID`.
    #[must_use]
    pub fn id_of(&self, sequence: u64) -> String {
        format!("{}-{sequence}", self.shared.epoch)
    }

    /// Where to go on after the event of this id. An id of an earlier process: from the first event
    /// kept. `None` when it is no id at all.
    #[must_use]
    pub fn resume_after(&self, id: &str) -> Option<u64> {
        let (epoch, sequence) = id.split_once('-')?;
        let (epoch, sequence) = (epoch.parse::<i64>().ok()?, sequence.parse::<u64>().ok()?);
        Some(if epoch == self.shared.epoch {
            sequence.min(self.newest())
        } else {
            0
        })
    }

    /// The newest event's sequence; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        *self.shared.newest.borrow()
    }

    /// The oldest `limit` kept events after `sequence`.
    #[must_use]
    pub fn after(&self, sequence: u64, limit: usize) -> Vec<Event> {
        let kept = self.kept();
        let first_kept = kept.published - kept.events.len() as u64 + 1;
        let skip = (sequence + 1).saturating_sub(first_kept);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        kept.events.iter().skip(skip).take(limit).cloned().collect()
    }

    /// Notifies of every new event.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.newest.subscribe()
    }
}

/// What an event says, as it is written.
#[derive(Default, Serialize)]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    alarm: Option<Alarm<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alert: Option<Alert<'a>>,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<&'a Call>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dtmf: Option<Dtmf<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recording: Option<&'a Recording>,
    #[serde(skip_serializing_if = "Option::is_none")]
    siprec: Option<&'a crate::siprec::session::Session>,
}

#[derive(Serialize)]
struct Alarm<'a> {
    code: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct Alert<'a> {
    side: Option<&'a str>,
    why: &'a str,
}

#[derive(Serialize)]
struct Dtmf<'a> {
    digit: char,
    side: &'a str,
}

fn event_json(at: Timestamp, subject: &Subject<'_>) -> String {
    let mut data = Data {
        at,
        ..Data::default()
    };
    match *subject {
        Subject::Call(call) => data.call = Some(call),
        Subject::Recording(recording) => data.recording = Some(recording),
        Subject::Alert {
            recording,
            why,
            side,
        } => {
            data.recording = Some(recording);
            data.alert = Some(Alert { side, why });
        }
        Subject::Siprec(session) => data.siprec = Some(session),
        Subject::Alarm { code, message } => data.alarm = Some(Alarm { code, message }),
        Subject::Dtmf { call, side, digit } => {
            data.call = Some(call);
            data.dtmf = Some(Dtmf { digit, side });
        }
    }
    serde_json::to_string(&data).expect("texts, numbers and maps with texts as keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm(hub: &EventHub, code: &str) {
        hub.publish(
            EventKind::AlarmRaised,
            Timestamp(0),
            &Subject::Alarm { code, message: "" },
        );
    }

    #[test]
    fn a_reader_gets_every_event_after_its_last() {
        let hub = EventHub::new();
        for code in ["a", "b", "c"] {
            alarm(&hub, code);
        }
        let all = hub.after(0, 100);
        assert_eq!(
            all.iter().map(|event| event.sequence).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        assert_eq!(
            &*all[0].data,
            r#"{"alarm":{"code":"a","message":""},"at":"1970-01-01T00:00:00.000Z"}"#
        );
        let resumed = hub.resume_after(&hub.id_of(2)).unwrap();
        assert_eq!(hub.after(resumed, 100).len(), 1);
        assert_eq!(hub.resume_after("1-2"), Some(0), "another process");
        assert_eq!(hub.resume_after("nonsense"), None);
        assert_eq!(
            hub.resume_after(&hub.id_of(99)),
            Some(3),
            "never ahead of what was published"
        );
    }

    #[test]
    fn only_the_latest_are_kept() {
        let hub = EventHub::new();
        for _ in 0..EVENTS_KEPT_MAX + 5 {
            alarm(&hub, "x");
        }
        let all = hub.after(0, usize::MAX);
        assert_eq!(all.len(), EVENTS_KEPT_MAX);
        assert_eq!(all[0].sequence, 6);
        assert_eq!(hub.after(hub.newest(), 10).len(), 0);
        assert_eq!(hub.after(7, 2)[0].sequence, 8);
    }
}
