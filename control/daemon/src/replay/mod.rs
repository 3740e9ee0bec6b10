//! What a SIPREC recorder missed of a call, sent to it after the call in real time: read from the capture here,
//! sent by plain sockets.
//!
//! Each replay is a thread that obeys the commands which the dataplane obeys for a recording session while its
//! call lasts ([`crate::siprec::client`]), and answers by the same events.

mod line;
mod player;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use trunkline_link::message::{Command, Event, FailReason};
use trunkline_sinks::Timestamp;
use trunkline_sinks::library::Library;

use player::Player;

/// What is to be sent.
#[derive(Debug, Clone)]
pub struct Missed {
    /// The recording session, by its key.
    pub session: u64,
    /// Id of the recording here.
    pub recording: String,
    /// Since when it was missed.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// The address that it is sent from.
    pub address: IpAddr,
}

/// What a replay is told.
#[derive(Debug)]
pub enum Order {
    /// A new one: commands follow.
    Begin(Missed),
    /// A command to one, answered as by the dataplane.
    Command {
        /// Its number.
        request: u64,
        /// The command.
        command: Command,
    },
}

/// What replays tell.
#[derive(Debug)]
pub enum News {
    /// As the dataplane would.
    Link(Event),
    /// All is sent, or why no more can be.
    Over {
        /// The recording session.
        session: u64,
        /// Why not all is sent.
        failed: Option<String>,
    },
}

/// All replays under way.
pub struct Replayer {
    library: Arc<Library>,
    news: mpsc::Sender<News>,
    running: HashMap<u64, std::sync::mpsc::Sender<(u64, Command)>>,
}

impl Replayer {
    /// One without replays.
    pub fn new(library: Arc<Library>, news: mpsc::Sender<News>) -> Self {
        Self {
            library,
            news,
            running: HashMap::new(),
        }
    }

    /// Begins a replay, or hands a command on.
    pub fn send(&mut self, order: Order) {
        match order {
            Order::Begin(missed) => self.begin(missed),
            Order::Command { request, command } => self.command(request, command),
        }
    }

    fn begin(&mut self, missed: Missed) {
        let (orders, receiver) = std::sync::mpsc::channel();
        let session = missed.session;
        let player = Player::new(missed, Arc::clone(&self.library), self.news.clone());
        let thread = std::thread::Builder::new().name("replay".to_owned());
        match thread.spawn(move || player.run(&receiver)) {
            Ok(_) => {
                self.running.insert(session, orders);
            }
            Err(error) => {
                tracing::warn!(%error, "no thread for a replay to a recorder");
                let failed = Some(error.to_string());
                if self.news.try_send(News::Over { session, failed }).is_err() {
                    tracing::warn!(session, "a replay's end is lost");
                }
            }
        }
    }

    fn command(&mut self, request: u64, command: Command) {
        let Some(session) = session_of(&command) else {
            return;
        };
        let closes = matches!(command, Command::SessionClose { .. });
        let orders = self.running.get(&session);
        let heard = orders.is_some_and(|orders| orders.send((request, command)).is_ok());
        if closes {
            self.running.remove(&session);
        }
        if !heard {
            let reason = FailReason::NotFound;
            let failed = News::Link(Event::Failed { request, reason });
            if self.news.try_send(failed).is_err() {
                tracing::warn!(session, "a replay's answer is lost");
            }
        }
    }
}

/// The recording session that a command is about.
fn session_of(command: &Command) -> Option<u64> {
    match command {
        Command::SessionOpen(open) => Some(open.session),
        Command::LegUpdate(update) => Some(update.session),
        Command::SessionClose { session } => Some(*session),
        Command::ForkStart { target, .. }
        | Command::ForkState { target, .. }
        | Command::ForkStop { target, .. } => Some(*target),
        _ => None,
    }
}
