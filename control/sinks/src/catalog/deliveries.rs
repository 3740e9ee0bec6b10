//! What the outbox holds, for operators: deliveries that wait, that were made, that were given up.

use super::store::{Catalog, CatalogError, to_unsigned};
use super::thread::CatalogHandle;
use crate::Timestamp;
use rusqlite::{OptionalExtension, params};
use serde::Serialize;
use trunkline_hooks::{RecordingResult, recording_of_outbox_name};

/// Where a sink has put a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredCopy {
    /// Name of the sink.
    pub sink: String,
    /// Where, as far as the sink says.
    #[serde(flatten)]
    pub result: RecordingResult,
}

/// States of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It is still to be made, perhaps again.
    Waiting,
    /// It was made.
    Done,
    /// It was given up.
    Dead,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Done, Self::Dead];

    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    /// The state of that word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A finished recording on its way to a sink, or a leg's end on its way to a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// Names it.
    pub id: i64,
    /// The sink; hooks that learn of legs are `lifecycle:NAME`.
    pub sink: String,
    /// The recording; of a leg's end `None`.
    pub recording_id: Option<String>,
    /// The call.
    pub call_id: String,
    /// State.
    pub state: DeliveryState,
    /// When it was to be made first, or was asked for again.
    pub since: Timestamp,
    /// When it is tried next; `None` unless it waits.
    pub due_at: Option<Timestamp>,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it failed the last time.
    pub error: Option<String>,
    /// Where the recording was put.
    pub result: Option<RecordingResult>,
}

/// How many deliveries of a sink are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// The sink, as in [`Delivery::sink`].
    pub sink: String,
    /// Waiting or dead.
    pub state: DeliveryState,
    /// How many.
    pub count: u64,
}

/// Narrows a list of deliveries; `None` = any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// State.
    pub state: Option<DeliveryState>,
    /// Name of the sink.
    pub sink: Option<String>,
    /// Only those before this one.
    pub before: Option<i64>,
}

/// What became of an order about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordered {
    /// Done.
    Done,
    /// There is none of that id.
    Unknown,
    /// It is no dead letter, with its state.
    NotDead(DeliveryState),
}

const COLUMNS: &str =
    "id, sink, subject, call_id, finish, since_ms, state, attempts, due_ms, outcome";

fn delivery(row: &rusqlite::Row<'_>) -> rusqlite::Result<Delivery> {
    let sink: String = row.get(1)?;
    let finish: bool = row.get(4)?;
    let state: String = row.get(6)?;
    let state = DeliveryState::from_name(&state).unwrap_or(DeliveryState::Dead);
    let outcome: Option<String> = row.get(9)?;
    let (error, result) = match state {
        DeliveryState::Done => (
            None,
            outcome.and_then(|text| serde_json::from_str(&text).ok()),
        ),
        _ => (outcome, None),
    };
    let due = Timestamp(row.get(8)?);
    Ok(Delivery {
        id: row.get(0)?,
        sink: recording_of_outbox_name(&sink).unwrap_or(&sink).to_owned(),
        recording_id: if finish { Some(row.get(2)?) } else { None },
        call_id: row.get(3)?,
        state,
        since: Timestamp(row.get(5)?),
        due_at: (state == DeliveryState::Waiting).then_some(due),
        attempts: row.get(7)?,
        error,
        result,
    })
}

impl Catalog {
    fn deliveries(
        &self,
        filter: &DeliveryFilter,
        limit: usize,
    ) -> Result<Vec<Delivery>, CatalogError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = format!(
            "SELECT {COLUMNS} FROM outbox WHERE (?1 IS NULL OR state = ?1)
             AND (?2 IS NULL OR sink = ?2 OR sink = 'recording:' || ?2) AND (?3 IS NULL OR id < ?3)
             ORDER BY id DESC LIMIT ?4"
        );
        let mut query = self.connection().prepare_cached(&sql)?;
        let state = filter.state.map(DeliveryState::name);
        let rows = query.query_map(params![state, filter.sink, filter.before, limit], delivery)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn delivery(&self, id: i64) -> Result<Option<Delivery>, CatalogError> {
        let sql = format!("SELECT {COLUMNS} FROM outbox WHERE id = ?1");
        let mut query = self.connection().prepare_cached(&sql)?;
        Ok(query.query_row([id], delivery).optional()?)
    }

