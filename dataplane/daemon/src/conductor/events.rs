//! What workers and the recorder report.

use trunkline_link::counters::ConductorCounter;
use trunkline_link::message::{AlarmCode, Event, FailReason, RecordingPhase, StreamReceipt};

use super::Conductor;
use super::pending::{ReplyTo, Waiting, Wanted};
use crate::recorder::RecorderNotice;
use crate::worker::message::WorkerEvent;

/// Events taken from one worker in one turn.
const EVENTS_A_TURN: usize = 1_024;

impl Conductor {
    /// Takes what workers and recorder report. `true`: there may be more.
    pub(super) fn take_events(&mut self, now_ns: u64) -> bool {
        let mut more = false;
        for worker in 0..self.workers.len() {
            for turn in 0..EVENTS_A_TURN {
                let Some(event) = self.workers[worker].next_event() else {
                    break;
                };
                self.on_worker_event(worker, event, now_ns);
                more |= turn + 1 == EVENTS_A_TURN;
            }
        }
        for turn in 0..EVENTS_A_TURN {
            let Some(notice) = self.recorder.notices.pop() else {
                break;
            };
            self.on_notice(notice, now_ns);
            more |= turn + 1 == EVENTS_A_TURN;
        }
        more
    }

    fn on_worker_event(&mut self, worker: usize, event: WorkerEvent, now_ns: u64) {
        match event {
            WorkerEvent::Done { request } => {
                if let Some(waiting) = self.pending.take(request) {
                    self.on_done(waiting, now_ns);
                }
            }
            WorkerEvent::Failed { request, reason } => {
                if let Some(waiting) = self.pending.take(request) {
                    self.start_answered(worker, Some(waiting));
                    self.on_failed(waiting, reason, now_ns);
                }
            }
            WorkerEvent::EndpointLearned {
                session,
                media,
                side,
                rtcp,
                address,
            } => {
                let event = Event::EndpointLearned {
                    session,
                    media,
                    side,
                    rtcp,
                    address,
                };
                self.on_learned(session, event, now_ns);
            }
            WorkerEvent::SourceChanged {
                session,
                media,
                side,
                continuity,
            } => {
                let event = Event::SourceChanged {
                    session,
                    media,
                    side,
                    continuity,
                };
                self.on_learned(session, event, now_ns);
            }
            WorkerEvent::Digit {
                session,
                side,
                event,
                duration_ms,
            } => {
                let digit = Event::Digit {
                    session,
                    side,
                    event,
                    duration_ms,
                };
                self.tell(digit, now_ns);
            }
            WorkerEvent::Played {
                session,
                media,
                to,
                play,
                from_ns,
                to_ns,
                packets,
                played_ms,
                whole,
            } => {
                let played = Event::Played {
                    session,
                    media,
                    to,
                    play,
                    from_mono_ns: from_ns,
                    to_mono_ns: to_ns,
                    packets,
                    played_ms,
                    whole,
                };
                self.tell(played, now_ns);
            }
            WorkerEvent::MediaTimeout { session, side } => {
                self.tell(Event::MediaTimeout { session, side }, now_ns);
            }
            WorkerEvent::SessionSilent {
                session,
                last_packet_ns,
            } => {
                self.on_silent(session, last_packet_ns, now_ns);
            }
            WorkerEvent::RecordingState {
                request,
                recording,
                phase,
                at_mono_ns,
                origin_mono_ns,
                streams,
                ..
            } => {
                let waiting = self.pending.take(request);
                self.start_answered(worker, waiting);
                self.on_phase(
                    recording,
                    phase,
                    [at_mono_ns, origin_mono_ns],
                    streams,
                    waiting,
                    now_ns,
                );
            }
            WorkerEvent::RecordingProgress {
                recording,
                next_ordinal,
                streams,
                ..
            } => {
                self.on_progress(recording, next_ordinal, streams, now_ns);
            }
            WorkerEvent::ForkProgress {
                session,
                target,
                heard_ns,
                streams,
            } => {
                let event = Event::ForkProgress {
                    session,
                    target,
                    heard_ns,
                    streams,
                };
                self.tell(event, now_ns);
            }
            WorkerEvent::SlotClosed { slot } => self.slot_closed(worker, slot, now_ns),
            WorkerEvent::SlotFailed { slot, errno } => {
                let error = std::io::Error::from_raw_os_error(errno);
                tracing::warn!(worker, slot, %error, "the kernel refused a media socket");
                self.slot_closed(worker, slot, now_ns);
            }
            WorkerEvent::ExtentsShort { short } => {
                self.workers[worker].extents_short = short;
                let any = self.workers.iter().any(|seat| seat.extents_short);
                self.alarm(AlarmCode::CaptureNoExtent, any, now_ns);
            }
            WorkerEvent::Ended => self.workers[worker].ended = true,
        }
    }

    fn start_answered(&mut self, worker: usize, waiting: Option<Waiting>) {
        let wanted = waiting.map(|waiting| waiting.wanted);
        if matches!(wanted, Some(Wanted::RecordingStart { .. })) {
            self.workers[worker].start_answered();
        }
    }

