//! Callbacks of hooks that end something, kept in the catalog until they were made.
//!
//! They enter in the transaction that stores what they tell of: a leg's final record, a recording's
//! final state. So each is told once, over restarts too. A catalog that was removed tells nothing of
//! what it knew before.

use super::store::{Catalog, CatalogError};
use super::thread::lock;
use crate::Timestamp;
use crate::cdr::{self, Cdr};
use crate::object::{EndedBy, Recording, RecordingState};
use rusqlite::{OptionalExtension, Transaction, params};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trunkline_hooks::{
    CallMeta, Direction, HangupInitiator, HangupMeta, Outbox, OutboxError, PAUSE_MAX,
    RecordingArtifact, RecordingRef, RecordingResult, Terminal, TerminalItem,
};

/// Outbox names of the sinks that run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboxSinks {
    /// `lifecycle:NAME`.
    pub lifecycle: Vec<String>,
    /// `recording:NAME`.
    pub recording: Vec<String>,
}

/// Has the sinks told of a leg's end.
pub(super) fn note_leg(
    transaction: &Transaction<'_>,
    cdr: &Cdr,
    sinks: &OutboxSinks,
) -> Result<(), CatalogError> {
    if sinks.lifecycle.is_empty() {
        return Ok(());
    }
    let body = serde_json::to_string(&terminal_of(cdr))?;
    insert(
        transaction,
        &sinks.lifecycle,
        (&cdr.id, &cdr.call_id),
        false,
        &body,
    )
}

/// Has the sinks finish a recording that reaches its final state now.
pub(super) fn note_recording(
    transaction: &Transaction<'_>,
    number: i64,
    recording: &Recording,
    sinks: &OutboxSinks,
) -> Result<(), CatalogError> {
    let ends = recording.state.is_final() && recording.state != RecordingState::Deleted;
    // What is about to be discarded is for nobody.
    if sinks.recording.is_empty() || !ends || recording.kept == Some(false) {
        return Ok(());
    }
    let before: Option<String> = transaction
        .prepare_cached("SELECT state FROM recordings WHERE number = ?1")?
        .query_row([number], |row| row.get(0))
        .optional()?;
    let was_final = before
        .and_then(|name| RecordingState::from_name(&name))
        .is_some_and(RecordingState::is_final);
    if was_final {
        return Ok(());
    }
    let finish = Terminal::Finish {
        recording: RecordingRef {
            recording: recording.id.clone(),
            call_id: recording.sip_call_ids.first().cloned().unwrap_or_default(),
            codec: String::new(),
        },
    };
    let body = serde_json::to_string(&finish)?;
    let subject = (&*recording.id, &*recording.call_id);
    insert(transaction, &sinks.recording, subject, true, &body)
}

fn insert(
    transaction: &Transaction<'_>,
    sinks: &[String],
    (subject, call_id): (&str, &str),
    finish: bool,
    body: &str,
) -> Result<(), CatalogError> {
    // A recording that ended, went on in another recording session and ends again is finished anew: under
    // another id, so that what is said of the delivery before is not taken for it.
    let mut statement = transaction.prepare_cached(
        "INSERT INTO outbox (sink, subject, call_id, finish, since_ms, state, body)
         VALUES (?1, ?2, ?3, ?4, ?5, 'waiting', ?6)
         ON CONFLICT (sink, subject) DO UPDATE SET id = (SELECT max(id) + 1 FROM outbox),
         state = 'waiting', since_ms = excluded.since_ms, attempts = 0, due_ms = 0, outcome = NULL WHERE finish = 1",
    )?;
    for sink in sinks {
        let now = Timestamp::now().0;
        statement.execute(params![sink, subject, call_id, finish, now, body])?;
    }
    Ok(())
}

