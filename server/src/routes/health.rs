//! Is this server alive, can it answer, and how do the jobs stand?

use std::fmt::Write;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use spool_jobs::Filter;

use crate::{app_state::AppState, problem::Problem};

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
pub(super) async fn ready(State(state): State<AppState>) -> Result<&'static str, Problem> {
    state.job_store.jobs("", &Filter::default(), None, 1).await?;
    Ok("ok")
}

/// How the jobs stand, in Prometheus's text format, version 0.0.4.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses(
        (status = 200, description = "The figures.", body = String),
        (status = 503, description = "The store is away.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn metrics(State(state): State<AppState>) -> Result<Response, Problem> {
    let counts = state.counts().await?;
    let mut text = String::from("# HELP spool_jobs Jobs in the store, by state.\n# TYPE spool_jobs gauge\n");
    for (state, count) in counts.jobs {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "spool_jobs{{state=\"{}\"}} {count}", state.word());
    }
    let mut say = |name: &str, kind: &str, help: &str, value: i128| {
        let _ =
            writeln!(text, "# HELP spool_{name} {help}\n# TYPE spool_{name} {kind}\nspool_{name} {value}");
    };
    let waited = i128::from(counts.longest_wait_ms / 1000);
    say("jobs_longest_wait_seconds", "gauge", "How long the job waits that is due for longest.", waited);
    say("uploads_open", "gauge", "Uploads that more may come of.", counts.uploads_open.into());
    say(
        "transfers_running",
        "gauge",
        "Requests to this server that send bytes of uploads.",
        state.uploads.active_transfers() as i128,
    );
    say(
        "event_streams",
        "gauge",
        "Streams of events that this server keeps open.",
        state.open_event_streams() as i128,
    );
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
