//! Writing and reading the catalog's file.

use super::filter::{CallFilter, Cursor, Page, RecordingFilter, call_ids, party_users};
use super::outbox::{self, OutboxSinks};
use super::schema;
use crate::Timestamp;
use crate::object::{Call, Recording, RecordingState};
use rusqlite::types::Value;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params,
    params_from_iter,
};
use std::path::{Path, PathBuf};

/// Why the catalog did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// SQLite's own error.
    #[error("catalog: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A stored object does not read back.
    #[error("catalog: a stored object cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The file system's error.
    #[error("catalog: {path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The segments could not be read.
    #[error("catalog: {0}")]
    Capture(#[from] trunkline_sn3::CaptureError),
}

/// Where a recording's frames are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Storage {
    /// Recording number, unique for the appliance's life.
    pub number: u64,
    /// Its last extent; both 0 = none written.
    pub last_segment: u32,
    /// See `last_segment`.
    pub last_page: u32,
    /// Extents written.
    pub extents: u32,
    /// Bytes written.
    pub bytes: u64,
}

impl Storage {
    /// The last (segment, page), when there is one.
    #[must_use]
    pub fn last(&self) -> Option<(u32, u32)> {
        (self.last_page != 0).then_some((self.last_segment, self.last_page))
    }
}

/// A recording with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRecording {
    /// As the API shows it.
    pub recording: Recording,
    /// Where its frames are.
    pub storage: Storage,
}

/// The catalog's file, opened.
#[derive(Debug)]
pub struct Catalog {
    connection: Connection,
    sinks: OutboxSinks,
}

impl Catalog {
    /// Opens the file for writing and says whether it is new. One that is damaged or of another
    /// version is put aside under another name, and a new one made.
    ///
    /// # Errors
    /// The file can be neither opened nor made.
    pub fn open(path: &Path) -> Result<(Self, bool), CatalogError> {
        if let Some(directory) = path.parent() {
            let io = |source| CatalogError::Io {
                path: directory.to_owned(),
                source,
            };
            std::fs::create_dir_all(directory).map_err(io)?;
        }
        match Self::try_open(path) {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => put_aside(path, "of another version")?,
            Err(error) if is_damage(&error) => put_aside(path, "damaged")?,
            Err(error) => return Err(error.into()),
        }
        let mut connection = Connection::open(path)?;
        schema::configure_writer(&connection)?;
        schema::create(&mut connection)?;
        Ok((Self::of(connection), true))
    }

    /// `None` = of another version.
    fn try_open(path: &Path) -> rusqlite::Result<Option<(Self, bool)>> {
        let mut connection = Connection::open(path)?;
        schema::configure_writer(&connection)?;
        let version = schema::version(&connection)?;
        if version == 0 {
            schema::create(&mut connection)?;
            return Ok(Some((Self::of(connection), true)));
        }
        if !schema::upgrade(&mut connection, version)? {
            return Ok(None);
        }
        // A torn file often opens; the first look at its pages tells.
        let check: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        if check != "ok" {
            return Ok(None);
        }
        schema::add_indices(&connection)?;
        Ok(Some((Self::of(connection), false)))
    }

