//! The HTTP API on `control.http`.
//!
//! [`handle`] is the seam to the core: requests with replies. [`events`] is what the core publishes.
//! The server has a thread and a runtime of its own, so that no client can slow signalling down.

mod audit;
mod auth;
mod calls;
mod cdrs;
mod decisions;
mod deliveries;
mod error;
pub mod events;
mod evidence;
mod explain;
pub mod handle;
mod health;
mod media;
mod metadata;
mod query;
mod recordings;
mod server;
mod siprec;
mod stream;

pub use server::ApiServer;

use crate::metrics::Metrics;
use crate::trace::Trace;
use axum::Router;
use axum::routing::{get, patch, post, put};
use error::ApiError;
use events::EventHub;
use handle::ControlHandle;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use trunkline_sinks::library::Library;

/// Captures being converted at once; others wait for their turn.
const CONVERSIONS_MAX: usize = 4;
/// A request's body.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What the API works on.
#[derive(Debug, Clone)]
pub struct ApiContext {
    /// The core.
    pub core: ControlHandle,
    /// The events.
    pub events: EventHub,
    /// The recordings.
    pub library: Arc<Library>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// What was on the wire lately.
    pub trace: Trace,
    /// `data_dir`.
    pub data_dir: PathBuf,
    /// Bearer token, when one is required.
    pub token: Option<String>,
}

/// What handlers share.
#[derive(Debug)]
struct Inner {
    context: ApiContext,
    conversions: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

type Shared = Arc<Inner>;

fn router(context: ApiContext, stopping: watch::Receiver<bool>) -> Router {
    let conversions = Arc::new(Semaphore::new(CONVERSIONS_MAX));
    let shared = Arc::new(Inner {
        context,
        conversions,
        stopping,
    });
    Router::new()
        .route("/v1/health", get(health::health))
        .route("/metrics", get(health::metrics))
        .route("/v1/workers", get(health::workers))
        .route("/v1/calls", get(calls::list))
        .route("/v1/calls/{id}", get(calls::one).delete(calls::hang_up))
        .route("/v1/calls/{id}/explain", get(explain::explain))
        .route("/v1/calls/{id}/pcapng", get(explain::pcapng))
        .route("/v1/calls/{id}/transfer", post(calls::transfer))
        .route("/v1/calls/{id}/recording", post(calls::act))
        .route("/v1/calls/{id}/recording/message", post(siprec::message))
        .route("/v1/cdrs", get(cdrs::list))
        .route("/v1/recordings", get(recordings::list))
        .route(
            "/v1/recordings/{id}",
            get(recordings::one).delete(decisions::delete),
        )
        .route("/v1/recordings/{id}/receipt", get(recordings::receipt))
        .route("/v1/recordings/{id}/sn3", get(media::sn3))
        .route("/v1/recordings/{id}/wav", get(media::wav))
        .route("/v1/recordings/{id}/metadata", get(metadata::metadata))
        .route(
            "/v1/recordings/{id}/hold",
            put(decisions::hold).delete(decisions::release),
        )
        .route(
            "/v1/recordings/{id}/attributes",
            patch(decisions::change_attributes),
        )
        .route("/v1/recordings/{id}/evidence", get(evidence::evidence))
        .route("/v1/audit", get(audit::audit))
        .route("/v1/deliveries", get(deliveries::list))
        .route(
            "/v1/deliveries/{id}",
            get(deliveries::one).delete(deliveries::give_up),
        )
        .route("/v1/deliveries/{id}/retry", post(deliveries::retry))
        .route("/v1/siprec", get(siprec::list))
        .route("/v1/siprec/{id}", get(siprec::one))
        .route("/v1/events", get(stream::events))
        .fallback(|| async { ApiError::not_found("no such path") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&shared),
            auth::check,
        ))
        .with_state(shared)
}
