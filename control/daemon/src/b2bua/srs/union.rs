//! Several recording sessions of one communication session are one recording: a standby's beside the active
//! one's, and the one that follows when a client or its session border controller fails over.
//!
//! ```text
//! INVITE, the same session id, somebody who takes part in both ─┬─ the first records: its media session and recording
//!                                                               │    take the second's streams too (host and guest)
//!                                                               ├─ the first is being closed: wait, then
//!                                                               └─ it was closed not long ago: its recording goes on
//! ```

use std::time::Duration;

use trunkline_link::limits::MEDIA_MAX;
use trunkline_link::message::{Command, MediaKind, MediaOpen, RecordingStart, Side};
use trunkline_sdp::{Description, RelayKind};
use trunkline_sinks::object::{EndedBy, RecordingState};

use crate::b2bua::B2bua;
use crate::b2bua::end::{Reason, reason_header};
use crate::b2bua::record::open_fact;
use crate::call::media::Media;
use crate::call::recording::{Phase as Capture, Recording};
use crate::call::{Call, Phase, Step};
use crate::clock::Moment;
use crate::siprec::server::joined::{JOINED_MAX, Joined, is_same};
use crate::siprec::server::parties::Parties;

/// A recording that ended longer ago does not go on: whoever comes then has a recording of its own.
const GOES_ON_WITHIN: Duration = Duration::from_secs(300);
/// Recordings that may go on, at most.
const ENDED_MAX: usize = 1000;

/// A recording that ended and may go on.
#[derive(Debug)]
pub(in crate::b2bua) struct Ended {
    session: String,
    tenant: Option<String>,
    parties: Parties,
    recording: Recording,
    answered_mono_ns: u64,
    at: std::time::Instant,
}

impl B2bua {
    /// The call whose media session and recording a recording session's streams are in: its own, or its host.
    fn holder<'a>(&'a self, call: &'a Call) -> &'a Call {
        let host = call.host.and_then(|host| self.calls.get(&host));
        host.map_or(call, |host| host.as_ref())
    }