    /// Opens the file for reading only.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open_reader(path: &Path) -> Result<Self, CatalogError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        schema::configure(&connection)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(Self::of(connection))
    }

    /// Opens a catalog that is there already for writing, beside its thread.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn open_beside(path: &Path) -> Result<Self, CatalogError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        schema::configure_writer(&connection)?;
        Ok(Self::of(connection))
    }

    fn of(connection: Connection) -> Self {
        Self {
            connection,
            sinks: OutboxSinks::default(),
        }
    }

    /// Sinks of hooks that are told of ends from now on.
    pub fn set_sinks(&mut self, sinks: OutboxSinks) {
        self.sinks = sinks;
    }

    /// The connection, to read.
    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs writes in one transaction.
    ///
    /// # Errors
    /// Nothing was written.
    pub(super) fn write(
        &mut self,
        writes: impl FnOnce(&Transaction<'_>, &OutboxSinks) -> Result<(), CatalogError>,
    ) -> Result<(), CatalogError> {
        // Others write too: a lock taken later than the first look could come too late.
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        writes(&transaction, &self.sinks)?;
        transaction.commit()?;
        Ok(())
    }

    /// Stores a call, replacing what was stored under its id.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn put_call(&mut self, call: &Call) -> Result<(), CatalogError> {
        self.write(|transaction, _| put_call(transaction, call))
    }

    /// Stores a recording, replacing what was stored under its number.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn put_recording(
        &mut self,
        recording: &Recording,
        storage: &Storage,
    ) -> Result<(), CatalogError> {
        self.write(|transaction, sinks| put_recording(transaction, recording, storage, sinks))
    }

    /// One call.
    ///
    /// # Errors
    /// It could not be read.
    pub fn call(&self, id: &str) -> Result<Option<Call>, CatalogError> {
        let mut query = self
            .connection
            .prepare_cached("SELECT body FROM calls WHERE id = ?1")?;
        let body: Option<String> = query.query_row([id], |row| row.get(0)).optional()?;
        Ok(body.map(|body| serde_json::from_str(&body)).transpose()?)
    }

    /// One recording.
    ///
    /// # Errors
    /// It could not be read.
    pub fn recording(&self, id: &str) -> Result<Option<StoredRecording>, CatalogError> {
        let mut query = self.connection.prepare_cached(BY_ID)?;
        let row = query.query_row([id], stored_row).optional()?;
        row.map(stored).transpose()
    }

    /// Whether a recording of this number is stored.
    ///
    /// # Errors
    /// It could not be read.
    pub(super) fn has_recording(&self, number: u64) -> Result<bool, CatalogError> {
        let mut query = self
            .connection
            .prepare_cached("SELECT 1 FROM recordings WHERE number = ?1")?;
        Ok(query.exists([to_signed(number)])?)
    }

    /// All recordings whose state is not final, oldest first.
    ///
    /// # Errors
    /// They could not be read.
    pub fn unfinished_recordings(&self) -> Result<Vec<StoredRecording>, CatalogError> {
        let mut query = self.connection.prepare_cached(
            "SELECT number, last_segment, last_page, extents, bytes, body FROM recordings
             WHERE state IN ('recording', 'paused', 'finishing') ORDER BY number",
        )?;
        let rows = query.query_map([], stored_row)?;
        rows.map(|row| stored(row?)).collect()
    }

    /// Recordings that are finished and not deleted and meet the conditions, the oldest first, behind a
    /// place in that order.
    ///
    /// # Errors
    /// They could not be read.
    pub(super) fn oldest_finished(
        &self,
        conditions: &Conditions,
        after: Option<(Timestamp, u64)>,
        limit: usize,
    ) -> Result<Vec<StoredRecording>, CatalogError> {
        let (started_ms, number) = after.map_or((i64::MIN, 0), |(at, number)| (at.0, number));
        let sql = format!(
            "SELECT number, last_segment, last_page, extents, bytes, body FROM recordings
             WHERE state IN ('complete', 'partial', 'failed') AND (started_ms, number) > (?, ?)
             AND {} ORDER BY started_ms, number LIMIT {limit}",
            conditions.clause()
        );
        let mut query = self.connection.prepare_cached(&sql)?;
        let place = [
            Value::Integer(started_ms),
            Value::Integer(to_signed(number)),
        ];
        let values = place.into_iter().chain(conditions.values.iter().cloned());
        let rows = query.query_map(params_from_iter(values), stored_row)?;
        rows.map(|row| stored(row?)).collect()
    }

    /// Finished recordings that nobody asked to keep and that are kept only then.
    ///
    /// # Errors
    /// They could not be read.
    pub(super) fn unkept(&self) -> Result<Vec<StoredRecording>, CatalogError> {
        let mut query = self.connection.prepare_cached(
            "SELECT number, last_segment, last_page, extents, bytes, body FROM recordings
             WHERE json_extract(body, '$.kept') = 0 AND state IN ('complete', 'partial', 'failed')",
        )?;
        let rows = query.query_map([], stored_row)?;
        rows.map(|row| stored(row?)).collect()
    }

    /// Ids of the recordings on legal hold.
    ///
    /// # Errors
    /// They could not be read.
    pub(super) fn held_recordings(&self) -> Result<Vec<String>, CatalogError> {
        let mut query = self
            .connection
            .prepare_cached("SELECT id FROM recordings WHERE json_extract(body, '$.held') = 1")?;
        let ids = query.query_map([], |row| row.get(0))?;
        Ok(ids.collect::<rusqlite::Result<_>>()?)
    }

    /// Bytes of all recordings that are not deleted and meet the conditions.
    ///
    /// # Errors
    /// They could not be read.
    pub(super) fn kept_bytes(&self, conditions: &Conditions) -> Result<u64, CatalogError> {
        let sql = format!(
            "SELECT coalesce(sum(bytes), 0) FROM recordings WHERE state <> 'deleted' AND {}",
            conditions.clause()
        );
        let mut query = self.connection.prepare_cached(&sql)?;
        let values = params_from_iter(&conditions.values);
        Ok(to_unsigned(query.query_row(values, |row| row.get(0))?))
    }

    /// Hands over every call that started within a time, both ends included, in order.
    ///
    /// # Errors
    /// They could not be read; those of `take`.
    pub(super) fn each_call(
        &self,
        from: Timestamp,
        to: Timestamp,
        mut take: impl FnMut(Call) -> Result<(), CatalogError>,
    ) -> Result<(), CatalogError> {
        let mut query = self.connection.prepare_cached(
            "SELECT body FROM calls WHERE started_ms >= ?1 AND started_ms <= ?2
             ORDER BY started_ms, id",
        )?;
        let bodies = query.query_map(params![from.0, to.0], |row| row.get::<_, String>(0))?;
        for body in bodies {
            take(serde_json::from_str(&body?)?)?;
        }
        Ok(())
    }

    /// All calls whose state is not final.
    ///
    /// # Errors
    /// They could not be read.
    pub fn unfinished_calls(&self) -> Result<Vec<Call>, CatalogError> {
        let mut query = self.connection.prepare_cached(
            "SELECT body FROM calls WHERE state NOT IN ('ended', 'failed') ORDER BY started_ms",
        )?;
        let bodies = query.query_map([], |row| row.get::<_, String>(0))?;
        bodies
            .map(|body| Ok(serde_json::from_str(&body?)?))
            .collect()
    }

    /// A page of calls, newest first.
    ///
    /// # Errors
    /// It could not be read.
    pub fn list_calls(
        &self,
        filter: &CallFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Call>, CatalogError> {
        let mut conditions = Conditions::default();
        conditions.after(after);
        if !filter.states.is_empty() {
            let marks = vec!["?"; filter.states.len()].join(", ");
            let names = filter.states.iter().map(|state| text(state.name()));
            conditions.add(&format!("state IN ({marks})"), names);
        }
        let sql = conditions.select("body", "calls", limit);
        let mut query = self.connection.prepare_cached(&sql)?;
        let bodies = query.query_map(params_from_iter(conditions.values), |row| {
            row.get::<_, String>(0)
        })?;
        let calls = bodies.map(|body| Ok(serde_json::from_str(&body?)?));
        Ok(Page::cut(
            calls.collect::<Result<_, CatalogError>>()?,
            limit,
            false,
        ))
    }

    /// A page of recordings, newest first.
    ///
    /// # Errors
    /// It could not be read.
    pub fn list_recordings(
        &self,
        filter: &RecordingFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Recording>, CatalogError> {
        let mut conditions = Conditions::default();
        conditions.after(after);
        conditions.recording_filter(filter);
        let sql = conditions.select("body", "recordings", limit);
        let mut query = self.connection.prepare_cached(&sql)?;
        let bodies = query.query_map(params_from_iter(conditions.values), |row| {
            row.get::<_, String>(0)
        })?;
        let recordings = bodies.map(|body| Ok(serde_json::from_str(&body?)?));
        Ok(Page::cut(
            recordings.collect::<Result<_, CatalogError>>()?,
            limit,
            false,
        ))
    }
}

/// One recording with its place.
const BY_ID: &str =
    "SELECT number, last_segment, last_page, extents, bytes, body FROM recordings WHERE id = ?1";

/// The WHERE clause of a list.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions {
    clauses: Vec<String>,
    pub(super) values: Vec<Value>,
}