/// The callback that a leg's end is told by.
fn terminal_of(cdr: &Cdr) -> Terminal {
    let (meta, hangup) = (call_meta(cdr), hangup_meta(cdr));
    if !cdr.was_established() {
        return Terminal::Failed { meta, hangup };
    }
    let last = cdr
        .recordings
        .last()
        .filter(|_| cdr.direction == cdr::Direction::Inbound);
    let recording = last.map(|last| RecordingRef {
        recording: last.id.clone(),
        call_id: cdr.sip_call_id.clone(),
        codec: cdr.codec.clone().unwrap_or_default(),
    });
    Terminal::Bye {
        meta,
        hangup,
        recording,
    }
}

/// A leg as hooks see it.
#[must_use]
pub fn call_meta(cdr: &Cdr) -> CallMeta {
    let (direction, correlation_id) = match cdr.direction {
        cdr::Direction::Inbound => (Direction::Inbound, String::new()),
        cdr::Direction::Outbound => (Direction::Outbound, cdr.sip_call_id_in.clone()),
    };
    let address = |text: &str| match text.split_once(':') {
        Some((_transport, address)) => address.to_owned(),
        None => text.to_owned(),
    };
    let local = address(&cdr.local);
    let local_ip = match local.parse::<std::net::SocketAddr>() {
        Ok(local) => local.ip().to_string(),
        Err(_) => local,
    };
    CallMeta {
        call_id: cdr.sip_call_id.clone(),
        correlation_id,
        direction,
        scenario: cdr.scenario.clone(),
        tenant_id: cdr.tenant.clone().unwrap_or_default(),
        remote_addr: address(&cdr.remote),
        local_ip,
        codec: cdr.codec.clone().unwrap_or_default(),
        started_at: system_time(cdr.invited_at),
        call: cdr.call_id.clone(),
    }
}

fn hangup_meta(cdr: &Cdr) -> HangupMeta {
    HangupMeta {
        initiator: match cdr.ended_by {
            Some(EndedBy::Caller | EndedBy::Callee) => HangupInitiator::Remote,
            Some(EndedBy::Us) => HangupInitiator::Local,
            Some(EndedBy::Unknown) | None => HangupInitiator::Unknown,
        },
        sip_code: cdr.sip_code.unwrap_or(0),
        reason: cdr.reason.clone().unwrap_or_default(),
        duration: Duration::from_millis(cdr.duration_ms),
        ended_at: system_time(cdr.ended_at.unwrap_or(cdr.written_at)),
    }
}

fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
}

/// Makes the artifact of a recording.
pub type MakeArtifact =
    Box<dyn Fn(&RecordingRef) -> Result<RecordingArtifact, OutboxError> + Send + Sync>;

/// The outbox, as the hooks' threads use it.
pub struct CatalogOutbox {
    path: PathBuf,
    connection: Mutex<Option<Catalog>>,
    finish_deadline: Duration,
    artifact: MakeArtifact,
}

impl fmt::Debug for CatalogOutbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CatalogOutbox")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl CatalogOutbox {
    /// That of the catalog in a file. Ends of a call wait for `finish_deadline` at most for its
    /// recordings to be finished.
    #[must_use]
    pub fn new(path: &Path, finish_deadline: Duration, artifact: MakeArtifact) -> Self {
        Self {
            path: path.to_owned(),
            connection: Mutex::default(),
            finish_deadline,
            artifact,
        }
    }

    fn with<T>(
        &self,
        act: impl FnOnce(&mut Catalog) -> Result<T, CatalogError>,
    ) -> Result<T, OutboxError> {
        let mut connection = lock(&self.connection);
        let acted = match connection.take() {
            Some(open) => Ok(open),
            None => Catalog::open_beside(&self.path),
        }
        .and_then(|mut open| {
            let result = act(&mut open)?;
            Ok((open, result))
        });
        // A connection that failed is not used again.
        let (open, result) = acted.map_err(|error| OutboxError(error.to_string()))?;
        *connection = Some(open);
        Ok(result)
    }
}

