//! The catalog's tables.

use rusqlite::Connection;

/// Raised when a table changes its shape. An older catalog gets what it lacks; a newer one is rebuilt.
pub(super) const VERSION: i32 = 3;
/// Without call detail records and outbox.
const VERSION_WITHOUT_CDRS: i32 = 1;
/// With an outbox that knows of one attempt only.
const VERSION_WITHOUT_ATTEMPTS: i32 = 2;

const TABLES: &str = "
CREATE TABLE calls (
    id TEXT PRIMARY KEY,
    started_ms INTEGER NOT NULL,
    state TEXT NOT NULL,
    tenant TEXT,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX calls_by_time ON calls (started_ms, id);

CREATE TABLE recordings (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    call_id TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    state TEXT NOT NULL,
    verdict TEXT,
    tenant TEXT,
    last_segment INTEGER NOT NULL,
    last_page INTEGER NOT NULL,
    extents INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX recordings_by_time ON recordings (started_ms, id);
CREATE INDEX recordings_by_call ON recordings (call_id);
CREATE INDEX recordings_by_state ON recordings (state, started_ms);

CREATE TABLE recording_parties (
    user TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (user, number)
) WITHOUT ROWID;
CREATE INDEX recording_parties_by_number ON recording_parties (number);

-- Call-IDs of all legs, and the Session-ID.
CREATE TABLE recording_call_ids (
    value TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (value, number)
) WITHOUT ROWID;
CREATE INDEX recording_call_ids_by_number ON recording_call_ids (number);

CREATE TABLE recording_attributes (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (name, value, number)
) WITHOUT ROWID;
CREATE INDEX recording_attributes_by_number ON recording_attributes (number);

-- The sequence after that of the last call detail record stored.
CREATE TABLE numbers (
    name TEXT PRIMARY KEY,
    next INTEGER NOT NULL
) WITHOUT ROWID;
";

const CDR_TABLES: &str = "
CREATE TABLE cdrs (
    id TEXT PRIMARY KEY,
    started_ms INTEGER NOT NULL,
    tenant TEXT,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX cdrs_by_time ON cdrs (started_ms, id);

-- Call-IDs of both legs, the call's id, and the Session-ID.
CREATE TABLE cdr_call_ids (
    value TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (value, id)
) WITHOUT ROWID;

-- Callbacks of hooks that end something. Those made stay: what is stored again is not told again.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    sink TEXT NOT NULL,
    subject TEXT NOT NULL,
    call_id TEXT NOT NULL,
    finish INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    state TEXT NOT NULL,
    body TEXT NOT NULL,
    outcome TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER NOT NULL DEFAULT 0,
    UNIQUE (sink, subject)
);
CREATE INDEX outbox_by_subject ON outbox (subject);
CREATE INDEX outbox_by_call ON outbox (call_id) WHERE state = 'waiting';
";

/// Settings of every connection.
pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -8192)
}

/// Settings of the writer. NORMAL survives the death of the process; what a power cut takes is
/// rebuilt from segments.
pub(super) fn configure_writer(connection: &Connection) -> rusqlite::Result<()> {
    configure(connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20)
}

/// Indices that came after the tables' version.
pub(super) fn add_indices(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE INDEX IF NOT EXISTS recordings_unkept ON recordings (number)
         WHERE json_extract(body, '$.kept') = 0;
         CREATE INDEX IF NOT EXISTS recordings_held ON recordings (number)
         WHERE json_extract(body, '$.held') = 1;
         CREATE INDEX IF NOT EXISTS outbox_by_due ON outbox (state, sink, due_ms, id);
         DROP INDEX IF EXISTS outbox_by_sink;",
    )
}

/// The version of the tables; 0 = there are none.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(CDR_TABLES)?;
    add_indices(&transaction)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

const ATTEMPTS: &str = "
ALTER TABLE outbox ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN due_ms INTEGER NOT NULL DEFAULT 0;
CREATE INDEX outbox_by_subject ON outbox (subject);
";

/// Gives a catalog of this version what it lacks; false where it is of no version that we know.
pub(super) fn upgrade(connection: &mut Connection, from: i32) -> rusqlite::Result<bool> {
    let missing = match from {
        VERSION => return Ok(true),
        VERSION_WITHOUT_CDRS => CDR_TABLES,
        VERSION_WITHOUT_ATTEMPTS => ATTEMPTS,
        _ => return Ok(false),
    };
    let transaction = connection.transaction()?;
    transaction.execute_batch(missing)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(true)
}
