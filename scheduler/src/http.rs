//! What does the scheduler tell people, probes and Prometheus? Small pages of JSON and text; and a statement can be canceled.

use std::fmt::Write;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use serde::Serialize;
use spool_wire::authenticate;
use tonic::metadata::MetadataMap;

use crate::{executors::registry::ExecutorState, scaler::Demand, service::Scheduler};

/// An executor as a list shows it.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    host: String,
    slots: usize,
    rows: usize,
    state: ExecutorState,
    /// Why it cannot accept rows, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable_reason: Option<String>,
    seconds: u64,
}

/// `/livez` and `/readyz` for probes, `/metrics` for Prometheus, `/demand` for whatever scales, `/executors`, `/statements`.
pub(crate) fn routes(scheduler: Scheduler) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route(
            "/demand",
            get(|State(scheduler): State<Scheduler>| async move { Json(Demand::of(&scheduler)) }),
        )
        .route("/executors", get(executors))
        .route("/statements", get(statements))
        .route("/statements/{id}", delete(cancel))
        .with_state(scheduler)
}

/// Statements are taken also where nobody works yet: that is what wakes an autoscaler.
async fn ready(State(scheduler): State<Scheduler>) -> String {
    let count = scheduler.executors.count();
    format!("ok: {} executors, {} slots", count.executors, count.slots)
}

async fn executors(State(scheduler): State<Scheduler>, headers: HeaderMap) -> Response {
    guarded(&scheduler, headers, || {
        let shown = scheduler.executors.snapshot().into_iter().map(|(id, executor)| Shown {
            id,
            rows: executor.placed_rows(),
            seconds: executor.registered.elapsed().as_secs(),
            state: executor.state(),
            unavailable_reason: executor.unavailable_reason,
            host: executor.host,
            slots: executor.slots,
        });
        Json(shown.collect::<Vec<_>>()).into_response()
    })
}

async fn statements(State(scheduler): State<Scheduler>, headers: HeaderMap) -> Response {
    guarded(&scheduler, headers, || Json(scheduler.statements.all()).into_response())
}

async fn cancel(State(scheduler): State<Scheduler>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    guarded(&scheduler, headers, || {
        if scheduler.statements.cancel(id) {
            StatusCode::NO_CONTENT.into_response()
        } else {
            (StatusCode::NOT_FOUND, format!("no statement {id} runs\n")).into_response()
        }
    })
}

/// Answers who shows the token, where one is wanted.
fn guarded(scheduler: &Scheduler, headers: HeaderMap, answer: impl FnOnce() -> Response) -> Response {
    match authenticate(&MetadataMap::from_headers(headers), scheduler.settings.token.as_deref()) {
        Ok(()) => answer(),
        Err(status) => (StatusCode::UNAUTHORIZED, format!("{}\n", status.message())).into_response(),
    }
}

/// Prometheus's text format, version 0.0.4.
async fn metrics(State(scheduler): State<Scheduler>) -> Response {
    let demand = Demand::of(&scheduler);
    let counters = scheduler.counters();
    let mut text = String::new();
    let mut say = |name: &str, kind: &str, help: &str, value: i128| {
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "# HELP spool_{name} {help}\n# TYPE spool_{name} {kind}\nspool_{name} {value}");
    };
    say("executors", "gauge", "Executors that are there.", demand.executors as i128);
    say("executors_idle", "gauge", "Executors that have nothing in hand.", demand.executors_idle as i128);
    say("slots", "gauge", "Rows that can run at a time.", demand.slots as i128);
    say("statements_running", "gauge", "Statements that run.", demand.statements as i128);
    say("rows_waiting", "gauge", "Rows that wait for a slot.", demand.rows_waiting as i128);
    say("rows_running", "gauge", "Rows that run.", demand.rows_running as i128);
    say(
        "media_seconds_left",
        "gauge",
        "Seconds of media in rows that are not done.",
        demand.media_seconds_left.into(),
    );
    say("statements_total", "counter", "Statements since the start.", counters.statements.into());
    say("rows_done_total", "counter", "Rows done since the start.", counters.rows_done.into());
    say(
        "rows_failed_total",
        "counter",
        "Attempts at rows that failed since the start.",
        counters.rows_failed.into(),
    );
    say(
        "rows_doubled_total",
        "counter",
        "Rows that were run a second time because they were slow.",
        counters.rows_doubled.into(),
    );
    say("uptime_seconds", "gauge", "Seconds since the start.", scheduler.started.elapsed().as_secs().into());
    ([("content-type", "text/plain; version=0.0.4")], text).into_response()
}