/// What is due later than any pause can make it was put off before the clock was set back: it is due.
fn take_back_future(catalog: &mut Catalog, sink: &str, now: i64) -> Result<(), CatalogError> {
    let pause_ms = i64::try_from(PAUSE_MAX.as_millis()).unwrap_or(i64::MAX);
    let latest = now.saturating_add(pause_ms);
    let found = catalog
        .connection()
        .prepare_cached(
            "SELECT 1 FROM outbox WHERE state = 'waiting' AND sink = ?1 AND due_ms > ?2 LIMIT 1",
        )?
        .exists(params![sink, latest])?;
    if !found {
        return Ok(());
    }
    catalog.write(|transaction, _| {
        transaction.execute(
            "UPDATE outbox SET due_ms = ?3 WHERE state = 'waiting' AND sink = ?1 AND due_ms > ?2",
            params![sink, latest, now],
        )?;
        Ok(())
    })
}

impl Outbox for CatalogOutbox {
    fn pending(&self, sink: &str, limit: usize) -> Result<Vec<TerminalItem>, OutboxError> {
        let deadline_ms = i64::try_from(self.finish_deadline.as_millis()).unwrap_or(i64::MAX);
        let now = Timestamp::now().0;
        let since = now.saturating_sub(deadline_ms);
        let until = now.saturating_add(deadline_ms);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.with(|catalog| {
            take_back_future(catalog, sink, now)?;
            let mut query = catalog.connection().prepare_cached(
                "SELECT id, since_ms, attempts, body FROM outbox AS own
                 WHERE state = 'waiting' AND sink = ?1 AND due_ms <= ?4 AND (finish = 1 OR NOT EXISTS (
                    SELECT 1 FROM outbox AS other WHERE other.state = 'waiting'
                    AND other.call_id = own.call_id AND other.finish = 1
                    AND other.since_ms > ?2 AND other.since_ms <= ?5))
                 ORDER BY due_ms, id LIMIT ?3",
            )?;
            let rows = query.query_map(params![sink, since, limit, now, until], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?;
            let item = |(id, since, attempts, body): (i64, i64, u32, String)| {
                Ok(TerminalItem {
                    id,
                    since: system_time(Timestamp(since)),
                    attempts,
                    terminal: serde_json::from_str(&body)?,
                })
            };
            rows.map(|row| item(row?)).collect()
        })
    }

    fn delivered(&self, id: i64, result: Option<&RecordingResult>) -> Result<(), OutboxError> {
        self.with(|catalog| {
            let outcome = result.map(serde_json::to_string).transpose()?;
            catalog.write(|transaction, _| {
                // Where a recording was put is worth keeping; that a sink was told is not.
                match outcome {
                    Some(outcome) => transaction
                        .prepare_cached(
                            "UPDATE outbox SET state = 'done', outcome = ?2, attempts = attempts + 1
                             WHERE id = ?1",
                        )?
                        .execute(params![id, outcome])?,
                    None => transaction
                        .prepare_cached("DELETE FROM outbox WHERE id = ?1")?
                        .execute([id])?,
                };
                Ok(())
            })
        })
    }

    fn later(&self, id: i64, why: &str, pause: Duration) -> Result<(), OutboxError> {
        let pause_ms = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        let due = Timestamp::now().0.saturating_add(pause_ms);
        self.with(|catalog| {
            catalog.write(|transaction, _| {
                transaction
                    .prepare_cached(
                        "UPDATE outbox SET attempts = attempts + 1, due_ms = ?2, outcome = ?3
                         WHERE id = ?1",
                    )?
                    .execute(params![id, due, why])?;
                Ok(())
            })
        })
    }

    fn dead(&self, id: i64, why: &str) -> Result<(), OutboxError> {
        self.with(|catalog| {
            catalog.write(|transaction, _| {
                transaction
                    .prepare_cached(
                        "UPDATE outbox SET state = 'dead', outcome = ?2, attempts = attempts + 1
                         WHERE id = ?1",
                    )?
                    .execute(params![id, why])?;
                Ok(())
            })
        })
    }

    fn artifact(&self, recording: &RecordingRef) -> Result<RecordingArtifact, OutboxError> {
        (self.artifact)(recording)
    }
}
