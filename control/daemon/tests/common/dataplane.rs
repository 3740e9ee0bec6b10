//! A dataplane as control sees it: it gives ports and does as it is told.

use std::collections::BTreeMap;

use trunkline_link::message::{
    Command, Event, FailReason, ForkState, LegUpdate, MediaOpen, RecordingPhase, Side,
    SnapshotSession, StreamReceipt, leg_flags,
};

/// A session beside the call's, into which its media is forked.
#[derive(Default)]
pub struct Fork {
    pub media: Vec<MediaOpen>,
    pub legs: BTreeMap<(u8, Side), LegUpdate>,
    pub state: Option<ForkState>,
    record: Vec<u8>,
}

impl Fork {
    /// Whether what a side says leaves for a recorder.
    pub fn sends(&self, media: u8, side: Side) -> bool {
        let leg = self.legs.get(&(media, side));
        let may = leg.is_some_and(|leg| leg.flags & leg_flags::MAY_SEND != 0 && leg.rtp.is_some());
        may && self.state == Some(ForkState::Running)
    }
}

#[derive(Default)]
pub struct Dataplane {
    pub forks: BTreeMap<u64, Fork>,
    pub commands: Vec<Command>,
    pub legs: BTreeMap<(u8, Side), LegUpdate>,
    pub ports: Vec<[u16; 2]>,
    pub recording: Option<u64>,
    pub closed: bool,
    pub refuses_ports: bool,
    pub refuses_plays: bool,
    /// The end of a recording is told to the next control only.
    pub holds_closed: bool,
    unread: Vec<Event>,
    session: u64,
    media: Vec<MediaOpen>,
    record: Vec<u8>,
    phase: Option<RecordingPhase>,
    origin: u64,
}

fn stream(side: Side) -> StreamReceipt {
    StreamReceipt {
        side,
        media: 0,
        ssrc: 7 + side as u32,
        expected: 100,
        written: 100,
        lost: 0,
        dropped: [0; 9],
        duplicates: 0,
        reordered: 0,
        bytes: 16_000,
        first_ns: 0,
        last_ns: 0,
        covered_ns: 2_000_000_000,
        first_sequence: 1,
    }
}

impl Dataplane {
    /// The session opened last.
    pub fn session(&self) -> u64 {
        self.session
    }

    pub fn take(&mut self, commands: Vec<(u64, Command)>, now_ns: u64) -> Vec<Event> {
        let mut events = Vec::new();
        for (request, command) in commands {
            self.commands.push(command.clone());
            self.one(request, command, now_ns, &mut events);
        }
        events
    }