    fn undelivered(&self) -> Result<Vec<Undelivered>, CatalogError> {
        let mut query = self.connection().prepare_cached(
            "SELECT sink, state, count(*) FROM outbox WHERE state IN ('waiting', 'dead')
             GROUP BY sink, state",
        )?;
        let rows = query.query_map([], |row| {
            let (sink, state): (String, String) = (row.get(0)?, row.get(1)?);
            Ok(Undelivered {
                sink: recording_of_outbox_name(&sink).unwrap_or(&sink).to_owned(),
                state: DeliveryState::from_name(&state).unwrap_or(DeliveryState::Dead),
                count: to_unsigned(row.get(2)?),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn copies(&self, recording: &str) -> Result<Vec<StoredCopy>, CatalogError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM outbox WHERE subject = ?1 AND finish = 1 AND state = 'done'
             ORDER BY id"
        );
        let mut query = self.connection().prepare_cached(&sql)?;
        let rows = query.query_map([recording], delivery)?;
        let copy = |one: Delivery| StoredCopy {
            sink: one.sink,
            result: one.result.unwrap_or_default(),
        };
        Ok(rows
            .map(|row| row.map(copy))
            .collect::<rusqlite::Result<_>>()?)
    }
}

impl CatalogHandle {
    /// Deliveries, the newest first.
    ///
    /// # Errors
    /// They could not be read.
    pub fn deliveries(
        &self,
        filter: &DeliveryFilter,
        limit: usize,
    ) -> Result<Vec<Delivery>, CatalogError> {
        self.read(|catalog| catalog.deliveries(filter, limit))
    }

    /// What waits and what was given up, by sink.
    ///
    /// # Errors
    /// It could not be read.
    pub fn undelivered(&self) -> Result<Vec<Undelivered>, CatalogError> {
        self.read(Catalog::undelivered)
    }

    /// One delivery.
    ///
    /// # Errors
    /// It could not be read.
    pub fn delivery(&self, id: i64) -> Result<Option<Delivery>, CatalogError> {
        self.read(|catalog| catalog.delivery(id))
    }

    /// Where sinks have put a recording.
    ///
    /// # Errors
    /// They could not be read.
    pub fn copies(&self, recording: &str) -> Result<Vec<StoredCopy>, CatalogError> {
        self.read(|catalog| catalog.copies(recording))
    }

    /// Has a dead letter delivered again, with all the sink's patience.
    ///
    /// # Errors
    /// It could not be written.
    pub fn deliver_again(&self, id: i64) -> Result<Ordered, CatalogError> {
        let ordered = self.order(
            id,
            "UPDATE outbox SET state = 'waiting', attempts = 0, due_ms = 0, since_ms = ?2
             WHERE id = ?1 AND state = 'dead'",
        )?;
        self.tell_of_ends();
        Ok(ordered)
    }

    /// Gives a dead letter up for good: its recording waits for nobody any more.
    ///
    /// # Errors
    /// It could not be written.
    pub fn drop_delivery(&self, id: i64) -> Result<Ordered, CatalogError> {
        // It stays as one that was made, without a result: what is stored again is not told again.
        self.order(
            id,
            "UPDATE outbox SET state = 'done', outcome = NULL, since_ms = ?2
             WHERE id = ?1 AND state = 'dead'",
        )
    }

    fn order(&self, id: i64, sql: &str) -> Result<Ordered, CatalogError> {
        let Some(found) = self.delivery(id)? else {
            return Ok(Ordered::Unknown);
        };
        let mut changed = 0;
        self.open_beside()?.write(|transaction, _| {
            changed = transaction.execute(sql, params![id, Timestamp::now().0])?;
            Ok(())
        })?;
        Ok(match changed {
            0 => Ordered::NotDead(found.state),
            _ => Ordered::Done,
        })
    }
}
