//! What the dataplane says, and what happens when it dies or comes back.

use std::collections::{HashMap, HashSet};

use trunkline_link::message::{AlarmCode, Command, Event, FailReason, RecordingStart};
use trunkline_sinks::object::EndedBy;
use trunkline_sinks::verdict::StreamCounts;
use trunkline_sn3::chain::Link;

use super::B2bua;
use super::sounding::Heard;
use crate::api::events::{EventKind, Subject};
use crate::call::recording::Phase as RecordingPhase;
use crate::call::sounding::Sounding;
use crate::call::{Call, Phase, Step};
use crate::clock::Moment;
use crate::siprec::client::Left;

/// Code of the alarm "no dataplane", beside those of the link.
const DATAPLANE_DOWN: u16 = 1000;

/// The alarms of a dataplane.
const ALARMS: [AlarmCode; 3] = [
    AlarmCode::CaptureDisk,
    AlarmCode::CaptureNoExtent,
    AlarmCode::PortsShort,
];

/// Events of sessions not restored yet that are kept until they are.
const UNREAD_MAX: usize = 1 << 16;

/// The session that an event of media or recording concerns.
pub(super) fn session_of(event: &Event) -> Option<u64> {
    match event {
        Event::EndpointLearned { session, .. }
        | Event::SourceChanged { session, .. }
        | Event::Played { session, .. }
        | Event::RecordingState { session, .. }
        | Event::RecordingProgress { session, .. }
        | Event::RecordingClosed { session, .. } => Some(*session),
        _ => None,
    }
}

/// Where a recording's extents stand after a dataplane's death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveredPlace {
    /// Ordinal for the next extent.
    pub next_ordinal: u32,
    /// The last extent on disk.
    pub last_segment: u32,
    /// See `last_segment`.
    pub last_page: u32,
    /// Its link in the hash chain; zeros = none.
    pub chain_head: Link,
}

impl B2bua {
    /// Works off an event of the dataplane.
    pub fn on_link_event(&mut self, event: Event, now: &Moment) {
        if !self.recorder_event(&event, now) {
            self.on_call_event(event, now);
        }
        self.deliver_orders(now);
    }

    fn on_call_event(&mut self, event: Event, now: &Moment) {
        // Left unread by an earlier control: told of before its call is known to us.
        let unknown = session_of(&event).is_some_and(|key| !self.calls.contains_key(&key));
        if unknown && self.awaits_snapshot() && self.unread.len() < UNREAD_MAX {
            self.unread.push(event);
            return;
        }
        match event {
            Event::Done { request } => self.link_reply(request, None, now),
            Event::Failed { request, reason } => self.link_reply(request, Some(reason), now),
            Event::SessionOpened {
                request,
                session,
                ports,
                ..
            } => {
                let mut fits = true;
                self.with_call(session, now, |_, call| fits = call.media.opened(&ports));
                self.link_reply(request, (!fits).then_some(FailReason::Internal), now);
            }
            Event::Digit {
                session,
                side,
                event,
                duration_ms,
            } => {
                self.with_call(session, now, |b2bua, call| {
                    b2bua.on_digit(call, side, event, duration_ms, now);
                });
            }
            Event::MediaTimeout { session, .. } => {
                self.with_call(session, now, |b2bua, call| {
                    let reason = ("SIP", 480, "no media");
                    b2bua.end_call(call, EndedBy::Us, Some(reason), now);
                });
            }
            Event::SessionEnded { session } => {
                self.with_call(session, now, |b2bua, call| {
                    call.closed = true;
                    b2bua.end_call(call, EndedBy::Us, Some(("SIP", 480, "session lost")), now);
                });
            }
            Event::Alarm { code, active } => self.on_alarm(code, active, now),
            Event::SnapshotSession(session) => self.snapshot.push(session),
            Event::SnapshotEnd { request } if request == self.snapshot_request => {
                self.snapshot_request = 0;
                self.reconcile(now);
            }
            Event::SnapshotEnd { .. } => {}
            other => {
                let Some(session) = session_of(&other) else {
                    return;
                };
                let request = match &other {
                    Event::RecordingState { request, .. } => *request,
                    _ => 0,
                };
                self.with_call(session, now, |b2bua, call| {
                    b2bua.on_session_event(call, other, now);
                });
                self.link_reply(request, None, now);
            }
        }
    }