    fn on_done(&mut self, waiting: Waiting, now_ns: u64) {
        match waiting.wanted {
            Wanted::Session { session } | Wanted::Extension { session } => {
                self.opened(waiting.reply, session, now_ns);
            }
            Wanted::Removal { session } => self.removed(waiting.reply, session, now_ns),
            Wanted::Plain | Wanted::RecordingStart { .. } | Wanted::RecordingPhase => {
                self.done(waiting.reply, now_ns);
            }
            // The recorder's notice is the answer.
            Wanted::RecordingFinish { .. } => {}
        }
    }

    fn on_failed(&mut self, waiting: Waiting, reason: FailReason, now_ns: u64) {
        match waiting.wanted {
            Wanted::Session { session } | Wanted::Extension { session } => self.not_opened(session),
            // The worker knows no such session: it is as gone as it was asked to be.
            Wanted::Removal { session } => return self.removed(waiting.reply, session, now_ns),
            Wanted::RecordingStart { recording } => self.forget_recording(recording),
            Wanted::RecordingFinish { recording } => {
                // The worker holds nothing of it: nothing will ever close it.
                self.forget_recording(recording);
            }
            Wanted::Plain | Wanted::RecordingPhase => {}
        }
        self.failed(waiting.reply, reason, now_ns);
    }

    fn removed(&mut self, reply: Option<ReplyTo>, session: u64, now_ns: u64) {
        let orphaned = self
            .sessions
            .get(&session)
            .is_some_and(|known| known.orphaned);
        self.forget_session(session);
        self.done(reply, now_ns);
        if orphaned {
            self.counters.add(ConductorCounter::SessionsOrphaned, 1);
            self.tell(Event::SessionEnded { session }, now_ns);
            let left = self
                .recordings
                .iter()
                .filter(|(_, known)| known.session == session);
            let left: Vec<_> = left.map(|(number, _)| *number).collect();
            for recording in left {
                let _ = self.finish_recording(None, recording, now_ns);
            }
        }
    }

    fn on_learned(&mut self, session: u64, event: Event, now_ns: u64) {
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.learn(&event);
            self.tell(event, now_ns);
        }
    }

    fn on_phase(
        &mut self,
        recording: u64,
        phase: RecordingPhase,
        [at_mono_ns, origin_mono_ns]: [u64; 2],
        streams: Vec<StreamReceipt>,
        waiting: Option<Waiting>,
        now_ns: u64,
    ) {
        let Some(entry) = self.recordings.get_mut(&recording) else {
            return;
        };
        entry.phase = phase;
        entry.origin_mono_ns = origin_mono_ns;
        entry.streams = streams;
        let (session, streams) = (entry.session, entry.receipts());
        let reply = waiting
            .and_then(|waiting| waiting.reply)
            .filter(|reply| self.listens(*reply));
        let starts = matches!(
            waiting.map(|waiting| waiting.wanted),
            Some(Wanted::RecordingStart { .. })
        );
        // A start is answered by `Done`, after the state that tells its origin.
        let request = reply.filter(|_| !starts).map_or(0, |reply| reply.request);
        let event = Event::RecordingState {
            request,
            session,
            recording,
            phase,
            at_mono_ns,
            origin_mono_ns,
            streams,
        };
        self.tell(event, now_ns);
        if starts {
            self.done(reply, now_ns);
        }
    }

    fn on_progress(
        &mut self,
        recording: u64,
        next_ordinal: u32,
        streams: Vec<StreamReceipt>,
        now_ns: u64,
    ) {
        if let Some(entry) = self.recordings.get_mut(&recording) {
            entry.next_ordinal = next_ordinal;
            entry.streams = streams;
            let event = entry.progress(recording);
            self.tell(event, now_ns);
        }
    }

    fn forget_recording(&mut self, recording: u64) {
        if let Some(entry) = self.recordings.remove(&recording)
            && let Some(session) = self.sessions.get_mut(&entry.session)
            && session.recording == recording
        {
            session.recording = 0;
        }
    }

    fn on_notice(&mut self, notice: RecorderNotice, now_ns: u64) {
        match notice {
            RecorderNotice::Progress {
                recording,
                last_segment,
                last_page,
                disk_drops,
                ..
            } => {
                if let Some(entry) = self.recordings.get_mut(&recording) {
                    entry.last_segment = last_segment;
                    entry.last_page = last_page;
                    entry.disk_drops = disk_drops;
                }
            }
            RecorderNotice::Closed {
                session,
                recording,
                extents,
                last_segment,
                last_page,
                bytes,
                chain_head,
                disk_drops,
            } => {
                let streams = self.recordings.get_mut(&recording).map(|entry| {
                    entry.disk_drops = disk_drops;
                    entry.receipts()
                });
                self.forget_recording(recording);
                let event = Event::RecordingClosed {
                    session,
                    recording,
                    extents,
                    last_segment,
                    last_page,
                    bytes,
                    chain_head,
                    streams: streams.unwrap_or_default(),
                };
                self.tell(event, now_ns);
            }
            RecorderNotice::DiskAlarm { active } => {
                self.alarm(AlarmCode::CaptureDisk, active, now_ns);
            }
        }
    }
}