pub(super) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

impl Conditions {
    pub(super) fn add(&mut self, clause: &str, values: impl IntoIterator<Item = Value>) {
        self.clauses.push(clause.to_owned());
        self.values.extend(values);
    }

    pub(super) fn after(&mut self, cursor: Option<&Cursor>) {
        if let Some(cursor) = cursor {
            let values = [Value::Integer(cursor.started_at.0), text(&cursor.id)];
            self.add("(started_ms, id) < (?, ?)", values);
        }
    }

    fn recording_filter(&mut self, filter: &RecordingFilter) {
        if let Some(from) = filter.from {
            self.add("started_ms >= ?", [Value::Integer(from.0)]);
        }
        if let Some(to) = filter.to {
            self.add("started_ms <= ?", [Value::Integer(to.0)]);
        }
        if let Some(state) = filter.state {
            self.add("state = ?", [text(state.name())]);
        }
        if let Some(tenant) = &filter.tenant {
            self.add("tenant = ?", [text(tenant)]);
        }
        if let Some(prefix) = &filter.party {
            // Everything that begins with the prefix sorts before prefix + the highest character.
            let beyond = format!("{prefix}\u{10ffff}");
            self.add(
                "number IN (SELECT number FROM recording_parties WHERE user >= ? AND user < ?)",
                [text(prefix), Value::Text(beyond)],
            );
        }
        if let Some(call_id) = &filter.call_id {
            let clause = "number IN (SELECT number FROM recording_call_ids WHERE value = ?)";
            self.add(clause, [text(call_id)]);
        }
        for (name, value) in &filter.attributes {
            let clause =
                "number IN (SELECT number FROM recording_attributes WHERE name = ? AND value = ?)";
            self.add(clause, [text(name), text(value)]);
        }
    }