    /// What concerns one session's media and recordings.
    pub(super) fn on_session_event(&mut self, call: &mut Call, event: Event, now: &Moment) {
        match event {
            Event::EndpointLearned { .. } | Event::SourceChanged { .. } => call.media.learn(&event),
            Event::Played {
                to,
                play,
                from_mono_ns,
                to_mono_ns,
                packets,
                played_ms,
                whole,
                ..
            } => {
                let heard = Heard {
                    to,
                    play,
                    from_mono_ns,
                    to_mono_ns,
                    packets,
                    played_ms,
                    whole,
                };
                self.on_played(call, heard, now);
            }
            Event::RecordingState {
                recording,
                phase,
                at_mono_ns,
                origin_mono_ns,
                streams,
                ..
            } => self.recording_state(
                call,
                recording,
                phase,
                at_mono_ns,
                origin_mono_ns,
                &streams,
                now,
            ),
            Event::RecordingProgress {
                recording,
                next_ordinal,
                last_segment,
                last_page,
                streams,
                ..
            } => {
                let Some(recording) = call.recording(recording) else {
                    return;
                };
                if recording.is_live() {
                    recording.note_streams(&streams);
                    recording.note_heard(now);
                }
                recording.next_ordinal = next_ordinal;
                recording.last_segment = last_segment;
                recording.last_page = last_page;
            }
            Event::RecordingClosed {
                recording,
                extents,
                last_segment,
                last_page,
                bytes,
                chain_head,
                streams,
                ..
            } => {
                let Some(one) = call.recording(recording) else {
                    return;
                };
                one.note_streams(&streams);
                one.extents += extents;
                one.bytes += bytes;
                (one.last_segment, one.last_page) = (last_segment, last_page);
                one.chain_head = chain_head;
                if one.is_live() {
                    // The dataplane ended it by itself: its session is gone.
                    one.failure = true;
                }
                self.recording_closed(call, recording, now);
            }
            _ => {}
        }
    }

    /// The id of the live call that an event concerns.
    pub fn call_of(&self, event: &Event) -> Option<&str> {
        let session = match event {
            Event::MediaTimeout { session, .. } | Event::Digit { session, .. } => *session,
            other => session_of(other)?,
        };
        self.calls.get(&session).map(|call| call.object.id.as_str())
    }

    fn awaits_snapshot(&self) -> bool {
        self.snapshot_request != 0
    }

    /// The answer to one command of a batch.
    fn link_reply(&mut self, request: u64, failed: Option<FailReason>, now: &Moment) {
        let Some((key, id)) = self.requests.remove(&request) else {
            return;
        };
        self.with_call(key, now, |b2bua, call| {
            let Some(index) = call.batches.iter().position(|batch| batch.id == id) else {
                return;
            };
            let batch = &mut call.batches[index];
            batch.open -= 1;
            batch.failed = batch.failed.or(failed);
            if batch.open == 0 {
                let batch = call.batches.remove(index);
                if call.batches.is_empty() {
                    // A call rests most of its time.
                    call.batches = Vec::new();
                }
                b2bua.step(call, batch.then, batch.failed, now);
            }
        });
    }

    /// Goes on after a batch.
    pub(super) fn step(
        &mut self,
        call: &mut Call,
        step: Step,
        failed: Option<FailReason>,
        now: &Moment,
    ) {
        match step {
            Step::Invite => self.invite(call, failed, now),
            Step::Early { response, sdp } => self.pass_early(call, &response, sdp, now),
            Step::Answer { response, sdp } => {
                self.answer(call, &response, sdp, failed.is_some(), now);
            }
            Step::LateAnswer { response, sdp } => self.late_answer(call, &response, sdp, now),
            Step::Reoffer => self.reoffer(call, failed, now),
            Step::Reanswer { response, sdp } => self.reanswer(call, &response, sdp, now),
            Step::ReofferAcknowledged { sdp } => self.reoffer_acknowledged(call, sdp, now),
            Step::Transferred { owed } => self.transferred(call, *owed, now),
            Step::Realigned {
                side,
                client,
                sequence,
            } => self.realigned(call, side, client, sequence, now),
            Step::RecordingStarted { number, reply } => {
                self.recording_started(call, number, failed, reply, now);
                self.recording_session_started(call, now);
            }
            Step::RecordingSession(step) => self.recording_session_step(call, step, failed, now),
            Step::RecordingChanged { number, reply } => {
                self.recording_changed(call, number, failed, reply, now);
            }
            Step::Sounding { side } => self.sounding_answered(call, side, failed, now),
            Step::Restart { number } => self.recording_restarted(call, number, failed, now),
            Step::Describe { then } => match failed {
                Some(_) => self.step(call, *then, failed, now),
                None => {
                    let commands = self.leg_commands(call);
                    self.batch(call, commands, *then, now);
                }
            },
            Step::Reinstall => self.reinstall_rest(call, failed, now),
        }
    }

