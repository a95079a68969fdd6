//! Metrics of a server in Prometheus's text format. All are gauges that are read at each scrape, and all are
//! declared here.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, prometheus_text},
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use spool_jobs::Counts;
use spool_storage::ConcurrencyLimit;

use crate::{
    app_state::AppState,
    problem::{Problem, ProblemKind},
};

/// Prefix of the names of all metrics.
const PREFIX: &str = "spool";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

/// Metrics of a server.
struct Metrics {
    registry: Registry,
    jobs: Family<StateLabel, Gauge>,
    jobs_longest_wait: Gauge,
    uploads_open: Gauge,
    transfers_running: Gauge,
    event_streams: Gauge,
    permits: Family<LimitLabel, Gauge>,
    permits_in_use: Family<LimitLabel, Gauge>,
    permits_waiting: Family<LimitLabel, Gauge>,
}

impl Metrics {
    fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix(PREFIX),
            jobs: Family::default(),
            jobs_longest_wait: Gauge::default(),
            uploads_open: Gauge::default(),
            transfers_running: Gauge::default(),
            event_streams: Gauge::default(),
            permits: Family::default(),
            permits_in_use: Family::default(),
            permits_waiting: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("jobs", "Jobs in the database, by state", metrics.jobs.clone());
        registry.register_with_unit(
            "jobs_longest_wait",
            "Waiting time of the due job that waits longest",
            Unit::Seconds,
            metrics.jobs_longest_wait.clone(),
        );
        registry.register(
            "uploads_open",
            "Uploads in the database that are not finished",
            metrics.uploads_open.clone(),
        );
        registry.register(
            "transfers_running",
            "Requests to this server that carry bytes of uploads",
            metrics.transfers_running.clone(),
        );
        registry.register(
            "event_streams",
            "Event streams of this server that are open",
            metrics.event_streams.clone(),
        );
        registry.register(
            "concurrency_permits",
            "Operations that a concurrency limit of this server permits at a time",
            metrics.permits.clone(),
        );
        registry.register(
            "concurrency_in_use",
            "Operations under a concurrency limit of this server that run",
            metrics.permits_in_use.clone(),
        );
        registry.register(
            "concurrency_waiting",
            "Operations under a concurrency limit of this server that wait",
            metrics.permits_waiting.clone(),
        );
        metrics
    }

    fn set_counts(&self, counts: Counts) {
        for (state, count) in counts.jobs {
            self.jobs.get_or_create(&StateLabel { state: state.to_string() }).set(count);
        }
        self.jobs_longest_wait.set(counts.longest_wait_ms / 1000);
        self.uploads_open.set(counts.uploads_open);
    }

    fn set_limit(&self, limit: &ConcurrencyLimit) {
        let label = LimitLabel { limit: limit.name() };
        self.permits.get_or_create(&label).set(gauge(limit.permits()));
        self.permits_in_use.get_or_create(&label).set(gauge(limit.in_use()));
        self.permits_waiting.get_or_create(&label).set(gauge(limit.waiting()));
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Returns the server's metrics in Prometheus's text format, version 0.0.4.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "health",
    responses(
        (status = 200, description = "Metrics of the server and of the database.", body = String),
        (status = 503, description = "The database is unavailable."),
    )
)]
pub(super) async fn metrics(State(state): State<AppState>) -> Result<Response, Problem> {
    let metrics = Metrics::new();
    metrics.set_counts(state.job_counts.read().await?);
    metrics.transfers_running.set(gauge(state.uploads.active_transfers()));
    metrics.event_streams.set(gauge(state.event_streams.in_use()));
    for limit in [&state.connections, &state.event_streams] {
        metrics.set_limit(limit);
    }
    let mut text = String::new();
    prometheus_text::encode(&mut text, &metrics.registry)
        .map_err(|error| Problem::new(ProblemKind::Internal, format!("failed to encode metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_names_and_units_of_prometheus() {
        let metrics = Metrics::new();
        metrics.jobs.get_or_create(&StateLabel { state: "published".to_owned() }).set(1);
        metrics.jobs_longest_wait.set(7);
        let limit = ConcurrencyLimit::new("connections", 2);
        let _permit = limit.try_acquire();
        metrics.set_limit(&limit);
        let mut text = String::new();
        prometheus_text::encode(&mut text, &metrics.registry).unwrap();
        for line in [
            "# TYPE spool_jobs gauge",
            "spool_jobs{state=\"published\"} 1",
            "spool_jobs_longest_wait_seconds 7",
            "spool_uploads_open 0",
            "spool_concurrency_in_use{limit=\"connections\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }
}
