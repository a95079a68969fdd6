//! HTTP routes of the scheduler: probes, metrics, demand, executors, statements and their cancellation.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use serde::Serialize;
use spool_storage::ConcurrencyLimit;
use spool_wire::authenticate;
use tonic::metadata::MetadataMap;

use crate::{
    demand::{Demand, DemandSource},
    executors::registry::{ExecutorRegistry, ExecutorState},
    metrics::{self, Metrics},
    queue::{fair_queue::FairQueue, statement_list::StatementList},
};

/// Parts of a scheduler that the routes use.
#[derive(Clone)]
pub(crate) struct HttpState {
    pub(crate) demand: DemandSource,
    pub(crate) executors: ExecutorRegistry,
    pub(crate) fair_queue: FairQueue,
    pub(crate) planners: ConcurrencyLimit,
    pub(crate) statements: StatementList,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) token: Option<Arc<str>>,
}

/// An executor in the response of `/executors`.
#[derive(Debug, Serialize)]
struct ExecutorInfo {
    id: String,
    host: String,
    slots: usize,
    rows: usize,
    state: ExecutorState,
    /// Reason why the executor accepts no rows, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable_reason: Option<String>,
    seconds: u64,
}

/// Returns the routes: `/livez` and `/readyz` for probes, `/metrics` for Prometheus, `/demand` for
/// autoscalers, `/executors`, `/statements`.
pub(crate) fn routes(state: HttpState) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/demand", get(demand))
        .route("/executors", get(executors))
        .route("/statements", get(statements))
        .route("/statements/{id}", delete(cancel))
        .with_state(state)
}

/// Responds with the number of executors and slots. A scheduler is ready without executors too: a waiting
/// statement wakes an autoscaler.
async fn ready(State(state): State<HttpState>) -> String {
    let count = state.executors.count();
    format!("ok: {} executors, {} slots", count.executors, count.slots)
}

async fn demand(State(state): State<HttpState>) -> Json<Demand> {
    Json(state.demand.read())
}

async fn executors(State(state): State<HttpState>, headers: HeaderMap) -> Response {
    if let Err(refusal) = authorize(&state, headers) {
        return refusal;
    }
    let executors = state.executors.snapshot().into_iter().map(|(id, executor)| ExecutorInfo {
        id,
        rows: executor.placed_rows(),
        seconds: executor.registered.elapsed().as_secs(),
        state: executor.state(),
        unavailable_reason: executor.unavailable_reason,
        host: executor.host,
        slots: executor.slots,
    });
    Json(executors.collect::<Vec<_>>()).into_response()
}

async fn statements(State(state): State<HttpState>, headers: HeaderMap) -> Response {
    match authorize(&state, headers) {
        Ok(()) => Json(state.statements.all()).into_response(),
        Err(refusal) => refusal,
    }
}

async fn cancel(State(state): State<HttpState>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    if let Err(refusal) = authorize(&state, headers) {
        return refusal;
    }
    if state.statements.cancel(id) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        (StatusCode::NOT_FOUND, format!("no statement {id} runs\n")).into_response()
    }
}

/// Checks the token of a request, if the scheduler has one.
#[expect(clippy::result_large_err, reason = "the refusal is the response of a route, made once per request")]
fn authorize(state: &HttpState, headers: HeaderMap) -> Result<(), Response> {
    authenticate(&MetadataMap::from_headers(headers), state.token.as_deref())
        .map_err(|status| (StatusCode::UNAUTHORIZED, format!("{}\n", status.message())).into_response())
}

async fn metrics(State(state): State<HttpState>) -> Response {
    match state.metrics.encode(state.demand.read(), &state.fair_queue, &[&state.planners]) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
