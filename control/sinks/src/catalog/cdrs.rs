//! Final call detail records in the catalog.

use super::filter::{Cursor, Page};
use super::outbox::{self, OutboxSinks};
use super::store::{Catalog, CatalogError, Conditions, text, to_signed, to_unsigned};
use crate::Timestamp;
use crate::cdr::Cdr;
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Transaction, params, params_from_iter};

/// Under this name `numbers` holds the sequence after that of the last record stored.
const SEQUENCE: &str = "cdr_sequence";

/// Narrows a list of records; `None` = any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CdrFilter {
    /// `invited_at` not before.
    pub from: Option<Timestamp>,
    /// `invited_at` not after.
    pub to: Option<Timestamp>,
    /// Call-ID of either leg, id of the call, or Session-ID.
    pub call_id: Option<String>,
    /// Tenant.
    pub tenant: Option<String>,
}

impl CdrFilter {
    /// The same judgement as the catalog's query, for records that are not stored yet.
    pub(super) fn matches(&self, cdr: &Cdr) -> bool {
        self.from.is_none_or(|from| cdr.invited_at >= from)
            && self.to.is_none_or(|to| cdr.invited_at <= to)
            && self
                .tenant
                .as_ref()
                .is_none_or(|tenant| cdr.tenant.as_ref() == Some(tenant))
            && self
                .call_id
                .as_ref()
                .is_none_or(|wanted| cdr.call_ids().any(|id| id == wanted))
    }
}

impl Catalog {
    /// Sequence of the last record stored; 0 = none.
    ///
    /// # Errors
    /// It could not be read.
    pub fn cdr_sequence(&self) -> Result<u64, CatalogError> {
        let next: Option<i64> = self
            .connection()
            .query_row(
                "SELECT next FROM numbers WHERE name = ?1",
                [SEQUENCE],
                |row| row.get(0),
            )
            .optional()?;
        Ok(next.map_or(0, |next| to_unsigned(next).saturating_sub(1)))
    }

    /// Stores final records and what hooks are to be told of them, in one transaction.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn put_cdrs(&mut self, records: &[Cdr]) -> Result<(), CatalogError> {
        self.write(|transaction, sinks| {
            records
                .iter()
                .try_for_each(|record| put_cdr(transaction, record, sinks))
        })
    }

    /// A page of records, newest first.
    ///
    /// # Errors
    /// It could not be read.
    pub fn list_cdrs(
        &self,
        filter: &CdrFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Cdr>, CatalogError> {
        let mut conditions = Conditions::default();
        conditions.after(after);
        if let Some(from) = filter.from {
            conditions.add("started_ms >= ?", [Value::Integer(from.0)]);
        }
        if let Some(to) = filter.to {
            conditions.add("started_ms <= ?", [Value::Integer(to.0)]);
        }
        if let Some(tenant) = &filter.tenant {
            conditions.add("tenant = ?", [text(tenant)]);
        }
        if let Some(call_id) = &filter.call_id {
            let clause = "id IN (SELECT id FROM cdr_call_ids WHERE value = ?)";
            conditions.add(clause, [text(call_id)]);
        }
        let sql = conditions.select("body", "cdrs", limit);
        let mut query = self.connection().prepare_cached(&sql)?;
        let bodies = query.query_map(params_from_iter(conditions.values), |row| {
            row.get::<_, String>(0)
        })?;
        let records = bodies.map(|body| Ok(serde_json::from_str(&body?)?));
        let records = records.collect::<Result<_, CatalogError>>()?;
        Ok(Page::cut(records, limit, false))
    }
}

pub(super) fn put_cdr(
    transaction: &Transaction<'_>,
    cdr: &Cdr,
    sinks: &OutboxSinks,
) -> Result<(), CatalogError> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO cdrs (id, started_ms, tenant, body) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            cdr.id,
            cdr.invited_at.0,
            cdr.tenant,
            serde_json::to_string(cdr)?
        ])?;
    let mut statement = transaction
        .prepare_cached("INSERT OR IGNORE INTO cdr_call_ids (value, id) VALUES (?1, ?2)")?;
    for value in cdr.call_ids() {
        statement.execute(params![value, cdr.id])?;
    }
    transaction
        .prepare_cached(
            "INSERT INTO numbers (name, next) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET next = max(next, excluded.next)",
        )?
        .execute(params![SEQUENCE, to_signed(cdr.sequence + 1)])?;
    outbox::note_leg(transaction, cdr, sinks)
}
