//! `/v1/recordings` without its media.

use super::Shared;
use super::calls::list_json;
use super::error::ApiError;
use super::query::{Paging, Pairs, Parameters};
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use std::collections::HashMap;
use trunkline_sinks::catalog::{CatalogError, CatalogHandle, StoredRecording};
use trunkline_sinks::object::Recording;

/// Asks the catalog on a thread that may wait for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    shared: &Shared,
    ask: impl FnOnce(&CatalogHandle) -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, ApiError> {
    let catalog = shared.context.library.catalog.clone();
    match tokio::task::spawn_blocking(move || ask(&catalog)).await {
        Ok(answer) => Ok(answer?),
        Err(error) => Err(ApiError::internal(format!(
            "the catalog's reader failed: {error}"
        ))),
    }
}

pub(super) async fn list(
    State(shared): State<Shared>,
    pairs: Pairs,
) -> Result<Json<Value>, ApiError> {
    let mut parameters = Parameters::new(pairs)?;
    let Paging { after, limit } = parameters.paging()?;
    let filter = parameters.recording_filter()?;
    parameters.finish()?;
    let state = filter.state;
    let page = blocking(&shared, move |catalog| {
        catalog.list_recordings(&filter, after.as_ref(), limit)
    })
    .await?;
    let next = page.next.map(|next| next.to_string());
    let mut items = page.items;
    if items.iter().any(|recording| !recording.state.is_final()) {
        let mut live = live_by_id(&shared).await;
        for item in &mut items {
            if let Some(recording) = live.remove(&item.id) {
                *item = recording;
            }
        }
        items.retain(|recording| state.is_none_or(|state| recording.state == state));
    }
    Ok(Json(list_json(items, next)))
}

/// Recordings that still change, as the core knows them; none while the core does not answer.
async fn live_by_id(shared: &Shared) -> HashMap<String, Recording> {
    let live = shared.context.core.recordings().await.unwrap_or_default();
    live.into_iter()
        .map(|mut recording| {
            shared.context.library.catalog.mark(&mut recording);
            (recording.id.clone(), recording)
        })
        .collect()
}

/// A recording as it is now, with its place.
pub(super) async fn find(shared: &Shared, id: &str) -> Result<StoredRecording, ApiError> {
    let wanted = id.to_owned();
    let stored = blocking(shared, move |catalog| catalog.recording(&wanted)).await?;
    let mut stored = stored.ok_or_else(|| ApiError::not_found("no such recording"))?;
    if !stored.recording.state.is_final()
        && let Some(live) = live_by_id(shared).await.remove(id)
    {
        stored.recording = live;
    }
    Ok(stored)
}

pub(super) async fn one(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Recording>, ApiError> {
    Ok(Json(find(&shared, &id).await?.recording))
}

pub(super) async fn receipt(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let recording = find(&shared, &id).await?.recording;
    let receipt = recording.receipt.unwrap_or_default();
    Ok(Json(json!({
        "recording_id": recording.id,
        "call_id": recording.call_id,
        "state": recording.state,
        "verdict": recording.verdict,
        "caller": receipt.caller,
        "callee": receipt.callee,
        "streams": receipt.streams,
        "gaps": receipt.gaps,
        "chain": receipt.chain,
        "indications": receipt.indications,
        "preferences": receipt.preferences,
    })))
}
