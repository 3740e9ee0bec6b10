//! `/v1/deliveries`: what goes to sinks and hooks, and what was given up.

use super::Shared;
use super::calls::list_json;
use super::error::ApiError;
use super::query::{Pairs, Parameters};
use super::recordings::blocking;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::Value;
use trunkline_sinks::catalog::{CatalogError, CatalogHandle, Delivery, Ordered};

/// Deliveries, the newest first.
pub(super) async fn list(
    State(shared): State<Shared>,
    pairs: Pairs,
) -> Result<Json<Value>, ApiError> {
    let mut parameters = Parameters::new(pairs)?;
    let (filter, limit) = parameters.delivery_filter()?;
    parameters.finish()?;
    let asked = move |catalog: &CatalogHandle| catalog.deliveries(&filter, limit + 1);
    let mut items = blocking(&shared, asked).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    let next = last.map(|last| last.id.to_string());
    Ok(Json(list_json(items, next)))
}

async fn find(shared: &Shared, id: i64) -> Result<Delivery, ApiError> {
    let found = blocking(shared, move |catalog| catalog.delivery(id)).await?;
    found.ok_or_else(|| ApiError::not_found("no such delivery"))
}

/// One delivery.
pub(super) async fn one(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Delivery>, ApiError> {
    find(&shared, number(&id)?).await.map(Json)
}

/// Has a dead letter delivered again.
pub(super) async fn retry(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Delivery>, ApiError> {
    order(&shared, &id, CatalogHandle::deliver_again).await
}

/// Gives a dead letter up for good.
pub(super) async fn give_up(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Delivery>, ApiError> {
    order(&shared, &id, CatalogHandle::drop_delivery).await
}

async fn order(
    shared: &Shared,
    id: &str,
    order: fn(&CatalogHandle, i64) -> Result<Ordered, CatalogError>,
) -> Result<Json<Delivery>, ApiError> {
    let id = number(id)?;
    match blocking(shared, move |catalog| order(catalog, id)).await? {
        Ordered::Done => find(shared, id).await.map(Json),
        Ordered::Unknown => Err(ApiError::not_found("no such delivery")),
        Ordered::NotDead(state) => Err(ApiError::conflict(format!(
            "the delivery is {}: only a dead letter is delivered again or dropped",
            state.name()
        ))),
    }
}

fn number(id: &str) -> Result<i64, ApiError> {
    id.parse()
        .map_err(|_| ApiError::not_found("no such delivery"))
}
