//! `/v1/calls`.

use super::Shared;
use super::error::ApiError;
use super::handle::{RecordingAction, TransferOrder};
use super::query::{Paging, Pairs, Parameters};
use super::recordings::blocking;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use trunkline_sinks::catalog::{CallFilter, Page};
use trunkline_sinks::object::{Call, CallState, Recording};

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
async fn not_live(shared: &Shared, id: &str) -> ApiError {
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
    servers: Option<Value>,
    settings: Option<Value>,
}

fn read_json<T: serde::de::DeserializeOwned>(
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

fn read_order(body: Result<Bytes, BytesRejection>) -> Result<Order, ApiError> {
    let order: Order = read_json(body, "recording action")?;
    if let Some(name) = order
        .recorder
        .as_deref()
        .filter(|name| !matches!(*name, "all" | "local"))
    {
        return Err(ApiError::not_supported(format!(
            "recorder {name:?}: not supported yet"
        )));
    }
    let given = |value: &Option<Value>| value.as_ref().is_some_and(|value| !value.is_null());
    if given(&order.servers) || given(&order.settings) {
        return Err(ApiError::not_supported(
            "servers, settings: not supported yet",
        ));
    }
    Ok(order)
}

pub(super) async fn act(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Recording>, ApiError> {
    let order = read_order(body)?;
    match shared
        .context
        .core
        .recording_action(&id, order.action)
        .await?
    {
        Ok(recording) => Ok(Json(recording)),
        Err(super::handle::ActionError::NotFound) => Err(not_live(&shared, &id).await),
        Err(error) => Err(error.into()),
    }
}
