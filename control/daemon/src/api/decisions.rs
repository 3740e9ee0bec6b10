//! What is decided about a recording: legal hold, attributes, deletion.

use super::Shared;
use super::error::ApiError;
use super::recordings::{blocking, find};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use std::collections::BTreeMap;
use std::time::Duration;
use trunkline_sinks::catalog::{Decision, Mark};
use trunkline_sinks::object::{Recording, RecordingState};

/// Attributes of one recording.
const ATTRIBUTES_MAX: usize = 64;
/// An attribute's name.
const NAME_BYTES_MAX: usize = 64;
/// An attribute's value.
const VALUE_BYTES_MAX: usize = 1024;
/// How long an answer waits until searches see what it says.
const VISIBLE_WITHIN: Duration = Duration::from_secs(2);

type Answer = Result<Json<Recording>, ApiError>;

/// Lets a decision hold and gives the recording as it is then.
async fn decide(shared: &Shared, id: &str, mark: Mark) -> Answer {
    let wanted = id.to_owned();
    let decision = blocking(shared, move |catalog| {
        let decision = catalog.decide(&wanted, mark)?;
        // It holds already; a slow disk only delays what searches find.
        let _ = catalog.flush(VISIBLE_WITHIN);
        Ok(decision)
    })
    .await?;
    match decision {
        Decision::Done => Ok(Json(find(shared, id).await?.recording)),
        Decision::Held => Err(ApiError::conflict("the recording is on legal hold")),
        Decision::Deleted => Err(ApiError::gone("the recording is deleted")),
    }
}

/// Sets the legal hold; repeating it is fine.
pub(super) async fn hold(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    find(&shared, &id).await?;
    decide(&shared, &id, Mark::Held(true)).await
}

/// Lifts the legal hold; repeating it is fine.
pub(super) async fn release(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    find(&shared, &id).await?;
    decide(&shared, &id, Mark::Held(false)).await
}

/// Sets the attributes named by a JSON object of texts, and removes those that are null there.
pub(super) async fn change_attributes(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let body = body.map_err(|_| ApiError::too_large())?;
    let changes: BTreeMap<String, Option<String>> =
        serde_json::from_slice(&body).map_err(|error| {
            ApiError::bad_request(format!("not an object of texts and nulls: {error}"))
        })?;
    let recording = find(&shared, &id).await?.recording;
    judge(&recording, &changes)?;
    decide(&shared, &id, Mark::Attributes(changes)).await
}

fn judge(
    recording: &Recording,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<(), ApiError> {
    for (name, value) in changes {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(ApiError::bad_request(format!(
                "an attribute's name has 1 to {NAME_BYTES_MAX} bytes"
            )));
        }
        if value
            .as_ref()
            .is_some_and(|value| value.len() > VALUE_BYTES_MAX)
        {
            return Err(ApiError::bad_request(format!(
                "attribute {name}: a value has at most {VALUE_BYTES_MAX} bytes"
            )));
        }
    }
    let kept = recording
        .attributes
        .keys()
        .filter(|name| !changes.contains_key(*name))
        .count();
    let set = changes.values().flatten().count();
    if kept + set > ATTRIBUTES_MAX {
        return Err(ApiError::bad_request(format!(
            "a recording has at most {ATTRIBUTES_MAX} attributes"
        )));
    }
    Ok(())
}

/// Deletes a recording: what stays is its entry; its bytes leave every segment before the answer.
pub(super) async fn delete(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    let stored = find(&shared, &id).await?;
    let recording = stored.recording;
    if !recording.state.is_final() {
        return Err(ApiError::conflict(
            "the recording is still being made; stop it first",
        ));
    }
    if recording.state != RecordingState::Deleted {
        let mark = Mark::Deleted(stored.storage.number, Box::new(recording));
        match decide(&shared, &id, mark).await {
            // Somebody else was faster: the erasing below waits for nobody.
            Err(error) if !error.is_gone() => return Err(error),
            _ => {}
        }
    }
    let segments = shared.context.data_dir.join("segments");
    blocking(&shared, move |catalog| catalog.erase_deleted(&segments)).await?;
    Ok(Json(find(&shared, &id).await?.recording))
}
