//! `JobBackend`: the engine that runs jobs for a dispatcher, and its errors.

use async_trait::async_trait;
use serde_json::Value;
use spool_media::encode::events::RowEvent;
use spool_storage::ErrorKind;
use tokio_util::sync::CancellationToken;

use crate::Job;

/// An engine that runs jobs. A dispatcher may not know yet that it lost its lease, so an engine may receive
/// one job twice, even at the same time: the second run must change nothing.
#[async_trait]
pub trait JobBackend: Send + Sync + 'static {
    /// Runs the statement of a job under its path policy, until it ends or `cancel` fires. Calls `on_event`
    /// for every planned row first, and then for every change of a row. Returns the published package, or the
    /// rows of a statement that publishes none.
    ///
    /// # Errors
    /// Returns the [`Failure`] of the run, also after a cancellation.
    async fn run(
        &self,
        job: &Job,
        cancel: &CancellationToken,
        on_event: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<Value, Failure>;
}

/// Failure of one run of a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Class of the failure.
    pub kind: ErrorKind,
    /// Message with the fault and the remedy.
    pub message: String,
    /// Whether another run of the job may succeed.
    pub retryable: bool,
}
