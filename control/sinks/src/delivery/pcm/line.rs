//! One channel of one recording on its way: a bounded queue, and a task that connects and sends.

use super::connection::{Connection, Peer};
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;
use trunkline_config::PcmChannel;
use trunkline_hooks::CallMeta;

/// Pieces of 20 ms that may wait: five seconds.
const PIECES_MAX: usize = 250;
/// How long the other side may take to accept a connection, and to take a piece.
const PATIENCE: Duration = Duration::from_secs(2);
/// Before a connection that broke is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// What a connection begins with.
#[derive(Debug, Clone)]
pub(super) struct Start {
    call: String,
    call_id: String,
    tenant: String,
    channel: PcmChannel,
    rate_hz: u32,
}

impl Start {
    pub(super) fn of(meta: &CallMeta, channel: PcmChannel, rate_hz: u32) -> Self {
        Self {
            call: meta.call.clone(),
            call_id: meta.call_id.clone(),
            tenant: meta.tenant_id.clone(),
            channel,
            rate_hz,
        }
    }

    fn text(&self, from_byte: u64) -> String {
        let channel = match self.channel {
            PcmChannel::Caller => "caller",
            PcmChannel::Callee => "callee",
        };
        json!({
            "type": "start",
            "call": self.call,
            "sip_call_id": self.call_id,
            "tenant": self.tenant,
            "channel": channel,
            "encoding": "pcm_s16le",
            "rate_hz": self.rate_hz,
            "from_sample": from_byte / 2,
        })
        .to_string()
    }
}

/// 20 ms, and where in the channel's sound they begin.
struct Piece {
    at_byte: u64,
    pcm: Vec<u8>,
}

/// The end that sound is put into. Dropping it ends the line once all has left.
pub(super) struct Line {
    channel: PcmChannel,
    pieces: Sender<Piece>,
    at_byte: u64,
    dropped: Arc<AtomicU64>,
}

impl Line {
    pub(super) fn begin(
        handle: &Handle,
        peer: &Peer,
        start: Start,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        let (pieces, waiting) = channel(PIECES_MAX);
        let channel = start.channel;
        let sending = Sending {
            peer: peer.clone(),
            start,
            waiting,
            dropped: Arc::clone(&dropped),
        };
        handle.spawn(sending.run());
        Self {
            channel,
            pieces,
            at_byte: 0,
            dropped,
        }
    }

    pub(super) const fn channel(&self) -> PcmChannel {
        self.channel
    }

    /// Never waits: what finds no room is counted, and silence takes its place.
    pub(super) fn append(&mut self, pcm: &[u8]) {
        let piece = Piece {
            at_byte: self.at_byte,
            pcm: pcm.to_vec(),
        };
        self.at_byte += pcm.len() as u64;
        if self.pieces.try_send(piece).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

struct Sending {
    peer: Peer,
    start: Start,
    waiting: Receiver<Piece>,
    dropped: Arc<AtomicU64>,
}

/// Why a connection is over.
enum Over {
    /// The sound is over.
    Ended,
    /// The other side wants no more.
    Refused,
    Broken(io::Error),
}

impl Sending {
    async fn run(mut self) {
        let mut complained = false;
        loop {
            let why = match within(Connection::open(&self.peer)).await {
                Ok(connection) => match self.send_all(connection).await {
                    Over::Ended => return,
                    Over::Refused => return self.discard().await,
                    Over::Broken(error) => error,
                },
                Err(error) => error,
            };
            if !std::mem::replace(&mut complained, true) {
                let (call, target) = (&self.start.call, &self.peer.target);
                tracing::warn!(call, ?target, error = %why, "live sound does not get through");
            }
            // Nobody wants to hear later what was said meanwhile.
            if timeout(PAUSE, self.discard()).await.is_ok() {
                return;
            }
        }
    }

    /// Takes what comes until the sound is over.
    async fn discard(&mut self) {
        while self.waiting.recv().await.is_some() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    async fn send_all(&mut self, mut connection: Connection) -> Over {
        let mut position = None;
        loop {
            let piece = tokio::select! {
                piece = self.waiting.recv() => piece,
                in_order = connection.closed() => {
                    let broken = || Over::Broken(io::ErrorKind::ConnectionReset.into());
                    return if in_order { Over::Refused } else { broken() };
                }
            };
            let Some(piece) = piece else {
                // Nobody is left to be told that the end did not get through.
                let _ = within(connection.stop()).await;
                return Over::Ended;
            };
            let begun = position.is_some();
            let from = position.unwrap_or(piece.at_byte);
            position = Some(piece.at_byte + piece.pcm.len() as u64);
            let sent = within(async {
                if !begun {
                    connection.say(self.start.text(from)).await?;
                }
                // What found no room in the queue is silence of its length.
                let gap = usize::try_from(piece.at_byte.saturating_sub(from)).unwrap_or(0);
                if gap > 0 {
                    connection.send(vec![0; gap]).await?;
                }
                connection.send(piece.pcm).await
            });
            if let Err(error) = sent.await {
                self.dropped.fetch_add(1, Relaxed);
                return Over::Broken(error);
            }
        }
    }
}

async fn within<T>(act: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, act)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
