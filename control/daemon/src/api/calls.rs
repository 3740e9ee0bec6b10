//! `/v1/calls`.

use super::Shared;
use super::error::ApiError;
use super::handle::{RecorderOrder, RecordingAction, TransferOrder};
use super::query::{Paging, Pairs, Parameters};
use super::recordings::blocking;
use super::siprec::{self, GivenSettings};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use trunkline_sinks::catalog::{CallFilter, Page};
use trunkline_sinks::object::{Call, CallState};

/// Live calls, or with `state=ended` those that are over.
pub(super) async fn list(
    State(shared): State<Shared>,
    pairs: Pairs,
) -> Result<Json<Value>, ApiError> {
    let mut parameters = Parameters::new(pairs)?;
    let Paging { after, limit } = parameters.paging()?;
    let state = parameters.call_state()?;
    parameters.finish()?;
    let page = match state {
        Some(state) if state.is_final() => {
            // History holds every call that is over; only `failed` narrows it further.
            let states = match state {
                CallState::Failed => vec![CallState::Failed],
                _ => vec![CallState::Ended, CallState::Failed],
            };
            blocking(&shared, move |catalog| {
                catalog.list_calls(&CallFilter { states }, after.as_ref(), limit)
            })
            .await?
        }
        _ => {
            let mut calls = shared.context.core.calls().await?;
            calls.retain(|call| {
                !call.state.is_final() && state.is_none_or(|state| call.state == state)
            });
            Page::of_calls(calls, after.as_ref(), limit)
        }
    };
    Ok(Json(list_json(
        page.items,
        page.next.map(|next| next.to_string()),
    )))
}

pub(super) fn list_json<T: serde::Serialize>(items: Vec<T>, next: Option<String>) -> Value {
    json!({ "items": items, "next": next })
}

pub(super) async fn find(shared: &Shared, id: &str) -> Result<Call, ApiError> {
    if let Some(call) = shared.context.core.call(id).await? {
        return Ok(call);
    }
    let wanted = id.to_owned();
    let call = blocking(shared, move |catalog| catalog.call(&wanted)).await?;
    call.ok_or_else(|| ApiError::not_found("no such call"))
}

pub(super) async fn one(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Call>, ApiError> {
    find(&shared, &id).await.map(Json)
}

/// The error of an action on a call that is not live: 409 when it is over, 404 when it never was.
pub(super) async fn not_live(shared: &Shared, id: &str) -> ApiError {
    match find(shared, id).await {
        Ok(_) => ApiError::conflict("the call is over"),
        Err(error) => error,
    }
}

pub(super) async fn hang_up(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Call>), ApiError> {
    match shared.context.core.hangup(&id).await? {
        Ok(call) => Ok((StatusCode::ACCEPTED, Json(call))),
        Err(super::handle::ActionError::NotFound) => Err(not_live(&shared, &id).await),
        Err(error) => Err(error.into()),
    }
}

/// Body of a recording action.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    action: RecordingAction,
    recorder: Option<String>,
    servers: Option<Vec<String>>,
    settings: Option<GivenSettings>,
}

pub(super) fn read_json<T: serde::de::DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
    what: &str,
) -> Result<T, ApiError> {
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(),
        _ => ApiError::bad_request(error.body_text()),
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request(format!("the body is no {what}: {error}")))
}

/// Begins a transfer: 202; how it ends is told by `call.bridged` or `call.transfer_failed`.
pub(super) async fn transfer(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Call>), ApiError> {
    let order: TransferOrder = read_json(body, "transfer")?;
    match shared.context.core.transfer(&id, order).await? {
        Ok(call) => Ok((StatusCode::ACCEPTED, Json(call))),
        Err(super::handle::ActionError::NotFound) => Err(not_live(&shared, &id).await),
        Err(error) => Err(error.into()),
    }
}

/// Acts on the recording here, on recording sessions, or on both: 200 with the recording, or with the
/// session where the recording here is not meant.
pub(super) async fn act(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let order: Order = read_json(body, "recording action")?;
    let given = siprec::given_recorder(order.recorder.as_deref(), order.servers, order.settings)?;
    if given.is_some() && order.action != RecordingAction::Start {
        return Err(ApiError::bad_request("servers are given to a start only"));
    }
    let all = matches!(order.recorder.as_deref(), None | Some("all"));
    let local = order.recorder.as_deref() == Some("local") || (all && given.is_none());
    let recorders = order.recorder.as_deref() != Some("local");
    let (action, chosen) = (order.action, siprec::chosen(order.recorder.as_deref()));
    let act = |recorder| RecorderOrder::Act { action, recorder };
    if !local {
        let sessions = siprec::act(&shared, &id, chosen, act(given)).await?;
        return Ok(Json(json!(sessions.first())));
    }
    // Without recorders the call has its recording here only; with some, either may be missing.
    let live = match recorders {
        true => shared.context.core.siprec().await?,
        false => Vec::new(),
    };
    let recorded = live.iter().any(|one| one.call.as_deref() == Some(&id));
    let remote = match recorded && action != RecordingAction::Keep {
        true => Some(siprec::act(&shared, &id, chosen, act(None)).await?),
        false => None,
    };
    match shared.context.core.recording_action(&id, action).await? {
        Ok(recording) => Ok(Json(json!(recording))),
        Err(super::handle::ActionError::NotFound) => Err(not_live(&shared, &id).await),
        // The call is recorded elsewhere only.
        Err(super::handle::ActionError::WrongState(_)) if remote.is_some() => {
            Ok(Json(json!(remote.unwrap_or_default().first())))
        }
        Err(error) => Err(error.into()),
    }
}