    /// Batches that the dataplane left unanswered have failed.
    pub(super) fn expire_batches(&mut self, call: &mut Call, now: &Moment) {
        self.fail_batches(call, now, |batch| batch.deadline <= now.instant);
    }

    fn fail_batches(
        &mut self,
        call: &mut Call,
        now: &Moment,
        choose: impl Fn(&crate::call::Batch) -> bool,
    ) {
        let (failed, kept) = std::mem::take(&mut call.batches)
            .into_iter()
            .partition(choose);
        call.batches = kept;
        let failed: Vec<crate::call::Batch> = failed;
        for batch in failed {
            self.requests
                .retain(|_, owner| *owner != (call.key, batch.id));
            self.step(call, batch.then, Some(FailReason::Internal), now);
        }
    }

    fn on_alarm(&mut self, code: AlarmCode, active: bool, now: &Moment) {
        let (name, message) = match code {
            AlarmCode::CaptureDisk => ("capture_disk", "capture cannot be written to disk"),
            AlarmCode::CaptureNoExtent => ("capture_no_extent", "no memory for capture is left"),
            AlarmCode::PortsShort => ("ports_short", "media ports run short"),
        };
        self.alarm(code as u16, name, message, active, now);
    }

    pub(super) fn alarm(
        &mut self,
        code: u16,
        name: &str,
        message: &str,
        active: bool,
        now: &Moment,
    ) {
        let changed = if active {
            self.alarms.insert(code)
        } else {
            self.alarms.remove(&code)
        };
        if changed {
            let kind = if active {
                EventKind::AlarmRaised
            } else {
                EventKind::AlarmCleared
            };
            self.events.publish(
                kind,
                now.utc,
                &Subject::Alarm {
                    code: name,
                    message,
                },
            );
        }
    }

    /// Whether capture is known to fail.
    pub fn capture_failing(&self) -> bool {
        let codes = [
            AlarmCode::CaptureDisk as u16,
            AlarmCode::CaptureNoExtent as u16,
        ];
        codes.iter().any(|code| self.alarms.contains(code))
    }

    /// A dataplane is attached, this process's first, a new one or the old one again: what it
    /// knows is compared with what we know.
    pub fn attached(&mut self) {
        self.ask_snapshot();
    }

    /// Events were lost.
    pub fn overrun(&mut self) {
        self.ask_snapshot();
    }

    fn ask_snapshot(&mut self) {
        self.snapshot.clear();
        self.unread.clear();
        let open = self
            .calls
            .values()
            .filter(|call| !call.media.open.is_empty());
        self.snapshot_of = open.map(|call| call.key).collect();
        self.snapshot_request = self.next_request;
        self.command(Command::Snapshot);
    }

    /// The dataplane died. What was captured and is not on disk is recovered by the caller, who
    /// then says so by [`Self::recovered`].
    pub fn dataplane_died(&mut self, now: &Moment) {
        self.dataplane_up = false;
        self.snapshot_request = 0;
        // What the dead one complained of is over; the next one says so itself.
        for code in ALARMS {
            self.on_alarm(code, false, now);
        }
        self.alarm(
            DATAPLANE_DOWN,
            "dataplane_down",
            "the dataplane is down",
            true,
            now,
        );
        self.commands.clear();
        self.loaded.clear();
        self.recounting = self
            .live()
            .0
            .into_iter()
            .map(|number| (number, false))
            .collect();
        for key in self.keys() {
            self.with_call(key, now, |b2bua, call| {
                for recording in &mut call.recordings {
                    if recording.phase != RecordingPhase::Done {
                        recording.dataplane_died(now);
                    }
                }
                b2bua.fail_batches(call, now, |_| true);
                call.sounding.iter_mut().for_each(Sounding::forget_told);
            });
        }
        let (client, mut context) = self.recorders(now);
        client.dataplane_died(&mut context);
        // What is left was asked for calls that are over.
        let calls = &self.calls;
        self.requests.retain(|_, (key, _)| calls.contains_key(key));
    }

    /// Places of the recordings after the dead dataplane's extents were recovered; each of them is
    /// [recounted](Self::recounted) afterwards. Others that were on their way to the disk are as
    /// complete as they will ever be.
    pub fn recovered(&mut self, places: &HashMap<u64, RecoveredPlace>, now: &Moment) {
        self.recounting
            .retain(|number, _| places.contains_key(number));
        for key in self.keys() {
            self.with_call(key, now, |b2bua, call| {
                for recording in &mut call.recordings {
                    if let Some(place) = places.get(&recording.number) {
                        recording.next_ordinal = place.next_ordinal;
                        recording.last_segment = place.last_segment;
                        recording.last_page = place.last_page;
                        recording.chain_head = place.chain_head;
                    }
                }
                let finishing: Vec<u64> = call
                    .recordings
                    .iter()
                    .filter(|one| one.phase == RecordingPhase::Finishing)
                    .map(|one| one.number)
                    .collect();
                for number in finishing {
                    match b2bua.recounting.get_mut(&number) {
                        Some(closes) => *closes = true,
                        None => b2bua.recording_closed(call, number, now),
                    }
                }
                if call.phase == Phase::Ending {
                    b2bua.abandon_recordings(call, now);
                }
            });
        }
    }

