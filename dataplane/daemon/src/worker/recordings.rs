//! Recordings as the conductor sees them: phases, facts, receipts, marks of what was dropped.

use trunkline_device::Device;
use trunkline_engine::StreamReceipt;
use trunkline_link::message::{self as link, FactKind, FailReason, RecordingPhase};
use trunkline_sn3::FrameKind;
use trunkline_sn3::record::{ClockTriple, DropRecord, PauseRecord};

use super::Worker;
use super::message::{TapStart, WorkerEvent};
use super::translate::{fail_reason, receipt};

/// How often a recording reports its progress.
const PROGRESS_NS: u64 = 1_000_000_000;
/// Recordings that report in one duty cycle.
const PROGRESS_PER_CYCLE: usize = 16;

/// One recording that was not handed over yet.
#[derive(Debug)]
pub(super) struct Recording {
    session: u64,
    tap: u32,
    phase: RecordingPhase,
    origin_ns: u64,
    /// Receipts whose drops are marked in the recording and counted.
    marked: Vec<StreamReceipt>,
}

impl<D: Device> Worker<D> {
    pub(super) fn on_recording_start(&mut self, now_ns: u64, request: u64, start: TapStart) {
        let origin_ns = if start.origin_mono_ns == 0 {
            now_ns
        } else {
            start.origin_mono_ns
        };
        self.take_shared_drops();
        if let Err(reason) = self.check_start(&start) {
            self.reports.tell(WorkerEvent::Failed { request, reason });
            return;
        }
        let TapStart {
            session,
            recording,
            first_ordinal,
            clock,
            open_fact,
            ..
        } = start;
        let tap = self
            .capture
            .begin(session, recording, origin_ns, first_ordinal);
        if let Err(error) = self.engine.start_tap(session, tap) {
            self.capture.finish(tap);
            self.reports.tell(WorkerEvent::Failed {
                request,
                reason: fail_reason(error),
            });
            return;
        }
        // The frame's moment is the recording's origin, or now when the recording goes on.
        let clock = ClockTriple {
            mono_ns: now_ns,
            utc_ns: clock.utc_of(now_ns),
            sync: clock.sync,
        };
        self.capture
            .note(tap, FrameKind::Clock, now_ns, clock.encode().to_vec());
        if !open_fact.is_empty() {
            self.capture
                .note(tap, FrameKind::CallOpen, now_ns, open_fact);
        }
        let phase = RecordingPhase::Running;
        let entry = Recording {
            session,
            tap,
            phase,
            origin_ns,
            marked: Vec::new(),
        };
        self.recordings.insert(recording, entry);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.recording = Some(recording);
        }
        self.progress.push_back((now_ns + PROGRESS_NS, recording));
        self.tell_state(now_ns, request, recording, &[]);
    }

    fn check_start(&self, start: &TapStart) -> Result<(), FailReason> {
        let session = self
            .sessions
            .get(&start.session)
            .ok_or(FailReason::NotFound)?;
        if start.recording == 0 {
            return Err(FailReason::Invalid);
        }
        if session.recording.is_some() || self.recordings.contains_key(&start.recording) {
            return Err(FailReason::WrongState);
        }
        Ok(())
    }

    pub(super) fn on_recording_pause(
        &mut self,
        now_ns: u64,
        request: u64,
        session: u64,
        recording: u64,
    ) {
        let result = self
            .find(session, recording)
            .and_then(|()| self.engine.pause_tap(session).map_err(fail_reason));
        let kind = FrameKind::Pause;
        self.tell_phase(
            now_ns,
            request,
            recording,
            result,
            RecordingPhase::Paused,
            kind,
        );
    }

    pub(super) fn on_recording_resume(
        &mut self,
        now_ns: u64,
        request: u64,
        session: u64,
        recording: u64,
    ) {
        let result = self
            .find(session, recording)
            .and_then(|()| self.engine.resume_tap(session).map_err(fail_reason));
        let kind = FrameKind::Resume;
        self.tell_phase(
            now_ns,
            request,
            recording,
            result,
            RecordingPhase::Running,
            kind,
        );
    }

    pub(super) fn on_recording_stop(
        &mut self,
        now_ns: u64,
        request: u64,
        session: u64,
        recording: u64,
    ) {
        self.take_shared_drops();
        match self.stop(now_ns, session, recording) {
            Ok(streams) => self.tell_state(now_ns, request, recording, &streams),
            Err(reason) => self.reports.tell(WorkerEvent::Failed { request, reason }),
        }
    }

    /// Ends capture; gives the final receipts.
    fn stop(
        &mut self,
        now_ns: u64,
        session: u64,
        recording: u64,
    ) -> Result<Vec<StreamReceipt>, FailReason> {
        self.find(session, recording)?;
        let mut streams = Vec::new();
        self.engine
            .stop_tap(session, &mut streams)
            .map_err(fail_reason)?;
        self.mark_drops(now_ns, recording, &streams);
        if let Some(entry) = self.recordings.get_mut(&recording) {
            entry.phase = RecordingPhase::Stopped;
        }
        if let Some(session) = self.sessions.get_mut(&session) {
            session.recording = None;
        }
        Ok(streams)
    }

    pub(super) fn on_recording_fact(
        &mut self,
        now_ns: u64,
        recording: u64,
        kind: FactKind,
        fact: Vec<u8>,
    ) -> Result<(), FailReason> {
        let entry = self
            .recordings
            .get(&recording)
            .ok_or(FailReason::NotFound)?;
        let kind = match kind {
            FactKind::CallOpen => FrameKind::CallOpen,
            FactKind::CallChange => FrameKind::CallChange,
            FactKind::CallClose => FrameKind::CallClose,
        };
        self.capture.note(entry.tap, kind, now_ns, fact);
        Ok(())
    }

    pub(super) fn on_recording_finish(
        &mut self,
        now_ns: u64,
        recording: u64,
    ) -> Result<(), FailReason> {
        let entry = self
            .recordings
            .get(&recording)
            .ok_or(FailReason::NotFound)?;
        let session = entry.session;
        if entry.phase != RecordingPhase::Stopped {
            self.on_recording_stop(now_ns, 0, session, recording);
        }
        if let Some(entry) = self.recordings.remove(&recording) {
            self.capture.finish(entry.tap);
        }
        Ok(())
    }

    /// Whether the recording is this session's and not stopped.
    fn find(&self, session: u64, recording: u64) -> Result<(), FailReason> {
        let entry = self
            .recordings
            .get(&recording)
            .ok_or(FailReason::NotFound)?;
        if entry.session != session {
            return Err(FailReason::NotFound);
        }
        if entry.phase == RecordingPhase::Stopped {
            return Err(FailReason::WrongState);
        }
        Ok(())
    }

    /// After a change of phase (or none): the frame that marks it, and the answer.
    fn tell_phase(
        &mut self,
        now_ns: u64,
        request: u64,
        recording: u64,
        result: Result<(), FailReason>,
        phase: RecordingPhase,
        kind: FrameKind,
    ) {
        if let Err(reason) = result {
            self.reports.tell(WorkerEvent::Failed { request, reason });
            return;
        }
        let mut streams = Vec::new();
        if let Some(entry) = self.recordings.get_mut(&recording) {
            entry.phase = phase;
            self.capture.note(
                entry.tap,
                kind,
                now_ns,
                PauseRecord::default().encode().to_vec(),
            );
            self.engine.tap_receipts(entry.session, &mut streams);
        }
        self.tell_state(now_ns, request, recording, &streams);
    }

    fn tell_state(&mut self, now_ns: u64, request: u64, recording: u64, streams: &[StreamReceipt]) {
        let Some(entry) = self.recordings.get(&recording) else {
            return;
        };
        self.reports.tell(WorkerEvent::RecordingState {
            request,
            session: entry.session,
            recording,
            phase: entry.phase,
            at_mono_ns: now_ns,
            origin_mono_ns: entry.origin_ns,
            streams: receipts(streams),
        });
    }

    /// Once a second: receipts so far, and marks of what was dropped since.
    pub(super) fn report_progress(&mut self, now_ns: u64) {
        for _ in 0..PROGRESS_PER_CYCLE {
            let due = self
                .progress
                .front()
                .filter(|&&(due_ns, _)| due_ns <= now_ns);
            let Some(&(_, recording)) = due else { return };
            self.progress.pop_front();
            let Some(entry) = self.recordings.get(&recording) else {
                continue;
            };
            if entry.phase == RecordingPhase::Stopped {
                continue;
            }
            let (session, tap) = (entry.session, entry.tap);
            let mut streams = Vec::new();
            self.engine.tap_receipts(session, &mut streams);
            self.mark_drops(now_ns, recording, &streams);
            self.reports.tell(WorkerEvent::RecordingProgress {
                session,
                recording,
                next_ordinal: self.capture.next_ordinal(tap),
                streams: receipts(&streams),
            });
            self.progress.push_back((now_ns + PROGRESS_NS, recording));
        }
    }

    /// Marks in the recording, and counts, what was dropped since the last look.
    fn mark_drops(&mut self, now_ns: u64, recording: u64, streams: &[StreamReceipt]) {
        let Some(entry) = self.recordings.get_mut(&recording) else {
            return;
        };
        for (index, stream) in streams.iter().enumerate() {
            let before = entry
                .marked
                .get(index)
                .map_or([0; 9], |marked| marked.dropped);
            for (reason, (&dropped, before)) in stream.dropped.iter().zip(before).enumerate() {
                let count = dropped.saturating_sub(before);
                if count == 0 {
                    continue;
                }
                self.totals.capture_dropped[reason] += count;
                let record = DropRecord {
                    reason: reason as u8,
                    side: stream.side as u8,
                    media: stream.media,
                    ssrc: stream.ssrc,
                    count,
                };
                self.capture
                    .note(entry.tap, FrameKind::Drop, now_ns, record.encode().to_vec());
            }
        }
        entry.marked.clear();
        entry.marked.extend_from_slice(streams);
    }
}

fn receipts(streams: &[StreamReceipt]) -> Vec<link::StreamReceipt> {
    streams.iter().map(receipt).collect()
}