    /// The media session of that call, and its key.
    fn media_of<'a>(&'a mut self, call: &'a mut Call) -> (u64, &'a mut Media) {
        match call.host.and_then(|host| self.calls.get_mut(&host)) {
            Some(host) => (host.key, &mut host.media),
            None => (call.key, &mut call.media),
        }
    }

    /// The media that there are, with their ports.
    pub(super) fn open_media(&self, call: &Call) -> Vec<MediaOpen> {
        self.holder(call).media.open.clone()
    }

    /// Takes an offer in, or makes ours: each line that can be captured has its place.
    pub(super) fn take_lines(&mut self, call: &mut Call, offer: Option<(String, Description)>) {
        let holder = self.holder(call);
        let (opened, spare) = (holder.media.open.len(), spare_media(holder, call));
        let known = match (call.host, call.joined.is_empty()) {
            (None, true) => Parties::default(),
            _ => holder.heard_parties().unwrap_or_default(),
        };
        let Some(session) = &mut call.recording_session else {
            return;
        };
        session.lines.within(opened, spare);
        match offer {
            Some(offer) => session.offer(offer, &known),
            None => session.lines.propose(),
        }
        // What it has taken nobody else takes while ports are asked for.
        self.note_joined(call);
    }

    /// What asks for ports, where there are lines that have none.
    pub(super) fn more_ports(&mut self, call: &mut Call) -> Option<Command> {
        let open = self.open_media(call);
        let wanted = call.recording_session.as_ref()?.lines.wanted(&open);
        if wanted.len() == open.len() {
            return None;
        }
        let (_, media) = self.media_of(call);
        media.open = wanted;
        Some(media.open_command())
    }

    /// There were no ports to be had.
    pub(super) fn without_ports(&mut self, call: &mut Call) {
        let (_, media) = self.media_of(call);
        let given = media.open.iter().take_while(|one| one.ports != [0, 0]);
        let count = given.count();
        media.open.truncate(count);
    }

    /// What the dataplane has to know of the lines as they are.
    pub(super) fn line_commands(&mut self, call: &mut Call) -> Vec<Command> {
        let (signalling, nat) = (call.leg(Side::Caller).remote.ip(), self.config.sip.nat);
        let key = self.holder(call).key;
        let Some(session) = &call.recording_session else {
            return Vec::new();
        };
        let updates = session.lines.leg_updates(key, signalling, nat);
        self.note_joined(call);
        let (_, media) = self.media_of(call);
        updates
            .into_iter()
            .map(|update| media.leg_command(update))
            .collect()
    }

    /// The host knows how its guest stands.
    fn note_joined(&mut self, call: &Call) {
        let host = call.host.and_then(|host| self.calls.get_mut(&host));
        let joined = host.and_then(|host| host.joined.iter_mut().find(|one| one.key == call.key));
        if let (Some(joined), Some(session)) = (joined, &call.recording_session) {
            joined.follow(session);
        }
    }

    /// A recording rests while nobody sends anything by what is agreed, or should.
    pub(super) fn pause_commands(&mut self, call: &mut Call) -> Option<Command> {
        self.note_joined(call);
        let awaited = |one: &Call| {
            let session = one.recording_session.as_ref();
            session.is_some_and(|session| session.lines.awaits_answer())
        };
        let waits = awaited(call);
        let holder = match call.host.and_then(|host| self.calls.get_mut(&host)) {
            Some(host) => host.as_mut(),
            None => call,
        };
        let sends = holder.channels_sent()?.contains(&true) || waits || awaited(holder);
        let session = holder.key;
        let live = holder.live_recording()?;
        let recording = live.number;
        match (live.phase, sends) {
            (Capture::Running, false) => Some(Command::RecordingPause { session, recording }),
            (Capture::Paused, true) => Some(Command::RecordingResume { session, recording }),
            _ => None,
        }
    }

    /// Joins the recording of a session that says it is of the same communication session.
    pub(super) fn join_recording(&mut self, call: &mut Call, now: &Moment) {
        let Some(session) = &call.recording_session else {
            return;
        };
        let Some(wanted) = session.communication_session() else {
            return;
        };
        let named = session.named_parties(now.utc);
        let hosts = self.calls.values().filter(|other| {
            let records = other.recordings.last().is_some_and(Recording::is_capturing);
            let room = other.media.open.len() < MEDIA_MAX || !spare_media(other, call).is_empty();
            records
                && other.phase == Phase::Answered
                && other.host.is_none()
                && other.media.interface == call.media.interface
                && other.joined.len() < JOINED_MAX
                && room
                && is_of(other, &wanted, call, &named)
        });
        let host = hosts.max_by_key(|host| host.object.started_at.0);
        let Some(key) = host.map(|host| host.key) else {
            return;
        };
        let Some(host) = self.calls.get_mut(&key) else {
            return;
        };
        let recordings = host.recordings.last().map(|one| one.object.id.clone());
        call.object.recordings.extend(recordings);
        let last = host.joined.iter().map(|one| one.alternate).max();
        let alternate = last.unwrap_or(0).saturating_add(1);
        host.joined.push(Joined {
            key: call.key,
            sip_call_id: call.object.sip_call_id.clone(),
            present: true,
            alternate,
            ..Joined::default()
        });
        call.host = Some(key);
        if let Some(session) = &mut call.recording_session {
            session.lines.alternate = alternate;
        }
        tracing::info!(session = %call.object.id, "a recording session joins the recording of another");
    }

    /// The lines are armed: a recording begins, or goes on.
    pub(super) fn begin_recording(&mut self, call: &mut Call, now: &Moment) {
        if call.phase != Phase::Preparing {
            return;
        }
        let Some(session) = &call.recording_session else {
            return;
        };
        let wanted = session.communication_session();
        let named = session.named_parties(now.utc);
        if let Some(wanted) = wanted {
            let closing = self.calls.values().find_map(|other| {
                let last = other.recordings.last()?;
                let closes = other.phase == Phase::Ending && last.phase != Capture::Done;
                (closes && other.host.is_none() && is_of(other, &wanted, call, &named))
                    .then_some(last.number)
            });
            if let Some(number) = closing {
                self.awaiting_close.push((number, call.key));
                return;
            }
            let found = self.ended_recordings.iter().rposition(|ended| {
                ended.session == wanted
                    && ended.tenant == call.object.tenant
                    && ended.at + GOES_ON_WITHIN >= now.instant
                    && ended.recording.object.sip_call_ids.len() < JOINED_MAX
                    && is_same(&ended.parties, &named)
            });
            if let Some(ended) = found.and_then(|index| self.ended_recordings.remove(index)) {
                return self.go_on(call, ended, now);
            }
        }
        self.link_sessions(call);
        self.start_recording(call, None, now);
    }

    fn go_on(&mut self, call: &mut Call, ended: Ended, now: &Moment) {
        let mut recording = ended.recording;
        recording.go_on();
        if let Some(session) = &call.recording_session {
            recording.one_channel &= !session.lines.has_two_channels();
        }
        call.answered_mono_ns = ended.answered_mono_ns;
        let mut parties = Some(ended.parties);
        for sip_call_id in &recording.object.sip_call_ids {
            call.joined.push(Joined {
                sip_call_id: sip_call_id.clone(),
                parties: parties.take().unwrap_or_default(),
                ..Joined::default()
            });
        }
        self.metrics.recording_expected();
        call.object.recording_expected = true;
        let number = recording.number;
        let start = Command::RecordingStart(RecordingStart {
            session: call.key,
            recording: number,
            origin_mono_ns: recording.origin_mono_ns,
            first_ordinal: recording.next_ordinal,
            prev_segment: recording.last_segment,
            prev_page: recording.last_page,
            open_fact: open_fact(call, &recording),
        });
        call.object.recordings.push(recording.object.id.clone());
        call.recordings.push(recording);
        let then = Step::RecordingStarted {
            number,
            reply: None,
        };
        self.batch(call, vec![start], then, now);
    }

    /// A recording is closed: should its call's client have failed over, it goes on.
    pub(in crate::b2bua) fn recording_session_closed(
        &mut self,
        call: &Call,
        recording: Recording,
        now: &Moment,
    ) {
        let Some(session) = &call.recording_session else {
            return;
        };
        let number = recording.number;
        // What is discarded with its end does not go on.
        let kept = recording.object.state != RecordingState::Failed
            && !recording.failure
            && recording.object.kept != Some(false);
        let named = session.communication_session();
        if let (Some(named), Some(parties), true) = (named, call.heard_parties(), kept)
            && !session.is_over()
        {
            let limit = now.instant.checked_sub(GOES_ON_WITHIN);
            self.ended_recordings
                .retain(|one| limit.is_none_or(|limit| one.at >= limit));
            if self.ended_recordings.len() >= ENDED_MAX {
                self.ended_recordings.pop_front();
            }
            self.ended_recordings.push_back(Ended {
                session: named,
                tenant: call.object.tenant.clone(),
                parties,
                recording,
                answered_mono_ns: call.answered_mono_ns,
                at: now.instant,
            });
        }
        let awaiting = std::mem::take(&mut self.awaiting_close);
        let (ready, others) = awaiting.into_iter().partition(|(one, _)| *one == number);
        self.awaiting_close = others;
        let ready: Vec<(u64, u64)> = ready;
        for (_, key) in ready {
            self.with_call(key, now, |b2bua, call| b2bua.begin_recording(call, now));
        }
    }

    /// What a guest's documents say is told to the recording that it is in.
    pub(super) fn follow_joined(&mut self, call: &Call, host: u64, now: &Moment) {
        self.note_joined(call);
        self.with_call(host, now, |b2bua, host| b2bua.tell_participants(host));
    }

    /// The client of a session has left, or is lost: while another session is in its recording, that goes on.
    pub(in crate::b2bua) fn outlive_client(
        &mut self,
        call: &mut Call,
        reason: Option<Reason<'_>>,
        now: &Moment,
    ) -> bool {
        let others = call.joined.iter().any(|one| one.present);
        let Some(session) = &mut call.recording_session else {
            return false;
        };
        if call.phase != Phase::Answered || !others || session.ended_at.is_some() {
            return false;
        }
        session.ended_at = Some(now.utc);
        session.lines.gone = true;
        session.parties.leave(now.utc);
        if let Some(reason) = reason {
            call.leg_mut(Side::Caller).acknowledged = true;
            self.send_bye_with(call, Side::Caller, Some(reason_header(reason)), now);
        }
        let leg = call.leg_mut(Side::Caller);
        (leg.over, leg.session) = (true, None);
        for command in self.line_commands(call) {
            self.command(command);
        }
        if let Some(command) = self.pause_commands(call) {
            self.command(command);
        }
        self.tell_participants(call);
        call.announced = true;
        self.served_session_over(call, now);
        self.save(call);
        true
    }

    /// A session ends. A guest leaves its host, which ends with the last one; a host takes its guests along.
    pub(in crate::b2bua) fn end_joined(&mut self, call: &mut Call, now: &Moment) {
        if let Some(host) = call.host {
            return self.leave_host(call, host, now);
        }
        let guests = call.joined.iter().filter(|one| one.present);
        let guests: Vec<u64> = guests.map(|one| one.key).collect();
        for guest in guests {
            self.with_call(guest, now, |b2bua, guest| {
                let reason = Some(("SIP", 480, "the recording ended"));
                b2bua.end_call(guest, EndedBy::Us, reason, now);
            });
        }
    }

    fn leave_host(&mut self, call: &mut Call, host: u64, now: &Moment) {
        if let Some(session) = &mut call.recording_session {
            session.lines.gone = true;
        }
        for command in self.line_commands(call) {
            self.command(command);
        }
        let (guest, by) = (call.key, call.object.ended_by.unwrap_or(EndedBy::Us));
        self.with_call(host, now, |b2bua, host| {
            let mut others = host.joined.iter().filter(|one| one.key != guest);
            let alone = !others.any(|one| one.present);
            let left = host.recording_session.as_ref();
            let last = alone && left.is_some_and(|session| session.ended_at.is_some());
            for one in host.joined.iter_mut().filter(|one| one.key == guest) {
                // Who is there until the recording's end has not left it.
                one.leave((!last).then_some(now.utc));
                one.saved = None;
            }
            if last {
                return b2bua.end_call_with(host, by, None, now);
            }
            if let Some(command) = b2bua.pause_commands(host) {
                b2bua.command(command);
            }
            b2bua.tell_participants(host);
            b2bua.save(host);
        });
    }
}

