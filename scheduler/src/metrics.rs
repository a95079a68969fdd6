//! Prometheus metrics of the scheduler, declared with name, unit and help.

use std::time::Instant;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use spool_storage::ConcurrencyLimit;

use crate::{demand::Demand, queue::fair_queue::FairQueue};

/// Media type of the text of [`Metrics::encode`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels of a concurrency limit's metrics.
type LimitLabel = [(&'static str, &'static str); 1];

/// Counters of rows since the start. Clones share their values.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowCounters {
    pub(crate) done: Counter,
    pub(crate) failed: Counter,
    pub(crate) speculated: Counter,
}

/// Registry of the scheduler's metrics, and the gauges that are read at each scrape.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    started: Instant,
    pub(crate) rows: RowCounters,
    pub(crate) statements: Counter,
    executors: Gauge,
    executors_idle: Gauge,
    slots: Gauge,
    statements_running: Gauge,
    statements_queued: Gauge,
    rows_waiting: Gauge,
    rows_running: Gauge,
    media_left_seconds: Gauge,
    uptime_seconds: Gauge,
    limit_permits: Family<LimitLabel, Gauge>,
    limit_in_use: Family<LimitLabel, Gauge>,
    limit_waiting: Family<LimitLabel, Gauge>,
}

impl Metrics {
    /// Declares every metric.
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("spool"),
            started: Instant::now(),
            rows: RowCounters::default(),
            statements: Counter::default(),
            executors: Gauge::default(),
            executors_idle: Gauge::default(),
            slots: Gauge::default(),
            statements_running: Gauge::default(),
            statements_queued: Gauge::default(),
            rows_waiting: Gauge::default(),
            rows_running: Gauge::default(),
            media_left_seconds: Gauge::default(),
            uptime_seconds: Gauge::default(),
            limit_permits: Family::default(),
            limit_in_use: Family::default(),
            limit_waiting: Family::default(),
        };
        let registry = &mut metrics.registry;
        // The registry ends each help text with a full stop, and each counter's name with `_total`.
        registry.register("statements", "Statements since the start", metrics.statements.clone());
        registry.register("rows_done", "Rows done since the start", metrics.rows.done.clone());
        registry.register(
            "rows_failed",
            "Attempts at rows that failed since the start",
            metrics.rows.failed.clone(),
        );
        registry.register(
            "rows_speculated",
            "Second attempts at slow rows since the start",
            metrics.rows.speculated.clone(),
        );
        let gauges = [
            ("executors", "Executors that the scheduler can reach", &metrics.executors),
            ("executors_idle", "Executors that run no row", &metrics.executors_idle),
            ("slots", "Rows that can run at a time", &metrics.slots),
            ("statements_running", "Statements that run", &metrics.statements_running),
            (
                "statements_queued",
                "Statements that wait for their first row to start",
                &metrics.statements_queued,
            ),
            ("rows_waiting", "Rows that wait for a slot", &metrics.rows_waiting),
            ("rows_running", "Rows that run", &metrics.rows_running),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        registry.register_with_unit(
            "media_left",
            "Media in rows that are not done",
            Unit::Seconds,
            metrics.media_left_seconds.clone(),
        );
        registry.register_with_unit(
            "uptime",
            "Time since the start",
            Unit::Seconds,
            metrics.uptime_seconds.clone(),
        );
        let limits = [
            ("concurrency_permits", "Permits of a concurrency limit", &metrics.limit_permits),
            ("concurrency_in_use", "Permits of a concurrency limit that are in use", &metrics.limit_in_use),
            ("concurrency_waiting", "Requests that wait for a permit", &metrics.limit_waiting),
        ];
        for (name, help, family) in limits {
            registry.register(name, help, family.clone());
        }
        metrics
    }

    /// Reads the gauges, and returns all metrics as OpenMetrics text.
    ///
    /// # Errors
    /// Returns an error only if a value cannot be formatted.
    pub(crate) fn encode(
        &self,
        demand: Demand,
        queue: &FairQueue,
        limits: &[&ConcurrencyLimit],
    ) -> Result<String, std::fmt::Error> {
        set(&self.executors, demand.executors);
        set(&self.executors_idle, demand.executors_idle);
        set(&self.slots, demand.slots);
        set(&self.statements_running, demand.statements);
        set(&self.statements_queued, queue.queued_statements());
        set(&self.rows_waiting, demand.rows_waiting);
        set(&self.rows_running, demand.rows_running);
        self.media_left_seconds.set(demand.media_seconds_left);
        set(&self.uptime_seconds, self.started.elapsed().as_secs());
        for limit in limits {
            let label = [("limit", limit.name())];
            set(&self.limit_permits.get_or_create(&label), limit.permits());
            set(&self.limit_in_use.get_or_create(&label), limit.in_use());
            set(&self.limit_waiting.get_or_create(&label), limit.waiting());
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn set(gauge: &Gauge, value: impl TryInto<i64>) {
    gauge.set(value.try_into().unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_written_with_its_name_unit_and_value() {
        let metrics = Metrics::new();
        metrics.rows.done.inc();
        let planners = ConcurrencyLimit::new("planners", 8);
        let _permit = planners.try_acquire().unwrap();
        let demand = Demand { rows_waiting: 4, media_seconds_left: 16, slots: 2, ..Demand::default() };
        let text = metrics.encode(demand, &FairQueue::default(), &[&planners]).unwrap();
        for line in [
            "spool_statements_total 0",
            "spool_rows_done_total 1",
            "spool_rows_failed_total 0",
            "spool_rows_speculated_total 0",
            "spool_executors 0",
            "spool_executors_idle 0",
            "spool_slots 2",
            "spool_statements_running 0",
            "spool_statements_queued 0",
            "spool_rows_waiting 4",
            "spool_rows_running 0",
            "# UNIT spool_media_left_seconds seconds",
            "spool_media_left_seconds 16",
            "spool_uptime_seconds 0",
            "spool_concurrency_permits{limit=\"planners\"} 8",
            "spool_concurrency_in_use{limit=\"planners\"} 1",
            "spool_concurrency_waiting{limit=\"planners\"} 0",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is missing in\n{text}");
        }
    }
}