    fn one(&mut self, request: u64, command: Command, now_ns: u64, events: &mut Vec<Event>) {
        // Which recording of which session a change is of.
        let of = match &command {
            Command::RecordingStart(start) => (start.session, start.recording),
            Command::RecordingPause { session, recording }
            | Command::RecordingResume { session, recording }
            | Command::RecordingStop { session, recording } => (*session, *recording),
            _ => (0, 0),
        };
        let phase = match command {
            Command::SessionOpen(open) if open.beside != 0 => {
                if self.session != open.beside {
                    let reason = FailReason::NotFound;
                    events.push(Event::Failed { request, reason });
                    return;
                }
                let known = self.forks.len();
                let fork = self.forks.entry(open.session).or_default();
                for (index, mut media) in open.media.into_iter().enumerate() {
                    let first = u16::try_from(20_000 + 100 * known + 4 * index).unwrap();
                    if media.ports == [0, 0] {
                        media.ports = [first, first + 2];
                    }
                    if index >= fork.media.len() {
                        fork.media.push(media);
                    }
                }
                events.push(Event::SessionOpened {
                    request,
                    session: open.session,
                    worker: 0,
                    ports: fork.media.iter().map(|media| media.ports).collect(),
                });
                return;
            }
            Command::PlayStart(_) if self.refuses_plays => {
                events.push(Event::Failed {
                    request,
                    reason: FailReason::NotFound,
                });
                return;
            }
            Command::SessionOpen(open) => {
                if self.refuses_ports {
                    events.push(Event::Failed {
                        request,
                        reason: FailReason::NoPorts,
                    });
                    return;
                }
                self.closed = false;
                self.session = open.session;
                for (index, media) in open.media.iter().enumerate() {
                    if index >= self.ports.len() {
                        let wanted = media.ports;
                        let first = 16_384 + 4 * u16::try_from(index).unwrap();
                        let fresh = [first, first + 2];
                        self.ports
                            .push(if wanted == [0, 0] { fresh } else { wanted });
                    }
                }
                self.media = open.media;
                for (media, ports) in self.media.iter_mut().zip(&self.ports) {
                    media.ports = *ports;
                }
                let (session, ports) = (self.session, self.ports.clone());
                events.push(Event::SessionOpened {
                    request,
                    session,
                    worker: 0,
                    ports,
                });
                return;
            }
            Command::LegUpdate(update) if self.forks.contains_key(&update.session) => {
                let fork = self.forks.get_mut(&update.session).unwrap();
                fork.legs.insert((update.media, update.side), update);
                None
            }
            Command::SessionRecord { session, record } if self.forks.contains_key(&session) => {
                self.forks.get_mut(&session).unwrap().record = record;
                None
            }
            Command::SessionClose { session } if self.forks.remove(&session).is_some() => None,
            Command::ForkStart { target, .. } => {
                let state = &mut self.forks.get_mut(&target).unwrap().state;
                state.get_or_insert(ForkState::Running);
                None
            }
            Command::ForkState { target, state, .. } => {
                self.forks.get_mut(&target).unwrap().state = Some(state);
                None
            }
            Command::ForkStop { target, .. } => {
                self.forks.get_mut(&target).unwrap().state = None;
                None
            }
            Command::LegUpdate(update) => {
                self.legs.insert((update.media, update.side), update);
                None
            }
            Command::SessionRecord { record, .. } => {
                self.record = record;
                None
            }
            Command::SessionClose { .. } => {
                self.closed = true;
                self.session = 0;
                None
            }
            Command::RecordingStart(start) => {
                self.recording = Some(start.recording);
                self.origin = if start.origin_mono_ns == 0 {
                    now_ns
                } else {
                    start.origin_mono_ns
                };
                Some(RecordingPhase::Running)
            }
            Command::RecordingPause { .. } => Some(RecordingPhase::Paused),
            Command::RecordingResume { .. } => Some(RecordingPhase::Running),
            Command::RecordingStop { .. } => Some(RecordingPhase::Stopped),
            Command::RecordingFact { .. }
            | Command::DigitSend(_)
            | Command::SourceLoad(_)
            | Command::PlayStart(_)
            | Command::PlayStop { .. }
            | Command::Drain => None,
            Command::RecordingFinish { session, recording } => {
                events.push(Event::Done { request });
                let told = if self.holds_closed {
                    self.recording = None;
                    &mut self.unread
                } else {
                    &mut *events
                };
                told.push(Event::RecordingClosed {
                    session,
                    recording,
                    extents: 3,
                    last_segment: 1,
                    last_page: 5,
                    bytes: 40_000,
                    chain_head: [0xab; 32],
                    streams: vec![stream(Side::Caller), stream(Side::Callee)],
                });
                return;
            }
            Command::Snapshot => {
                if self.session != 0 {
                    events.push(Event::SnapshotSession(SnapshotSession {
                        session: self.session,
                        media: self.media.clone(),
                        interface: [0, 0],
                        recording: self.recording.unwrap_or(0),
                        phase: self.phase.unwrap_or(RecordingPhase::Running),
                        origin_mono_ns: self.origin,
                        record: self.record.clone(),
                    }));
                }
                for (session, fork) in &self.forks {
                    events.push(Event::SnapshotSession(SnapshotSession {
                        session: *session,
                        media: fork.media.clone(),
                        interface: [0, 0],
                        recording: 0,
                        phase: RecordingPhase::Running,
                        origin_mono_ns: 0,
                        record: fork.record.clone(),
                    }));
                }
                events.append(&mut self.unread);
                events.push(Event::SnapshotEnd { request });
                return;
            }
        };
        match phase {
            None => events.push(Event::Done { request }),
            Some(phase) => {
                let starts = self.phase.is_none() || self.phase == Some(RecordingPhase::Stopped);
                self.phase = Some(phase);
                events.push(Event::RecordingState {
                    request: if starts { 0 } else { request },
                    session: of.0,
                    recording: of.1,
                    phase,
                    at_mono_ns: now_ns,
                    origin_mono_ns: self.origin,
                    streams: vec![stream(Side::Caller), stream(Side::Callee)],
                });
                if starts {
                    events.push(Event::Done { request });
                }
            }
        }
    }
}
