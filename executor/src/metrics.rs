//! Metrics of an executor, for Prometheus.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, prometheus_text},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use spool_media::ffmpeg;
use tokio::sync::watch;

use crate::session::SessionState;

/// `Content-Type` of [`encode`]'s text.
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Returns the registry of an executor's metrics. Their values are read at each scrape.
pub(crate) fn registry(state: watch::Receiver<SessionState>) -> Registry {
    let mut registry = Registry::with_prefix("spool");
    registry.register_collector(Box::new(ExecutorMetrics { state }));
    registry
}

/// Returns the metrics in Prometheus' text format, version 0.0.4.
pub(crate) fn encode(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    prometheus_text::encode(&mut text, registry)?;
    Ok(text)
}

#[derive(Debug)]
struct ExecutorMetrics {
    state: watch::Receiver<SessionState>,
}

impl Collector for ExecutorMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut add = |name: &str, help: &str, value: &dyn EncodeMetric| {
            value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)
        };
        let ready = i64::from(*self.state.borrow() == SessionState::Ready);
        add(
            "executor_ready",
            "1 while the executor accepts rows of a scheduler, else 0.",
            &ConstGauge::new(ready),
        )?;
        let started = ConstCounter::new(ffmpeg::encodes_started());
        add("encodes_started", "FFmpeg encodes started since the process began.", &started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_in_the_text_format_with_names_units_and_help() {
        let (_sender, state) = watch::channel(SessionState::Ready);
        let text = encode(&registry(state)).unwrap();
        assert!(text.contains("# TYPE spool_executor_ready gauge\nspool_executor_ready 1\n"), "{text}");
        assert!(
            text.contains("# TYPE spool_encodes_started_total counter\nspool_encodes_started_total "),
            "{text}"
        );
        assert_eq!(text.matches("# HELP").count(), 2);
    }
}
