//! `/v1/audit`: calls that should have been recorded, against what was.

use super::Shared;
use super::error::ApiError;
use super::query::{Pairs, Parameters};
use super::recordings::blocking;
use axum::Json;
use axum::extract::State;
use serde_json::Value;
use std::time::Duration;
use trunkline_sinks::Timestamp;
use trunkline_sn3::proof::canonical;

/// How long the audit waits for what the catalog has not written yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// The audit, signed where a key is configured: over everything but the signature, as canonical JSON.
pub(super) async fn audit(
    State(shared): State<Shared>,
    pairs: Pairs,
) -> Result<Json<Value>, ApiError> {
    let mut parameters = Parameters::new(pairs)?;
    let (from, to) = parameters.span()?;
    parameters.finish()?;
    let found = blocking(&shared, move |catalog| {
        // What is missing would be reported as not recorded.
        let _ = catalog.flush(PATIENCE);
        catalog.audit(from, to)
    })
    .await?;
    let mut report =
        serde_json::to_value(found).map_err(|error| ApiError::internal(error.to_string()))?;
    report["made_at"] = Timestamp::now().to_string().into();
    if let Some(signer) = &shared.context.library.signer {
        report["public_key"] = signer.public_key().into();
        report["signature"] = signer.sign(&canonical(&report)).into();
    }
    Ok(Json(report))
}