/// Whether a call is of a communication session, and not another's that bears the same id.
fn is_of(other: &Call, wanted: &str, call: &Call, named: &Parties) -> bool {
    let session = other.recording_session.as_ref();
    let same = session.and_then(|one| one.communication_session());
    same.as_deref() == Some(wanted)
        && other.key != call.key
        && other.object.tenant == call.object.tenant
        && (other.heard_parties()).is_some_and(|heard| is_same(&heard, named))
}

/// Media of a call's session that no recording session uses any more.
fn spare_media(holder: &Call, asker: &Call) -> Vec<(u8, RelayKind)> {
    let own = holder.recording_session.iter();
    let own = own.filter(|session| !session.lines.gone);
    let asking = asker.recording_session.iter();
    let sessions = own.chain(asking).flat_map(|session| session.lines.media());
    let joined = holder.joined.iter().filter(|one| one.present);
    let joined = joined.flat_map(|one| one.media.iter().copied());
    let used: Vec<u8> = sessions.chain(joined).map(|(media, _)| media).collect();
    let kind = |open: &MediaOpen| match open.kind {
        MediaKind::Audio => RelayKind::Audio,
        MediaKind::OpaqueRtp => RelayKind::OpaqueRtp,
        MediaKind::OpaqueDatagram => RelayKind::OpaqueDatagram,
    };
    let all = (0..).zip(&holder.media.open);
    all.filter(|(index, _)| !used.contains(index))
        .map(|(index, open)| (index, kind(open)))
        .collect()
}
