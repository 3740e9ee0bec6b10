//! `/v1/cdrs`: the final record of every leg.

use super::Shared;
use super::calls::list_json;
use super::error::ApiError;
use super::query::{Paging, Pairs, Parameters};
use super::recordings::blocking;
use axum::Json;
use axum::extract::State;
use serde_json::Value;

pub(super) async fn list(
    State(shared): State<Shared>,
    pairs: Pairs,
) -> Result<Json<Value>, ApiError> {
    let mut parameters = Parameters::new(pairs)?;
    let Paging { after, limit } = parameters.paging()?;
    let filter = parameters.cdr_filter()?;
    parameters.finish()?;
    let page = blocking(&shared, move |catalog| {
        catalog.list_cdrs(&filter, after.as_ref(), limit)
    })
    .await?;
    let next = page.next.map(|next| next.to_string());
    Ok(Json(list_json(page.items, next)))
}
