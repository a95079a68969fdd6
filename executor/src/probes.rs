//! What does an executor tell probes and Prometheus?

use std::{fmt::Write, net::SocketAddr};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use spool_media::ffmpeg;
use tokio::{net::TcpListener, sync::watch};

use crate::{Error, membership::Standing};

/// Answers `/livez`, `/readyz` (is it a member that takes rows?) and `/metrics`, until the listener fails.
///
/// # Errors
/// Where it cannot listen.
pub async fn probes(address: SocketAddr, standing: watch::Receiver<Standing>) -> Result<(), Error> {
    let listen = |source| Error::Listen { address, source };
    let routes = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(standing);
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    axum::serve(listener, routes).await.map_err(listen)
}

async fn ready(State(standing): State<watch::Receiver<Standing>>) -> impl IntoResponse {
    match *standing.borrow() {
        Standing::Member => (StatusCode::OK, "ok"),
        Standing::Away => (StatusCode::SERVICE_UNAVAILABLE, "looking for the scheduler"),
        Standing::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    }
}

/// Prometheus's text format, version 0.0.4.
async fn metrics(State(standing): State<watch::Receiver<Standing>>) -> impl IntoResponse {
    let mut text = String::new();
    let mut say = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "# HELP spool_{name} {help}\n# TYPE spool_{name} {kind}\nspool_{name} {value}");
    };
    let member = *standing.borrow() == Standing::Member;
    say("executor_member", "gauge", "1 while it takes rows for a scheduler.", u64::from(member));
    say("encodes_started_total", "counter", "Runs of FFmpeg since the start.", ffmpeg::encodes_started());
    ([("content-type", "text/plain; version=0.0.4")], text)
}