    /// All of them as one; true where there is none.
    fn clause(&self) -> String {
        match self.clauses.is_empty() {
            true => "1".to_owned(),
            false => self.clauses.join(" AND "),
        }
    }

    /// One row more than `limit`, which tells whether there is another page.
    pub(super) fn select(&self, columns: &str, table: &str, limit: usize) -> String {
        let condition = self.clause();
        let rows = limit + 1;
        format!(
            "SELECT {columns} FROM {table} WHERE {condition} ORDER BY started_ms DESC, id DESC LIMIT {rows}"
        )
    }
}

pub(super) fn put_call(transaction: &Transaction<'_>, call: &Call) -> Result<(), CatalogError> {
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO calls (id, started_ms, state, tenant, body) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let body = serde_json::to_string(call)?;
    statement.execute(params![
        call.id,
        call.started_at.0,
        call.state.name(),
        call.tenant,
        body
    ])?;
    Ok(())
}

pub(super) fn put_recording(
    transaction: &Transaction<'_>,
    recording: &Recording,
    storage: &Storage,
    sinks: &OutboxSinks,
) -> Result<(), CatalogError> {
    let number = to_signed(storage.number);
    outbox::note_recording(transaction, number, recording, sinks)?;
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO recordings (number, id, call_id, started_ms, state, verdict, tenant,
         last_segment, last_page, extents, bytes, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    statement.execute(params![
        number,
        recording.id,
        recording.call_id,
        recording.started_at.0,
        recording.state.name(),
        recording.verdict.map(crate::object::Verdict::name),
        recording.tenant,
        storage.last_segment,
        storage.last_page,
        storage.extents,
        to_signed(storage.bytes),
        serde_json::to_string(recording)?,
    ])?;
    for table in [
        "recording_parties",
        "recording_call_ids",
        "recording_attributes",
    ] {
        transaction
            .prepare_cached(&format!("DELETE FROM {table} WHERE number = ?1"))?
            .execute([number])?;
    }
    let mut statement = transaction
        .prepare_cached("INSERT OR IGNORE INTO recording_parties (user, number) VALUES (?1, ?2)")?;
    for user in party_users(recording) {
        statement.execute(params![user, number])?;
    }
    let mut statement = transaction.prepare_cached(
        "INSERT OR IGNORE INTO recording_call_ids (value, number) VALUES (?1, ?2)",
    )?;
    for id in call_ids(recording) {
        statement.execute(params![id, number])?;
    }
    let mut statement = transaction.prepare_cached(
        "INSERT INTO recording_attributes (name, value, number) VALUES (?1, ?2, ?3)",
    )?;
    for (name, value) in &recording.attributes {
        statement.execute(params![name, value, number])?;
    }
    Ok(())
}

/// Changes a recording that is stored already.
pub(super) fn change_recording(
    transaction: &Transaction<'_>,
    id: &str,
    sinks: &OutboxSinks,
    change: impl FnOnce(&mut Recording),
) -> Result<(), CatalogError> {
    let mut query = transaction.prepare_cached(BY_ID)?;
    let Some(row) = query.query_row([id], stored_row).optional()? else {
        return Ok(());
    };
    let StoredRecording {
        mut recording,
        storage,
    } = stored(row)?;
    change(&mut recording);
    put_recording(transaction, &recording, &storage, sinks)
}

/// Updates the place of a recording that is stored already.
pub(super) fn put_storage(
    transaction: &Transaction<'_>,
    storage: &Storage,
) -> Result<(), CatalogError> {
    let mut statement = transaction.prepare_cached(
        "UPDATE recordings SET last_segment = ?2, last_page = ?3, extents = ?4, bytes = ?5 WHERE number = ?1",
    )?;
    let (number, bytes) = (to_signed(storage.number), to_signed(storage.bytes));
    statement.execute(params![
        number,
        storage.last_segment,
        storage.last_page,
        storage.extents,
        bytes
    ])?;
    Ok(())
}

fn stored_row(row: &Row<'_>) -> rusqlite::Result<(Storage, String)> {
    let storage = Storage {
        number: to_unsigned(row.get(0)?),
        last_segment: row.get(1)?,
        last_page: row.get(2)?,
        extents: row.get(3)?,
        bytes: to_unsigned(row.get(4)?),
    };
    Ok((storage, row.get(5)?))
}

fn stored((storage, body): (Storage, String)) -> Result<StoredRecording, CatalogError> {
    let recording: Recording = serde_json::from_str(&body)?;
    Ok(StoredRecording { recording, storage })
}

/// SQLite's integers are signed; the same 64 bits are meant.
pub(super) fn to_signed(value: u64) -> i64 {
    value.cast_signed()
}

pub(super) fn to_unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Renames a catalog (and its journal) that cannot be used.
fn put_aside(path: &Path, why: &str) -> Result<(), CatalogError> {
    let stamp = crate::Timestamp::now().0;
    tracing::warn!(path = %path.display(), "the catalog is {why}; it is put aside and rebuilt from segments");
    for suffix in ["", "-wal", "-shm"] {
        let from = with_suffix(path, suffix);
        if from.exists() {
            let to = with_suffix(path, &format!(".{stamp}.old{suffix}"));
            let io = |source| CatalogError::Io {
                path: from.clone(),
                source,
            };
            std::fs::rename(&from, to).map_err(io)?;
        }
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether a recording's media paths have something to give.
impl StoredRecording {
    /// Its media was deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.recording.state == RecordingState::Deleted
    }
}
