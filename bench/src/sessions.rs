//! Opens many sessions in our dataplane over its link, as control does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use trunkline_link::attach::{ControlLink, SendError};
use trunkline_link::message::{
    CodecId, Command, Event, LegUpdate, MediaKind, MediaOpen, Payload, RecordingStart, SessionOpen,
    Side, leg_flags,
};

/// Commands under way at once.
const WINDOW: usize = 64;
const PATIENCE: Duration = Duration::from_secs(30);

/// A control's end of the link.
pub struct Sessions {
    link: ControlLink,
    request: u64,
}

impl Sessions {
    /// `None` while nobody listens there yet.
    #[must_use]
    pub fn attach(socket: &Path) -> Option<Self> {
        let link = ControlLink::connect(socket).ok()?;
        Some(Self { link, request: 0 })
    }

    /// Opens a session for each pair of parties; gives our ports towards both.
    ///
    /// # Errors
    /// The dataplane refuses one, or does not answer.
    pub fn open(&mut self, calls: &[[SocketAddr; 2]], record: bool) -> Result<Vec<[u16; 2]>> {
        let sessions = 1..=calls.len() as u64;
        let answers = self.ask_all(sessions.clone().map(|session| open(session, 0)).collect())?;
        let mut ports = vec![[0; 2]; calls.len()];
        for answer in answers {
            let Event::SessionOpened {
                session, ports: of, ..
            } = answer
            else {
                bail!("the dataplane answers {answer:?}");
            };
            ports[session as usize - 1] = of.first().copied().context("a session without ports")?;
        }
        let legs = calls
            .iter()
            .zip(sessions.clone())
            .flat_map(|(parties, session)| {
                Side::BOTH.map(|side| leg(session, side, parties[side as usize]))
            });
        self.ask_all(legs.collect())?;
        if record {
            self.ask_all(sessions.map(start_recording).collect())?;
        }
        Ok(ports)
    }

    /// Copies what the parties of the first `calls` sessions send to a recorder, each by a session of its own
    /// beside.
    ///
    /// # Errors
    /// As [`Sessions::open`].
    pub fn fork(&mut self, calls: usize, recorder: SocketAddr) -> Result<()> {
        let calls = calls as u64;
        let beside = |session: u64| (session, calls + session);
        let pairs = || (1..=calls).map(beside);
        let opens = pairs().map(|(session, target)| open(target, session));
        self.ask_all(opens.collect())?;
        let legs =
            pairs().flat_map(|(_, target)| Side::BOTH.map(|side| leg(target, side, recorder)));
        self.ask_all(legs.collect())?;
        let starts = pairs().map(|(session, target)| Command::ForkStart { session, target });
        self.ask_all(starts.collect())?;
        Ok(())
    }

    /// Throws away what the dataplane reported meanwhile, and shows that control is alive.
    pub fn drain(&mut self) {
        while let Ok(Some(_)) = self.link.poll_event() {}
    }

    /// Sends commands, a window of them at once, and gives their answers.
    fn ask_all(&mut self, commands: Vec<Command>) -> Result<Vec<Event>> {
        let deadline = Instant::now() + PATIENCE;
        let mut answers = Vec::with_capacity(commands.len());
        let mut waiting = HashMap::new();
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() || !waiting.is_empty() {
            while waiting.len() < WINDOW
                && let Some(command) = commands.peek()
            {
                match self.link.send(self.request + 1, command) {
                    Err(SendError::Full) => break,
                    other => other?,
                }
                self.request += 1;
                waiting.insert(self.request, commands.next());
            }
            while let Some(event) = self.link.poll_event()? {
                let Some(request) = answered(&event) else {
                    continue;
                };
                let Some(command) = waiting.remove(&request) else {
                    continue;
                };
                if let Event::Failed { reason, .. } = event {
                    bail!("the dataplane refuses ({reason:?}): {command:?}");
                }
                answers.push(event);
            }
            if Instant::now() > deadline {
                bail!("the dataplane does not answer");
            }
            if !waiting.is_empty() {
                let mut files = [PollFd::new(self.link.event_fd(), PollFlags::POLLIN)];
                poll(&mut files, PollTimeout::from(100_u16))?;
            }
        }
        Ok(answers)
    }
}

fn answered(event: &Event) -> Option<u64> {
    match event {
        Event::Done { request }
        | Event::Failed { request, .. }
        | Event::SessionOpened { request, .. }
        | Event::RecordingState { request, .. } => Some(*request),
        _ => None,
    }
}

fn open(session: u64, beside: u64) -> Command {
    Command::SessionOpen(SessionOpen {
        session,
        interface: [0, 0],
        media_timeout_ms: 0,
        beside,
        media: vec![MediaOpen {
            kind: MediaKind::Audio,
            ports: [0, 0],
        }],
    })
}

fn leg(session: u64, side: Side, party: SocketAddr) -> Command {
    Command::LegUpdate(LegUpdate {
        session,
        media: 0,
        side,
        flags: leg_flags::LEARN | leg_flags::EXPECT_MEDIA | leg_flags::MAY_SEND,
        rtp: Some(party),
        rtcp: None,
        signalling: Some(party.ip()),
        payloads: vec![Payload {
            pt: 0,
            to_pt: 0,
            codec: CodecId::Pcmu,
            clock_hz: 8000,
        }],
        restore: None,
    })
}

fn start_recording(session: u64) -> Command {
    Command::RecordingStart(RecordingStart {
        session,
        recording: session,
        origin_mono_ns: 0,
        first_ordinal: 0,
        prev_segment: 0,
        prev_page: 0,
        // Of any length: calls do not begin all at once, so their extents do not fill all at once.
        open_fact: vec![b' '; (session * 611 % 7_000) as usize],
    })
}
