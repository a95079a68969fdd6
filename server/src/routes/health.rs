//! Is this server alive, and can it answer?

use axum::extract::State;
use spool_jobs::Filter;

use super::House;
use crate::problem::Problem;

/// Is the process alive?
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "It is.", body = String)))]
pub(super) async fn live() -> &'static str {
    "ok"
}

/// Can requests be answered? Only where the store answers.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, description = "They can.", body = String), (status = 503, description = "The store is away.", body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn ready(State(house): State<House>) -> Result<&'static str, Problem> {
    house.store.jobs("", &Filter::default(), None, 1).await?;
    Ok("ok")
}
