//! The sound of running recordings for hooks: decoded on a cold thread of ours, from the memory that
//! workers capture into. Workers know nothing of it.
//!
//! Every [`TICK`] the extents of each tapped recording are read as far as they are published. Sound
//! leaves [`DELAY_NS`] behind: what was overtaken in the network finds its place until then.

mod channel;
mod tape;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use trunkline_hooks::RecordingChannel;
use trunkline_link::pool::PoolReader;

use crate::clock::monotonic_ns;
use tape::Tape;

/// How often the extents are looked at.
const TICK: Duration = Duration::from_millis(60);
/// How far behind the wire sound leaves.
pub const DELAY_NS: u64 = 240_000_000;
/// Recordings tapped at once; more get no PCM.
const TAPES_MAX: usize = 4096;

/// Takes the sound.
pub trait Output: Send {
    /// Whether anybody still wants it.
    fn wants(&self, call_id: &str) -> bool;
    /// 20 ms of one channel.
    fn pcm(&self, call_id: &Arc<str>, channel: RecordingChannel, samples: &[i16]);
    /// Nothing more will come.
    fn done(&self, call_id: &str);
}

/// A recording whose sound is wanted.
#[derive(Debug, Clone)]
pub struct Begin {
    /// Its number.
    pub number: u64,
    /// Call-ID of its call's inbound leg.
    pub call_id: Arc<str>,
    /// Samples a second that leave.
    pub rate_hz: u32,
    /// CLOCK_MONOTONIC ns from which on it is wanted.
    pub from_mono_ns: u64,
}

enum Order {
    Pool(Arc<PoolReader>),
    Begin(Begin),
    End { number: u64, at_mono_ns: u64 },
}

/// The running thread. Dropping it ends it.
#[derive(Debug)]
pub struct Tap {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Starts the thread.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(output: impl Output + 'static) -> io::Result<Self> {
        let (orders, received) = channel();
        let thread = std::thread::Builder::new()
            .name("pcm-tap".to_owned())
            .spawn(move || run(&received, &output))?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // It ends only with us.
            let _ = orders.send(order);
        }
    }

    /// A dataplane is attached: that is its memory.
    pub fn pool(&self, pool: Arc<PoolReader>) {
        self.order(Order::Pool(pool));
    }

    /// A recording's sound is wanted from now on.
    pub fn begin(&self, begin: Begin) {
        self.order(Order::Begin(begin));
    }

    /// The recording ended at this moment of CLOCK_MONOTONIC.
    pub fn end(&self, number: u64, at_mono_ns: u64) {
        self.order(Order::End { number, at_mono_ns });
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by its own hook.
            let _ = thread.join();
        }
    }
}

fn run(orders: &Receiver<Order>, output: &dyn Output) {
    let mut tapes = Tapes::default();
    loop {
        // Without tapes there is nothing to look at.
        let order = match tapes.is_empty() {
            true => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => orders.recv_timeout(TICK),
        };
        match order {
            Ok(order) => tapes.take(order),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Ok(order) = orders.try_recv() {
            tapes.take(order);
        }
        tapes.tick(monotonic_ns(), output);
    }
}

/// All tapped recordings.
#[derive(Default)]
struct Tapes {
    pool: Option<Arc<PoolReader>>,
    tapes: HashMap<u64, Tape>,
}

impl Tapes {
    fn is_empty(&self) -> bool {
        self.tapes.is_empty()
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Pool(pool) => self.pool = Some(pool),
            Order::Begin(begin) if self.tapes.len() < TAPES_MAX => {
                self.tapes
                    .entry(begin.number)
                    .or_insert_with(|| Tape::new(begin));
            }
            Order::Begin(begin) => {
                tracing::warn!(recording = begin.number, "too many recordings are tapped");
            }
            Order::End { number, at_mono_ns } => {
                if let Some(tape) = self.tapes.get_mut(&number) {
                    tape.ends_at(at_mono_ns);
                }
            }
        }
    }

    fn tick(&mut self, now_ns: u64, output: &dyn Output) {
        self.read_extents();
        self.tapes.retain(|_, tape| {
            tape.play(now_ns, output);
            let goes_on = !tape.is_over(now_ns) && output.wants(&tape.begin.call_id);
            if !goes_on {
                output.done(&tape.begin.call_id);
            }
            goes_on
        });
    }

    /// Reads what was published since. An extent that went to the disk still holds its bytes until it
    /// is used again.
    fn read_extents(&mut self) {
        let Some(pool) = &self.pool else { return };
        let mut found: Vec<(u32, usize)> = Vec::new();
        for index in 0..pool.extents() {
            if let Some(meta) = pool.meta(index)
                && let Some(tape) = self.tapes.get(&meta.recording)
                && tape.wants_extent(&meta)
            {
                found.push((meta.ordinal, index));
            }
        }
        found.sort_unstable();
        let mut bytes = Vec::new();
        for (_, index) in found {
            if let Some(meta) = pool.copy(index, &mut bytes)
                && let Some(tape) = self.tapes.get_mut(&meta.recording)
            {
                tape.read_extent(&meta, &bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests;
