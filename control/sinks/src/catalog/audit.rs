//! The audit: which calls that should have been recorded were not, or not whole.

use super::store::{Catalog, CatalogError};
use super::thread::CatalogHandle;
use crate::Timestamp;
use crate::object::{Call, RecordingState, Verdict};
use serde::Serialize;

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Calls that started at or after this moment.
    pub from: Timestamp,
    /// Calls that started at or before this moment.
    pub to: Timestamp,
    /// Calls of that time that were to be recorded.
    pub expected: u64,
    /// Those whose recordings all are complete.
    pub complete: u64,
    /// Those of which a recording is still being made, and nothing is wrong so far.
    pub pending: u64,
    /// What is wrong.
    pub exceptions: Vec<AuditException>,
}

/// A call without a recording, or with one that is not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditException {
    /// The call.
    pub call_id: String,
    /// The recording, if there is one.
    pub recording_id: Option<String>,
    /// Why it is listed: `no recording`, or a verdict or state.
    pub why: String,
}

impl CatalogHandle {
    /// Compares the calls that started within a time and were to be recorded with their recordings.
    ///
    /// # Errors
    /// The catalog could not be read.
    pub fn audit(&self, from: Timestamp, to: Timestamp) -> Result<Audit, CatalogError> {
        self.read(|catalog| audit(catalog, from, to))
    }
}

fn audit(catalog: &Catalog, from: Timestamp, to: Timestamp) -> Result<Audit, CatalogError> {
    let mut audit = Audit {
        from,
        to,
        expected: 0,
        complete: 0,
        pending: 0,
        exceptions: Vec::new(),
    };
    catalog.each_call(from, to, |call| {
        if !call.recording_expected {
            return Ok(());
        }
        audit.expected += 1;
        let before = audit.exceptions.len();
        let pending = judge(catalog, &call, &mut audit.exceptions)?;
        if audit.exceptions.len() == before {
            if pending {
                audit.pending += 1;
            } else {
                audit.complete += 1;
            }
        }
        Ok(())
    })?;
    Ok(audit)
}

/// Adds what is wrong with a call's recordings; whether one of them may still change.
fn judge(
    catalog: &Catalog,
    call: &Call,
    exceptions: &mut Vec<AuditException>,
) -> Result<bool, CatalogError> {
    let mut add = |recording_id: Option<&String>, why: String| {
        exceptions.push(AuditException {
            call_id: call.id.clone(),
            recording_id: recording_id.cloned(),
            why,
        });
    };
    if call.recordings.is_empty() {
        if call.state.is_final() {
            add(None, "no recording".to_owned());
        }
        return Ok(!call.state.is_final());
    }
    let mut pending = false;
    for id in &call.recordings {
        let Some(stored) = catalog.recording(id)? else {
            add(Some(id), "no recording".to_owned());
            continue;
        };
        let recording = stored.recording;
        match (recording.state, recording.verdict) {
            (RecordingState::Failed, _) => add(Some(id), "failed".to_owned()),
            (_, Some(Verdict::Complete)) => {}
            (_, Some(verdict)) => add(Some(id), verdict.name().to_owned()),
            (state, None) if state.is_final() => add(Some(id), "no verdict".to_owned()),
            (_, None) => pending = true,
        }
    }
    Ok(pending)
}
