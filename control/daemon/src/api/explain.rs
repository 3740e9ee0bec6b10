//! `/v1/calls/{id}/explain` and `…/pcapng`: how a call went, from the trace ring.

use super::Shared;
use super::calls::find;
use super::error::ApiError;
use super::recordings::blocking;
use crate::trace::{Mark, Message, summary, write_pcapng};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use trunkline_sinks::catalog::CdrFilter;
use trunkline_sinks::object::{Call, Role};

/// Legs of one call that are looked for.
const LEGS_MAX: usize = 1000;

/// What the ring has of one call.
struct Traced {
    /// Absent for a SIP Call-ID that never made a call.
    call: Option<Call>,
    /// Call-ID and role of every leg, attempts that failed included.
    legs: Vec<(String, Role)>,
    messages: Vec<Message>,
    dropped: u64,
}

/// `id` is a call's id, or the SIP Call-ID of one leg.
async fn trace(shared: &Shared, id: &str) -> Result<Traced, ApiError> {
    let call = find(shared, id).await.ok();
    let legs = match &call {
        Some(call) => legs(shared, call).await?,
        None => Vec::new(),
    };
    let call_ids: Vec<String> = match &call {
        Some(_) => legs.iter().map(|(id, _)| id.clone()).collect(),
        None => vec![id.to_owned()],
    };
    let (messages, dropped) = shared.context.trace.messages(&call_ids);
    if call.is_none() && messages.is_empty() {
        return Err(ApiError::not_found("no such call, and no message of it"));
    }
    Ok(Traced {
        call,
        legs,
        messages,
        dropped,
    })
}

/// The legs that the call shows, and those that are over already.
async fn legs(shared: &Shared, call: &Call) -> Result<Vec<(String, Role)>, ApiError> {
    let shown = call
        .legs
        .iter()
        .map(|leg| (leg.sip_call_id.clone(), leg.role));
    let mut legs: Vec<(String, Role)> = shown.collect();
    let filter = CdrFilter {
        call_id: Some(call.id.clone()),
        ..CdrFilter::default()
    };
    let over = blocking(shared, move |catalog| {
        catalog.list_cdrs(&filter, None, LEGS_MAX)
    })
    .await?;
    for record in over.items {
        if legs.iter().all(|(id, _)| *id != record.sip_call_id) {
            legs.push((record.sip_call_id, record.leg));
        }
    }
    Ok(legs)
}

fn message_json(traced: &Traced, message: &Message) -> Value {
    let mut own = traced.legs.iter().filter(|(id, _)| *id == message.call_id);
    let role = own.next().map_or("", |(_, role)| role.name());
    json!({
        "at": message.at,
        "leg": role,
        "received": message.received,
        "transport": message.transport.param_name(),
        "from": message.source.to_string(),
        "to": message.destination.to_string(),
        "sip_call_id": message.call_id,
        "summary": summary(&message.bytes),
    })
}

pub(super) async fn explain(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let traced = trace(&shared, &id).await?;
    let call = traced.call.as_ref();
    let marks: Vec<Mark> = call.map_or_else(Vec::new, |call| shared.context.trace.marks(&call.id));
    let sip: Vec<Value> = traced
        .messages
        .iter()
        .map(|message| message_json(&traced, message))
        .collect();
    Ok(Json(json!({
        "call": call,
        "sip": sip,
        "media": marks,
        "events": call.map_or_else(Vec::new, |call| events(&shared, &call.id)),
        "dropped": traced.dropped,
    })))
}

/// The published events that concern a call, as far as they are still kept.
fn events(shared: &Shared, call: &str) -> Vec<Value> {
    let kept = shared.context.events.after(0, usize::MAX);
    let own = kept.iter().filter(|event| event.data.contains(call));
    let told = own.filter_map(|event| {
        let data: Value = serde_json::from_str(&event.data).ok()?;
        let of_call = data["call"]["id"] == call || data["recording"]["call_id"] == call;
        of_call.then(|| json!({ "at": data["at"], "event": event.kind.name() }))
    });
    told.collect()
}

pub(super) async fn pcapng(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let traced = trace(&shared, &id).await?;
    let name = traced
        .call
        .map_or_else(|| "call".to_owned(), |call| call.id);
    let headers = [
        (CONTENT_TYPE, "application/x-pcapng".to_owned()),
        (
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}.pcapng\""),
        ),
    ];
    Ok((headers, write_pcapng(&traced.messages)).into_response())
}
