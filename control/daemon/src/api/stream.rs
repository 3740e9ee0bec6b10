//! `/v1/events`: server-sent events, resumable by Last-Event-ID.

use super::Shared;
use super::error::ApiError;
use super::events::{Event, EventHub};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use futures_util::Stream;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;

/// Events taken from the hub at once.
const BATCH_MAX: usize = 100;
/// A comment is sent after so long a silence, so that dead connections are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One client's place in the events.
struct Reader {
    hub: EventHub,
    newest: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    /// The last event taken.
    sequence: u64,
    taken: VecDeque<Event>,
    greeted: bool,
}

/// All events from now on, or after the one that `Last-Event-ID` names.
pub(super) async fn events(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>>>, ApiError> {
    let hub = shared.context.events.clone();
    let sequence = match headers.get("Last-Event-ID") {
        None => hub.newest(),
        Some(id) => id
            .to_str()
            .ok()
            .and_then(|id| hub.resume_after(id))
            .ok_or_else(|| ApiError::bad_request("Last-Event-ID is not an id of these events"))?,
    };
    let reader = Reader {
        newest: hub.watch(),
        hub,
        stopping: shared.stopping.clone(),
        sequence,
        taken: VecDeque::new(),
        greeted: false,
    };
    let stream = futures_util::stream::unfold(reader, |mut reader| async move {
        let sent = reader.next().await?;
        Some((Ok(sent), reader))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

impl Reader {
    /// The next thing to send; `None` when the server stops.
    async fn next(&mut self) -> Option<Sent> {
        if !std::mem::replace(&mut self.greeted, true) {
            // Sent at once, so that a client knows that nothing from here on is missed.
            return Some(Sent::default().comment("connected"));
        }
        loop {
            if let Some(event) = self.taken.pop_front() {
                return Some(self.sent(&event));
            }
            self.newest.mark_unchanged();
            self.taken = self.hub.after(self.sequence, BATCH_MAX).into();
            if let Some(first) = self.taken.front() {
                let missed = first.sequence - self.sequence - 1;
                if missed > 0 {
                    self.sequence = first.sequence - 1;
                    let comment = format!("{missed} events are not kept any more");
                    return Some(Sent::default().comment(comment));
                }
                continue;
            }
            tokio::select! {
                changed = self.newest.changed() => changed.ok()?,
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
            }
        }
    }

    fn sent(&mut self, event: &Event) -> Sent {
        self.sequence = event.sequence;
        Sent::default()
            .id(self.hub.id_of(event.sequence))
            .event(event.kind.name())
            .data(&*event.data)
    }
}
