//! What does a dispatcher need of whatever encodes? A statement run to its end, and word of its rows.

use async_trait::async_trait;
use serde_json::Value;
use spool_media::encode::events::RowEvent;
use spool_storage::ErrorKind;
use tokio_util::sync::CancellationToken;

use crate::Job;

/// What runs jobs. Running one twice, also at once, must change nothing: a dispatcher that lost its job may not know it yet.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// Runs what a job asks for, within the places that it may touch; `tell` hears of every row first that it is planned, and then what happens to it. Returns what
    /// publishing returned, or the rows of a statement that publishes nothing.
    ///
    /// # Errors
    /// What went wrong, once `cancel` fires or nothing more can be done.
    async fn run(
        &self,
        job: &Job,
        cancel: &CancellationToken,
        tell: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<Value, Failure>;
}

/// Why a job was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What it means.
    pub kind: ErrorKind,
    /// What happened, and what to do.
    pub message: String,
    /// Is it worth another try?
    pub passes: bool,
}
