//! How long recordings are kept: by age and by the room they take, for each tenant and class.

use super::marks::{Decision, Mark};
use super::store::{CatalogError, Conditions, StoredRecording, text};
use super::thread::CatalogHandle;
use crate::Timestamp;
use rusqlite::types::Value;
use std::time::Duration;

/// Recordings looked at in one query.
const PAGE: usize = 500;
/// How long deletions may take to show in the catalog.
const VISIBLE_WITHIN: Duration = Duration::from_secs(10);

/// What is kept of the recordings that a rule is about; `None` = no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionRule {
    /// Recordings of this tenant; `None` = any, or none.
    pub tenant: Option<String>,
    /// Recordings whose attribute [`CLASS`] has this value; `None` = any, or none.
    pub class: Option<String>,
    /// Recordings that ended longer ago are deleted, ms.
    pub keep_ms: Option<u64>,
    /// While all these recordings together take more, the oldest are deleted.
    pub quota_bytes: Option<u64>,
}

/// Name of the attribute that is a recording's class.
pub const CLASS: &str = "class";

/// What is kept; `None` = no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionRules {
    /// The first that fits a recording decides about it.
    pub rules: Vec<RetentionRule>,
    /// Where no rule fits: recordings that ended longer ago are deleted, ms.
    pub keep_ms: Option<u64>,
    /// While all recordings together, whatever rules fit, take more, the oldest are deleted.
    pub quota_bytes: Option<u64>,
    /// Outbox names of sinks: what one of them has not got yet is not deleted.
    pub keepers: Vec<String>,
}

impl RetentionRules {
    /// The recordings that each rule decides about, with the rule; last those that none fits.
    fn groups(&self) -> Vec<(Conditions, RetentionRule)> {
        let otherwise = RetentionRule {
            keep_ms: self.keep_ms,
            ..RetentionRule::default()
        };
        let mut groups = Vec::new();
        let mut earlier = Conditions::default();
        for rule in self.rules.iter().chain([&otherwise]) {
            let mut own = earlier.clone();
            let (clause, values) = fits(rule);
            own.add(&clause, values.clone());
            groups.push((own, rule.clone()));
            earlier.add(&format!("NOT ({clause})"), values);
        }
        groups
    }

    /// A recording that waits for a sink is left alone.
    fn only_delivered(&self, conditions: &mut Conditions) {
        if self.keepers.is_empty() {
            return;
        }
        let marks = vec!["?"; self.keepers.len()].join(", ");
        let clause = format!(
            "NOT EXISTS (SELECT 1 FROM outbox WHERE subject = recordings.id AND finish = 1
             AND state <> 'done' AND sink IN ({marks}))"
        );
        conditions.add(&clause, self.keepers.iter().map(|name| text(name)));
    }
}

/// Whether a rule fits a row of the recordings.
fn fits(rule: &RetentionRule) -> (String, Vec<Value>) {
    let (mut clauses, mut values) = (Vec::new(), Vec::new());
    if let Some(tenant) = &rule.tenant {
        // Of a recording without tenant an equality would not be false but unknown.
        clauses.push("tenant IS ?");
        values.push(text(tenant));
    }
    if let Some(class) = &rule.class {
        clauses.push(
            "number IN (SELECT number FROM recording_attributes WHERE name = ? AND value = ?)",
        );
        values.extend([text(CLASS), text(class)]);
    }
    match clauses.is_empty() {
        true => ("1".to_owned(), values),
        false => (clauses.join(" AND "), values),
    }
}

impl CatalogHandle {
    /// Deletes what the rules let go, the oldest first; what is on legal hold stays, and counts. Gives
    /// the ids. Their extents are erased by [`CatalogHandle::erase_deleted`].
    ///
    /// # Errors
    /// The catalog could not be read, or a decision not be written; what was deleted before stays so.
    pub fn expire(
        &self,
        rules: &RetentionRules,
        now: Timestamp,
    ) -> Result<Vec<String>, CatalogError> {
        let mut deleted = Vec::new();
        for (group, rule) in rules.groups() {
            self.expire_group(rules, &group, &rule, now, &mut deleted)?;
        }
        let all = RetentionRule {
            quota_bytes: rules.quota_bytes,
            ..RetentionRule::default()
        };
        // What went just now counts no longer.
        if deleted.is_empty() || self.flush(VISIBLE_WITHIN) {
            self.expire_group(rules, &Conditions::default(), &all, now, &mut deleted)?;
        }
        Ok(deleted)
    }

    fn expire_group(
        &self,
        rules: &RetentionRules,
        group: &Conditions,
        rule: &RetentionRule,
        now: Timestamp,
        deleted: &mut Vec<String>,
    ) -> Result<(), CatalogError> {
        let mut kept_bytes = match (rule.quota_bytes, rule.keep_ms) {
            (None, None) => return Ok(()),
            (Some(_), _) => self.read(|catalog| catalog.kept_bytes(group))?,
            _ => 0,
        };
        let mut candidates = group.clone();
        rules.only_delivered(&mut candidates);
        let mut after = None;
        loop {
            let page = self.read(|catalog| catalog.oldest_finished(&candidates, after, PAGE))?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some((last.recording.started_at, last.storage.number));
            for stored in page {
                let over = rule.quota_bytes.is_some_and(|quota| kept_bytes > quota);
                let old = rule
                    .keep_ms
                    .is_some_and(|keep| is_older(&stored, keep, now));
                if !over && !old {
                    // Those that started later may still have ended early enough; the next round will see.
                    return Ok(());
                }
                let StoredRecording { recording, storage } = stored;
                let id = recording.id.clone();
                let mark = Mark::Deleted(storage.number, Box::new(recording));
                if self.decide(&id, mark)? == Decision::Done {
                    kept_bytes = kept_bytes.saturating_sub(storage.bytes);
                    deleted.push(id);
                }
            }
        }
    }

    /// Deletes finished recordings that were made on the condition that somebody asks to keep them, and
    /// that nobody asked for. Gives how many.
    ///
    /// # Errors
    /// The catalog could not be read, or a decision not be written.
    pub fn discard_unkept(&self) -> Result<usize, CatalogError> {
        let mut discarded = 0;
        for stored in self.read(|catalog| catalog.unkept())? {
            let id = stored.recording.id.clone();
            let mark = Mark::Deleted(stored.storage.number, Box::new(stored.recording));
            if self.decide(&id, mark)? == Decision::Done {
                discarded += 1;
            }
        }
        Ok(discarded)
    }
}

fn is_older(stored: &StoredRecording, keep_ms: u64, now: Timestamp) -> bool {
    let recording = &stored.recording;
    let ended_at = recording.ended_at.unwrap_or(recording.started_at);
    now.ms_since(ended_at) > keep_ms
}
