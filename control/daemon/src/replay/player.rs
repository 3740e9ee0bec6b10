//! One replay: it waits for the recording to be whole, gives ports, and sends frame after frame when its time
//! has come.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use trunkline_link::message::{Command, Event, FailReason, Side};
use trunkline_sinks::library::Library;
use trunkline_sn3::capture::CaptureFacts;
use trunkline_sn3::frame::flags;
use trunkline_sn3::{Capture, Frame, FrameKind};

use super::line::Line;
use super::{Missed, News};

/// A recording is on disk that long after its call, at the latest.
const FINISH_PATIENCE: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often what was sent is told.
const TELL: Duration = Duration::from_secs(1);

/// See [`super`].
pub(super) struct Player {
    missed: Missed,
    library: Arc<Library>,
    news: mpsc::Sender<News>,
    lines: Vec<Line>,
    /// When the first moment of what was missed was sent.
    began: Option<Instant>,
    /// The call's session.
    call: u64,
}

/// The replay is closed.
struct Closed;

impl Player {
    pub fn new(missed: Missed, library: Arc<Library>, news: mpsc::Sender<News>) -> Self {
        Self {
            missed,
            library,
            news,
            lines: Vec::new(),
            began: None,
            call: 0,
        }
    }

    /// Runs until it is closed.
    pub fn run(mut self, orders: &Receiver<(u64, Command)>) {
        let Ok((request, media)) = self.first_open(orders) else {
            return;
        };
        let ready = match self.capture(orders) {
            Err(Closed) => return,
            Ok(Err(why)) => Err((FailReason::NotFound, why)),
            Ok(Ok(capture)) => match self.bind(media) {
                Ok(ports) => Ok((capture, ports)),
                Err(error) => Err((FailReason::NoPorts, error.to_string())),
            },
        };
        match ready {
            Ok((capture, ports)) => {
                self.tell(Event::SessionOpened {
                    request,
                    session: self.missed.session,
                    worker: 0,
                    ports,
                });
                let _ = self.play(&capture, orders);
            }
            Err((reason, why)) => {
                self.tell(Event::Failed { request, reason });
                self.over(Some(why));
                // Whatever else is asked of it is vain until it is closed.
                while let Ok((request, command)) = orders.recv() {
                    if self.obey(request, command).is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn tell(&self, event: Event) {
        // Control is gone only when the process ends.
        let _ = self.news.blocking_send(News::Link(event));
    }

    fn over(&self, failed: Option<String>) {
        let session = self.missed.session;
        let _ = self.news.blocking_send(News::Over { session, failed });
    }

    /// The request that asks for ports, and for how many m-lines.
    fn first_open(&mut self, orders: &Receiver<(u64, Command)>) -> Result<(u64, usize), Closed> {
        loop {
            match orders.recv() {
                Ok((request, Command::SessionOpen(open))) => {
                    return Ok((request, open.media.len()));
                }
                Ok((request, command)) => self.obey(request, command)?,
                Err(_) => return Err(Closed),
            }
        }
    }

    /// The recording, once it is whole; why there is none.
    fn capture(
        &mut self,
        orders: &Receiver<(u64, Command)>,
    ) -> Result<Result<Capture, String>, Closed> {
        let deadline = Instant::now() + FINISH_PATIENCE;
        loop {
            let stored = match self.library.catalog.recording(&self.missed.recording) {
                Ok(stored) => stored.filter(|stored| !stored.is_deleted()),
                Err(error) => return Ok(Err(error.to_string())),
            };
            match stored {
                Some(stored) if stored.recording.state.is_final() => {
                    return Ok(match self.library.capture(&stored) {
                        Ok(Some(capture)) => Ok(capture),
                        Ok(None) => Err("nothing of the recording here is on disk".to_owned()),
                        Err(error) => Err(error.to_string()),
                    });
                }
                Some(_) if Instant::now() < deadline => {}
                Some(_) => return Ok(Err("the recording here does not end".to_owned())),
                None => return Ok(Err("the recording here is gone".to_owned())),
            }
            match orders.recv_timeout(LOOK) {
                Ok((request, command)) => self.obey(request, command)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Closed),
            }
        }
    }

    fn bind(&mut self, media: usize) -> std::io::Result<Vec<[u16; 2]>> {
        let mut ports = Vec::new();
        for media in 0..u8::try_from(media).unwrap_or(u8::MAX) {
            let caller = Line::bind(media, Side::Caller, self.missed.address)?;
            let callee = Line::bind(media, Side::Callee, self.missed.address)?;
            ports.push([caller.port()?, callee.port()?]);
            self.lines.extend([caller, callee]);
        }
        Ok(ports)
    }

    fn obey(&mut self, request: u64, command: Command) -> Result<(), Closed> {
        let mut closes = false;
        match command {
            Command::LegUpdate(update) => {
                let of = |line: &&mut Line| line.media == update.media && line.side == update.side;
                if let Some(line) = self.lines.iter_mut().find(of) {
                    line.aim(update);
                }
            }
            Command::ForkStart { session, .. } => {
                self.call = session;
                self.began.get_or_insert_with(Instant::now);
            }
            Command::ForkStop { .. } => {
                self.began = None;
                self.progress();
            }
            Command::SessionClose { .. } => closes = true,
            Command::SessionOpen(_) => {
                // All m-lines of the call were there from the beginning.
                let reason = FailReason::WrongState;
                self.tell(Event::Failed { request, reason });
                return Ok(());
            }
            _ => {}
        }
        self.tell(Event::Done { request });
        if closes { Err(Closed) } else { Ok(()) }
    }

    fn progress(&self) {
        self.tell(Event::ForkProgress {
            session: self.call,
            target: self.missed.session,
            heard_ns: 0,
            streams: self.lines.iter().map(Line::counted).collect(),
        });
    }

    /// Sends what was missed, each packet as long after the first moment as it came then.
    fn play(&mut self, capture: &Capture, orders: &Receiver<(u64, Command)>) -> Result<(), Closed> {
        let Some((from_ns, to_ns)) = span(capture.facts(), &self.missed) else {
            self.over(Some("the recording here does not know its time".to_owned()));
            return self.wait(orders);
        };
        let wanted = |frame: &Frame<'_>| {
            let is_said = matches!(frame.kind, FrameKind::Rtp | FrameKind::Opaque);
            let ours = frame.flags & flags::INJECTED != 0;
            is_said && !ours && (from_ns..to_ns).contains(&frame.wall_ns)
        };
        let mut frames = capture.frames().filter(wanted).peekable();
        let mut told = Instant::now();
        loop {
            let now = Instant::now();
            let due = self.began.and_then(|began| {
                let frame = frames.peek()?;
                Some(began + Duration::from_nanos(frame.wall_ns - from_ns))
            });
            if self.began.is_some() && due.is_none() {
                self.progress();
                self.over(None);
                return self.wait(orders);
            }
            if due.is_some_and(|due| due <= now)
                && let Some(frame) = frames.next()
                && let Some(line) = self.lines.iter_mut().find(|line| line.carries(&frame))
            {
                line.send(&frame);
            }
            if now.duration_since(told) >= TELL {
                told = now;
                self.progress();
            }
            let wait = due.map_or(TELL, |due| due.saturating_duration_since(Instant::now()));
            match orders.recv_timeout(wait.min(TELL)) {
                Ok((request, command)) => self.obey(request, command)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Closed),
            }
        }
    }

    /// Nothing is left to be sent: until it is closed.
    fn wait(&mut self, orders: &Receiver<(u64, Command)>) -> Result<(), Closed> {
        while let Ok((request, command)) = orders.recv() {
            self.obey(request, command)?;
        }
        Err(Closed)
    }
}

/// What was missed on the recording's own scale, ns since its origin.
fn span(facts: &CaptureFacts, missed: &Missed) -> Option<(u64, u64)> {
    let (wall_ns, clock) = facts.clock?;
    let origin_ns = clock.utc_ns.checked_sub(wall_ns)?;
    let at = |moment: trunkline_sinks::Timestamp| {
        let utc_ns = u64::try_from(moment.0)
            .unwrap_or(0)
            .saturating_mul(1_000_000);
        utc_ns.saturating_sub(origin_ns)
    };
    Some((at(missed.from), at(missed.to)))
}
