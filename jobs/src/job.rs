//! Jobs: the specification, state, progress and outcome of each.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spool_storage::{ErrorKind, path_policy::PathPolicy};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::{Id, Request};

/// State of a job.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    EnumIter,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum JobState {
    /// Waits for a dispatcher, or for the time of its next try.
    Pending,
    /// A dispatcher holds its lease.
    Processing,
    /// Ended with a published package, or with the result of its statement.
    Published,
    /// Ended with an error. Only a client's request tries it again.
    Failed,
    /// Ended on a client's request.
    Canceled,
}

impl JobState {
    /// Returns whether a job in this state has ended.
    pub fn ended(self) -> bool {
        matches!(self, Self::Published | Self::Failed | Self::Canceled)
    }
}

/// Phase of a job: its current work.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    EnumIter,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Phase {
    /// No work yet: the job is pending.
    Waiting,
    /// The source is opened and divided into rows.
    Planning,
    /// Rows are encoded.
    Encoding,
    /// The parts are merged into packages and published.
    Publishing,
    /// No work any more.
    Ended,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// ID in the store.
    pub id: Id,
    /// Tenant that owns it.
    pub tenant: String,
    /// Video that it publishes. A SQL statement may publish none.
    pub video: Option<Id>,
    /// The client's request.
    pub request: Request,
    /// Rank among the tenant's jobs: the highest goes first.
    pub priority: i64,
    /// Path policy of the job; unrestricted if absent.
    pub path_policy: Option<PathPolicy>,
    /// State.
    pub state: JobState,
    /// Phase.
    pub phase: Phase,
    /// Time of the request, in milliseconds since 1970.
    pub created_ms: i64,
    /// Time before which no dispatcher leases it, in milliseconds since 1970. Later than `created_ms` while a
    /// retry waits.
    pub due_ms: i64,
    /// Start of its first try, in milliseconds since 1970.
    pub started_ms: Option<i64>,
    /// End, in milliseconds since 1970.
    pub ended_ms: Option<i64>,
    /// Tries begun since a client last requested it.
    pub tries: i64,
    /// Name of the dispatcher that holds its lease, or held it last.
    pub dispatcher: Option<String>,
    /// Whether a client has requested cancellation.
    pub cancel_requested: bool,
    /// Rows planned so far.
    pub rows: i64,
    /// Rows that are done.
    pub rows_done: i64,
    /// Milliseconds of media in its rows.
    pub media_ms: i64,
    /// Milliseconds of media that are encoded.
    pub media_done_ms: i64,
    /// Result of the publication or of the statement.
    pub result: Option<Value>,
    /// Error of the last try: the reason why the job failed, or why it is tried again.
    pub error: Option<JobError>,
    /// Number of its last event.
    pub events: i64,
}

/// Error of a job's try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// Class of the error.
    pub kind: ErrorKind,
    /// Message with the fault and the remedy.
    pub message: String,
}

impl Job {
    /// Returns the session settings of its statement.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        // A list of strings always serializes.
        let path_policy =
            self.path_policy.as_ref().map(|policy| serde_json::to_string(policy).unwrap_or_default());
        self.request
            .settings()
            .into_iter()
            .chain(path_policy.map(|policy| ("spool.path_policy", policy)))
            .collect()
    }

    /// Returns the progress in percent of the media's duration, video and audio rows alike.
    pub fn percent(&self) -> i64 {
        percent(self.state, self.media_done_ms, self.media_ms)
    }
}

/// Returns the progress of a job in percent: at most 99 until the job is published.
pub(crate) fn percent(state: JobState, done_ms: i64, media_ms: i64) -> i64 {
    match state {
        JobState::Published => 100,
        _ if media_ms <= 0 => 0,
        _ => (done_ms.clamp(0, media_ms).saturating_mul(100) / media_ms).min(99),
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn states_and_phases_have_one_name_in_json_and_in_the_database() {
        for state in JobState::iter() {
            let name: &str = state.into();
            assert_eq!(serde_json::to_value(state).unwrap(), name);
            assert_eq!(name.parse::<JobState>().unwrap(), state);
        }
        for phase in Phase::iter() {
            let name: &str = phase.into();
            assert_eq!(serde_json::to_value(phase).unwrap(), name);
            assert_eq!(name.parse::<Phase>().unwrap(), phase);
        }
        assert!("done".parse::<JobState>().is_err());
    }

    #[test]
    fn only_a_published_job_is_at_100_percent() {
        assert_eq!(percent(JobState::Processing, 0, 0), 0);
        assert_eq!(percent(JobState::Processing, 10_000, 10_000), 99);
        assert_eq!(percent(JobState::Failed, 5_000, 10_000), 50);
        assert_eq!(percent(JobState::Published, 0, 0), 100);
    }
}
