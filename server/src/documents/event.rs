//! Events of jobs, as pages and streams show them.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Event of a job, such as a change of state.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobEvent {
    /// Number of the event within its job: 1, 2, 3, … without a gap.
    pub(crate) sequence: i64,
    /// Time of the event, in milliseconds since the Unix epoch.
    at_ms: i64,
    /// Kind of the event, such as `job.progress`.
    #[schema(example = "job.progress")]
    pub(crate) kind: &'static str,
    /// Data of the event; the fields depend on the kind.
    #[schema(value_type = Object)]
    data: Value,
}

impl From<spool_jobs::Event> for JobEvent {
    fn from(event: spool_jobs::Event) -> Self {
        Self { sequence: event.sequence, at_ms: event.at_ms, kind: event.kind.into(), data: event.data }
    }
}

/// Page of a job's events, in order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobEventList {
    pub(crate) events: Vec<JobEvent>,
    /// Whether more events may follow, now or later.
    pub(crate) more: bool,
}
