//! RowEventKind of a scheduler does a dispatcher of jobs see? Requests go in as statements, and come out as what publishing returned.

use arrow_json::ArrayWriter;
use async_trait::async_trait;
use serde_json::{Value, json};
use spool_jobs::{Failure, Job, JobBackend, Request};
use spool_media::{encode::events::RowEvent, package::publish::Published};
use spool_storage::ErrorKind;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    run::Outcome,
    service::Scheduler,
};

/// The longest result of a statement that a job keeps, in bytes: rows of media are names and numbers.
const MAX_RESULT: usize = 1 << 20;

#[async_trait]
impl JobBackend for Scheduler {
    async fn run(
        &self,
        job: &Job,
        cancel: &CancellationToken,
        tell: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> std::result::Result<Value, Failure> {
        let settings = job.settings();
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let outcome = Self::run(self, &job.request.statement(), &settings, cancel, tell).await;
        outcome.and_then(|outcome| result(&job.request, &outcome)).map_err(failure)
    }
}

fn result(request: &Request, outcome: &Outcome) -> Result<Value> {
    match request {
        Request::Transcode { .. } => {
            let published: Option<Published> = outcome.structs("published")?.pop();
            let published = published
                .ok_or_else(|| Error::Engine { message: "the statement published nothing".to_owned() })?;
            // Texts and numbers always serialise.
            Ok(serde_json::to_value(published).unwrap_or_default())
        }
        Request::Sql { .. } => Ok(json!({ "rows": rows(outcome)? })),
    }
}

/// A statement's rows, as JSON.
fn rows(outcome: &Outcome) -> Result<Value> {
    let mut bytes = Vec::new();
    let mut writer = ArrayWriter::new(&mut bytes);
    for batch in &outcome.batches {
        writer.write(batch).map_err(unwritten)?;
    }
    writer.finish().map_err(unwritten)?;
    drop(writer);
    if bytes.len() > MAX_RESULT {
        let message = format!(
            "the result is {} bytes long and a job keeps at most {MAX_RESULT}: select fewer rows",
            bytes.len()
        );
        return Err(Error::Sql { message });
    }
    if bytes.is_empty() { Ok(json!([])) } else { serde_json::from_slice(&bytes).map_err(unwritten) }
}

fn unwritten(error: impl std::fmt::Display) -> Error {
    Error::Engine { message: error.to_string() }
}

/// RowEventKind may pass by itself is worth another try: also what the engine does not understand itself.
fn failure(error: Error) -> Failure {
    let retryable = error.kind() == ErrorKind::Transient || matches!(error, Error::Engine { .. });
    Failure { kind: error.kind(), message: error.to_string(), retryable }
}
