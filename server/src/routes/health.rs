//! Health probes of a server.

use axum::extract::State;
use spool_jobs::JobFilter;

use crate::{app_state::AppState, problem::Problem};

/// Reports that the process is alive.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "live",
    tag = "health",
    responses((status = 200, description = "The server's process is alive.", body = String))
)]
pub(super) async fn live() -> &'static str {
    "ok"
}

/// Reports whether the server can answer requests, which requires its database.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "ready",
    tag = "health",
    responses(
        (status = 200, description = "The server can answer requests.", body = String),
        (status = 503, description = "The database is unavailable."),
    )
)]
pub(super) async fn ready(State(state): State<AppState>) -> Result<&'static str, Problem> {
    state.job_store.jobs("", &JobFilter::default(), None, 1).await?;
    Ok("ok")
}
