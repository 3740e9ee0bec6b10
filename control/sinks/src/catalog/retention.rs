//! How long recordings are kept: by age, and by the room they take.

use super::marks::{Decision, Mark};
use super::store::{CatalogError, StoredRecording};
use super::thread::CatalogHandle;
use crate::Timestamp;

/// Recordings looked at in one query.
const PAGE: usize = 500;

/// What is kept; `None` = no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionRules {
    /// Recordings that ended longer ago are deleted, ms.
    pub keep_ms: Option<u64>,
    /// While all recordings together take more, the oldest are deleted.
    pub quota_bytes: Option<u64>,
}

impl RetentionRules {
    /// Nothing is ever deleted.
    #[must_use]
    pub const fn is_unlimited(&self) -> bool {
        self.keep_ms.is_none() && self.quota_bytes.is_none()
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
        if rules.is_unlimited() {
            return Ok(deleted);
        }
        let mut kept_bytes = match rules.quota_bytes {
            Some(_) => self.read(|catalog| catalog.kept_bytes())?,
            None => 0,
        };
        let mut after = None;
        loop {
            let page = self.read(|catalog| catalog.oldest_finished(after, PAGE))?;
            let Some(last) = page.last() else {
                return Ok(deleted);
            };
            after = Some((last.recording.started_at, last.storage.number));
            for stored in page {
                let over = rules.quota_bytes.is_some_and(|quota| kept_bytes > quota);
                let old = rules
                    .keep_ms
                    .is_some_and(|keep| is_older(&stored, keep, now));
                if !over && !old {
                    // Those that started later may still have ended early enough; the next round will see.
                    return Ok(deleted);
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
