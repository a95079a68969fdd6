//! HTTP routes of the scheduler: probes, metrics, demand, executors, statements and their cancellation.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
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

/// Returns the routes: `/livez` and `/readyz` for probes; with the token `/metrics` for Prometheus, `/demand`
/// for autoscalers, `/executors`, `/statements`.
pub(crate) fn routes(state: HttpState) -> Router {
    let protected = Router::new()
        .route("/metrics", get(metrics))
        .route("/demand", get(demand))
        .route("/executors", get(executors))
        .route("/statements", get(statements))
        .route("/statements/{id}", delete(cancel))
        .route_layer(middleware::from_fn_with_state(state.clone(), require_token));
    protected.route("/livez", get(livez)).route("/readyz", get(ready)).with_state(state)
}

/// Returns the routes of the port for probes and Prometheus, which requires no token.
pub(crate) fn probes(state: HttpState) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state)
}

async fn livez() -> &'static str {
    "ok"
}

/// Refuses a request without the token, if the scheduler has one.
async fn require_token(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let metadata = MetadataMap::from_headers(request.headers().clone());
    match authenticate(&metadata, state.token.as_deref()) {
        Ok(()) => next.run(request).await,
        Err(status) => (StatusCode::UNAUTHORIZED, format!("{}\n", status.message())).into_response(),
    }
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

async fn executors(State(state): State<HttpState>) -> Response {
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

async fn statements(State(state): State<HttpState>) -> Response {
    Json(state.statements.all()).into_response()
}

async fn cancel(State(state): State<HttpState>, Path(id): Path<u64>) -> Response {
    if state.statements.cancel(id) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        (StatusCode::NOT_FOUND, format!("no statement {id} runs\n")).into_response()
    }
}

async fn metrics(State(state): State<HttpState>) -> Response {
    match state.metrics.encode(state.demand.read(), &state.fair_queue, &[&state.planners]) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
