//! The attachment to the dataplane: connects, reconnects, queues what does not fit.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tracing::{info, warn};
use trunkline_link::attach::{ControlLink, LinkError, SendError};
use trunkline_link::counters::CounterReader;
use trunkline_link::message::{Command, Event};
use trunkline_link::pool::PoolReader;

use crate::clock::monotonic_ns;

/// The wait between attempts to attach.
const RETRY: Duration = Duration::from_millis(20);
/// The longest wait for an event.
const BEAT: Duration = Duration::from_millis(1000);
/// Look again at a full command ring.
const FULL_RETRY: Duration = Duration::from_millis(1);
/// Events handed over at once, so that signalling gets its turn.
const EVENTS_AT_ONCE: usize = 256;

/// What the link has to say.
#[derive(Debug)]
pub enum Notice {
    /// Attached to a dataplane; `same_process` when it is the one we were attached to before.
    Attached {
        /// A process that we have not been attached to.
        new_process: bool,
    },
    /// The dataplane died. Its extents can still be read.
    Died {
        /// The pool of the dead dataplane.
        pool: Arc<PoolReader>,
    },
    /// Events, in order.
    Events(Vec<Event>),
    /// Events were lost: the dataplane's state has to be asked for.
    Overrun,
    /// Nothing in particular: time for housekeeping.
    Beat,
}

/// An attachment, and the file whose readiness says that there is something to do.
struct Attached {
    control: ControlLink,
    readiness: AsyncFd<OwnedFd>,
}

/// The link to the dataplane, for the core's one task.
pub struct Link {
    path: PathBuf,
    link: Option<Attached>,
    outbox: VecDeque<(u64, Command)>,
    last_pid: u32,
    complained: bool,
}

impl Link {
    /// Not attached yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            link: None,
            outbox: VecDeque::new(),
            last_pid: 0,
            complained: false,
        }
    }

    /// Whether a dataplane is attached.
    pub fn is_up(&self) -> bool {
        self.link.is_some()
    }

    /// Its counters.
    pub fn counters(&self) -> Option<Arc<CounterReader>> {
        self.link.as_ref().map(|link| link.control.counters())
    }

    /// Its extents.
    pub fn pool(&self) -> Option<Arc<PoolReader>> {
        self.link.as_ref().map(|link| link.control.pool())
    }

    /// Queues a command; without a dataplane it is dropped (what matters is installed anew).
    pub fn send(&mut self, request: u64, command: Command) {
        if self.link.is_some() {
            self.outbox.push_back((request, command));
            self.flush();
        }
    }

    fn flush(&mut self) {
        let Some(link) = &mut self.link else { return };
        while let Some((request, command)) = self.outbox.front() {
            match link.control.send(*request, command) {
                Ok(()) => {}
                Err(SendError::Full) => return,
                // The death is noticed by `next`.
                Err(SendError::Dead) => return self.outbox.clear(),
                Err(SendError::Codec(error)) => {
                    warn!(%error, ?command, "a command breaks the link's limits");
                }
            }
            self.outbox.pop_front();
        }
    }

    /// The next thing that happens. Cancel-safe.
    pub async fn next(&mut self) -> Notice {
        if self.link.is_none() {
            return self.attach().await;
        }
        self.flush();
        let wait = if self.outbox.is_empty() {
            BEAT
        } else {
            FULL_RETRY
        };
        let Some(Attached { control, readiness }) = &mut self.link else {
            return Notice::Beat;
        };
        // Looked at before every wait: the doorbell rings only for a reader that found nothing.
        let events = take_events(control);
        if !events.is_empty() {
            return Notice::Events(events);
        }
        if control.take_overrun() {
            return Notice::Overrun;
        }
        match tokio::time::timeout(wait, readiness.readable()).await {
            Ok(Ok(mut guard)) => {
                guard.clear_ready();
                let events = take_events(control);
                if events.is_empty() && !control.is_alive() {
                    return self.died();
                }
                Notice::Events(events)
            }
            Ok(Err(_)) => self.died(),
            Err(_) if control.is_alive() => Notice::Beat,
            Err(_) => self.died(),
        }
    }

    /// Tells the dataplane that we are alive.
    pub fn beat(&self) {
        if let Some(link) = &self.link {
            link.control.beat(monotonic_ns());
        }
    }

    fn died(&mut self) -> Notice {
        self.outbox.clear();
        match self.link.take() {
            Some(link) => Notice::Died {
                pool: link.control.pool(),
            },
            None => Notice::Beat,
        }
    }

    async fn attach(&mut self) -> Notice {
        loop {
            match ControlLink::connect(&self.path) {
                Ok(link) => {
                    let pid = link.dataplane_pid();
                    match watch(&link) {
                        Ok(readiness) => {
                            self.link = Some(Attached {
                                control: link,
                                readiness,
                            })
                        }
                        Err(error) => {
                            warn!(%error, "the link's doorbell cannot be watched");
                            tokio::time::sleep(BEAT).await;
                            continue;
                        }
                    }
                    let new_process = pid != self.last_pid;
                    info!(dataplane_pid = pid, "attached to the dataplane");
                    self.last_pid = pid;
                    self.complained = false;
                    return Notice::Attached { new_process };
                }
                Err(LinkError::Io(_)) => {}
                Err(error) => {
                    if !self.complained {
                        warn!(%error, path = %self.path.display(), "cannot attach to the dataplane");
                        self.complained = true;
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Registers the link's doorbell. A duplicate of its own: the registration ends before the file.
fn watch(link: &ControlLink) -> std::io::Result<AsyncFd<OwnedFd>> {
    let file = link.event_fd().try_clone_to_owned()?;
    // The deprecated constructor is the only safe one; an OwnedFd keeps its promise.
    #[allow(deprecated)]
    AsyncFd::with_interest(file, tokio::io::Interest::READABLE)
}

/// Events that wait, as many as may be handed over at once.
fn take_events(link: &mut ControlLink) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < EVENTS_AT_ONCE {
        match link.poll_event() {
            Ok(Some(event)) => events.push(event),
            Err(LinkError::Codec(error)) => warn!(%error, "an event did not decode"),
            Ok(None) | Err(_) => break,
        }
    }
    events
}
