//! Probes: serves liveness, readiness and metrics of an executor over HTTP.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch};

use crate::{error::Error, metrics, session::SessionState};

/// Serves `/livez`, `/readyz` (200 while the executor accepts rows) and `/metrics`, until the listener fails.
///
/// # Errors
/// Returns [`Error::Listen`] if the address cannot be bound.
pub async fn serve_probes(address: SocketAddr, state: watch::Receiver<SessionState>) -> Result<(), Error> {
    let listen = |source| Error::Listen { address, source };
    let registry = Arc::new(metrics::registry(state.clone()));
    let routes = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz).with_state(state))
        .route("/metrics", get(serve_metrics).with_state(registry));
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    axum::serve(listener, routes).await.map_err(listen)
}

async fn readyz(State(state): State<watch::Receiver<SessionState>>) -> impl IntoResponse {
    match *state.borrow() {
        SessionState::Ready => (StatusCode::OK, "ok"),
        SessionState::Connecting => (StatusCode::SERVICE_UNAVAILABLE, "connecting to the scheduler"),
        SessionState::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    }
}

async fn serve_metrics(State(registry): State<Arc<Registry>>) -> Response {
    match metrics::encode(&registry) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
