//! What a control that attaches (or lost events) is told: every live session, then what an earlier
//! control may not have read, then the end. Told a few sessions at a time, as fast as it is read.

use std::collections::VecDeque;

use trunkline_link::message::{Event, RecordingPhase};

use super::Conductor;
use super::session::Phase;

/// A snapshot under way.
#[derive(Debug)]
pub(super) struct Snapshot {
    request: u64,
    /// The first one that this control asked for.
    first: bool,
    /// Sessions still to be told.
    sessions: VecDeque<u64>,
}

impl Conductor {
    /// `Snapshot`. From here on the sessions are this control's.
    pub(super) fn begin_snapshot(&mut self, request: u64) {
        let first = !std::mem::replace(&mut self.snapshot_given, true);
        let live = self
            .sessions
            .values_mut()
            .filter(|known| known.phase == Phase::Live);
        let sessions = live.map(|session| {
            session.claim();
            session.session
        });
        self.snapshots.push_back(Snapshot {
            request,
            first,
            sessions: sessions.collect(),
        });
    }

    /// Goes on telling, as far as there is room.
    pub(super) fn advance_snapshots(&mut self, now_ns: u64) {
        while let Some(snapshot) = self.snapshots.front_mut() {
            if self.outbox.is_filling() {
                return;
            }
            if let Some(session) = snapshot.sessions.pop_front() {
                self.tell_session(session);
            } else if let Some(Snapshot { request, first, .. }) = self.snapshots.pop_front() {
                self.end_snapshot(request, first, now_ns);
            }
        }
    }

    /// Whether there is more to tell and room for it.
    pub(super) fn can_advance_snapshots(&self) -> bool {
        !self.snapshots.is_empty() && !self.outbox.is_filling()
    }

    fn tell_session(&mut self, session: u64) {
        let live = self
            .sessions
            .get(&session)
            .filter(|known| known.phase == Phase::Live);
        let Some(session) = live else { return };
        let (phase, origin) = self
            .recordings
            .get(&session.recording)
            .map_or((RecordingPhase::Stopped, 0), |known| {
                (known.phase, known.origin_mono_ns)
            });
        for event in session.snapshot(phase, origin) {
            self.outbox.send_again(&mut self.server, event);
        }
    }

    fn end_snapshot(&mut self, request: u64, first: bool, now_ns: u64) {
        let mut events = Vec::new();
        if first {
            events.extend(self.outbox.take_unread(self.left_ns));
            self.finish_left_recordings(now_ns);
        }
        events.extend(self.alarms.iter().map(|code| Event::Alarm {
            code: *code,
            active: true,
        }));
        events.push(Event::SnapshotEnd { request });
        for event in events {
            self.outbox.send_again(&mut self.server, event);
        }
    }

    /// Recordings that no session shows to this control: it cannot finish what it never hears of.
    fn finish_left_recordings(&mut self, now_ns: u64) {
        let shown = |number: &u64| {
            self.recordings.get(number).is_some_and(|recording| {
                self.sessions
                    .get(&recording.session)
                    .is_some_and(|session| {
                        session.phase == Phase::Live && session.recording == *number
                    })
            })
        };
        let left: Vec<_> = self
            .recordings
            .keys()
            .copied()
            .filter(|number| !shown(number))
            .collect();
        for recording in left {
            // Those being finished already are refused, which is right.
            let _ = self.finish_recording(None, recording, now_ns);
        }
    }
}
