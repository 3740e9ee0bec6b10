//! `/v1/health`, `/metrics` and `/v1/workers`.

use super::Shared;
use super::calls::list_json;
use super::recordings::blocking;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use trunkline_sinks::catalog::CatalogHandle;

/// 503 when a new call would be refused.
pub(super) async fn health(State(shared): State<Shared>) -> (StatusCode, Json<Value>) {
    let data_dir = shared.context.data_dir.clone();
    let disk_free_bytes = tokio::task::spawn_blocking(move || disk_free_bytes(data_dir))
        .await
        .ok()
        .flatten();
    let Ok(health) = shared.context.core.health().await else {
        let body = json!({
            "status": "degraded", "dataplane": "unknown", "capture": "unknown",
            "disk_free_bytes": disk_free_bytes,
        });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body));
    };
    let status = if health.refuses_calls() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let body = json!({
        "status": health.status(),
        "dataplane": if health.dataplane_up { "up" } else { "down" },
        "capture": if health.capture_failing { "failing" } else { "ok" },
        "disk_free_bytes": disk_free_bytes,
    });
    (status, Json(body))
}

/// Free bytes where segments are written; `None` when the file system does not say.
fn disk_free_bytes(mut path: PathBuf) -> Option<u64> {
    loop {
        if let Ok(found) = nix::sys::statvfs::statvfs(&path) {
            return Some(
                found
                    .blocks_available()
                    .saturating_mul(found.fragment_size()),
            );
        }
        // The directory may not have been made yet: its parent is on the same file system.
        if !path.pop() || path.as_os_str().is_empty() {
            return None;
        }
    }
}

pub(super) async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let finished = shared.context.metrics.finished_receipts_dropped();
    if let Ok(running) = shared.context.core.recordings().await {
        let receipts = running
            .iter()
            .filter_map(|recording| recording.receipt.as_ref());
        shared.context.metrics.note_running(finished, receipts);
    }
    if let Ok(undelivered) = blocking(&shared, CatalogHandle::undelivered).await {
        shared.context.metrics.set_undelivered(undelivered);
    }
    (
        [(CONTENT_TYPE, content_type)],
        shared.context.metrics.scrape(),
    )
}

/// What each worker counts.
pub(super) async fn workers(State(shared): State<Shared>) -> Json<Value> {
    let workers = shared.context.metrics.workers();
    let items = workers.into_iter().enumerate().map(|(worker, counters)| {
        let counters: Map<String, Value> = counters
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        json!({ "worker": worker, "counters": counters })
    });
    Json(list_json(items.collect::<Vec<_>>(), None))
}
