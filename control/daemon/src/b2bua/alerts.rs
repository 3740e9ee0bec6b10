//! Looks after running recordings: a side that is not heard is told while the call can still be saved.

use super::B2bua;
use crate::api::events::{EventKind, Subject};
use crate::call::recording::Quiet;
use crate::call::{Call, Phase};
use crate::clock::Moment;

impl B2bua {
    /// To be called about once a second: raises `recording.alert` for calls whose recording does not
    /// run, or hears only one side or none. Agreed hold and pauses are no silence.
    pub fn watch_recordings(&mut self, now: &Moment) {
        for call in self.calls.values_mut() {
            let expects_media = call.phase == Phase::Answered
                && call.was_answered()
                && call.held_since_ns.is_none()
                && call.channels_sent().is_none_or(|sent| sent == [true; 2]);
            for recording in &mut call.recordings {
                let Some(quiet) = recording.watch(expects_media, now) else {
                    continue;
                };
                let (why, side) = match quiet {
                    Quiet::NotStarted => ("missing", None),
                    Quiet::Both => ("silent", None),
                    Quiet::Caller => ("one_way", Some("caller")),
                    Quiet::Callee => ("one_way", Some("callee")),
                };
                tracing::warn!(
                    call = %recording.object.call_id, recording = %recording.object.id, why, side,
                    "a recording lacks what it should have"
                );
                recording.refresh(now.utc);
                let recording = &recording.object;
                let subject = Subject::Alert {
                    recording,
                    why,
                    side,
                };
                self.events
                    .publish(EventKind::RecordingAlert, now.utc, &subject);
            }
        }
    }

    /// A recording that should run could not be started.
    pub(super) fn alert_missing(&self, call: &Call, number: u64, now: &Moment) {
        let recording = call.recordings.iter().find(|one| one.number == number);
        if let Some(recording) = recording {
            let subject = Subject::Alert {
                recording: &recording.object,
                why: "missing",
                side: None,
            };
            self.events
                .publish(EventKind::RecordingAlert, now.utc, &subject);
        }
    }
}