    /// A recording's streams as the dead dataplane captured them; none: they cannot be counted. One
    /// that has ended meanwhile is closed now.
    pub fn recounted(&mut self, number: u64, captured: &[StreamCounts], now: &Moment) {
        let closes = self.recounting.remove(&number) == Some(true);
        for key in self.keys() {
            self.with_call(key, now, |b2bua, call| {
                let recording = call.recording(number);
                let Some(recording) = recording.filter(|one| one.phase != RecordingPhase::Done)
                else {
                    return;
                };
                if !captured.is_empty() {
                    recording.recounted(captured.to_vec());
                }
                if closes {
                    b2bua.recording_closed(call, number, now);
                } else {
                    b2bua.save(call);
                }
            });
        }
    }

    pub(super) fn keys(&self) -> Vec<u64> {
        self.calls.keys().copied().collect()
    }

    /// The snapshot is complete: sessions that only we know are installed anew, sessions that only
    /// the dataplane knows become calls again or are closed.
    fn reconcile(&mut self, now: &Moment) {
        let sessions = std::mem::take(&mut self.snapshot);
        let known: HashSet<u64> = sessions.iter().map(|session| session.session).collect();
        self.dataplane_up = true;
        let (left, sessions): (Vec<_>, Vec<_>) = sessions
            .into_iter()
            .filter(|session| !self.siprec.owns_session(session.session))
            .partition(|session| Left::read(session).is_some());
        self.siprec.left_behind(left.iter().filter_map(Left::read));
        for session in sessions {
            if self.calls.contains_key(&session.session) {
                continue;
            }
            let key = session.session;
            if !self.restore(session, now) {
                self.command(Command::SessionClose { session: key });
            }
        }
        for session in self.siprec.take_unclaimed() {
            self.command(Command::SessionClose { session });
        }
        self.unread.clear();
        // Those that came since are being installed as it is.
        for key in std::mem::take(&mut self.snapshot_of) {
            if !known.contains(&key) {
                self.with_call(key, now, |b2bua, call| b2bua.reinstall(call, now));
            }
        }
        self.alarm(
            DATAPLANE_DOWN,
            "dataplane_down",
            "the dataplane is down",
            false,
            now,
        );
    }

    /// Tells a new dataplane of a call: same ports, what was learned, the recording goes on.
    fn reinstall(&mut self, call: &mut Call, now: &Moment) {
        if call.media.open.is_empty() || call.closed || call.phase == Phase::Preparing {
            return;
        }
        let command = call.media.open_command();
        self.batch(call, vec![command], Step::Reinstall, now);
    }

    fn reinstall_rest(&mut self, call: &mut Call, failed: Option<FailReason>, now: &Moment) {
        if failed.is_some() && !self.dataplane_up {
            // This one died too: the next one is told all over again.
            return;
        }
        if let Some(reason) = failed {
            tracing::warn!(call = %call.object.id, ?reason, "a call's media cannot be restored");
            return self.end_call(call, EndedBy::Us, Some(("SIP", 503, "media lost")), now);
        }
        for command in call.media.reinstall() {
            self.command(command);
        }
        let (client, mut context) = self.recorders(now);
        client.reinstall(call.key, &mut context);
        let session = call.key;
        let fact = self.restart_fact(call);
        let Some(recording) = call.live_recording() else {
            return self.save(call);
        };
        let (number, paused) = (recording.number, recording.phase == RecordingPhase::Paused);
        let start = Command::RecordingStart(RecordingStart {
            session,
            recording: number,
            origin_mono_ns: recording.origin_mono_ns,
            first_ordinal: recording.next_ordinal,
            prev_segment: recording.last_segment,
            prev_page: recording.last_page,
            open_fact: fact,
        });
        if recording.phase == RecordingPhase::Starting {
            // The dead one never confirmed it.
            self.batch(
                call,
                vec![start],
                Step::RecordingStarted {
                    number,
                    reply: None,
                },
                now,
            );
            return self.save(call);
        }
        let mut commands = vec![start];
        if paused {
            commands.push(Command::RecordingPause {
                session,
                recording: number,
            });
        }
        self.batch(call, commands, Step::Restart { number }, now);
        self.save(call);
    }
}
