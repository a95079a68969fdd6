//! Job backend: runs the job of a dispatcher as a statement, and returns the result of publishing or the rows
//! as JSON.

use arrow_json::ArrayWriter;
use async_trait::async_trait;
use serde_json::{Value, json};
use spool_jobs::{Failure, Job, JobBackend, Request};
use spool_media::{encode::events::RowEvent, package::publish::Published};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    run::results::StatementResult,
    scheduler::Scheduler,
};

/// Longest JSON result of a statement that a job keeps, in bytes: rows are names and numbers.
const RESULT_MAX_BYTES: usize = 1 << 20;

#[async_trait]
impl JobBackend for Scheduler {
    async fn run(
        &self,
        job: &Job,
        cancel: &CancellationToken,
        on_event: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> std::result::Result<Value, Failure> {
        let settings = job.settings();
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let result = Self::run(self, &job.request.statement(), &settings, cancel, on_event).await;
        result.and_then(|result| to_json(&job.request, &result)).map_err(failure)
    }
}

/// Returns the result of a job: the published ladder of a transcode, or a statement's rows.
fn to_json(request: &Request, result: &StatementResult) -> Result<Value> {
    match request {
        Request::Transcode { .. } => {
            let published: Option<Published> = result.structs("published")?.pop();
            let published = published
                .ok_or_else(|| Error::Engine { message: "the statement published nothing".to_owned() })?;
            // Strings and numbers always serialize.
            Ok(serde_json::to_value(published).unwrap_or_default())
        }
        Request::Sql { .. } => Ok(json!({ "rows": rows(result)? })),
    }
}

/// Returns a statement's rows as JSON.
fn rows(result: &StatementResult) -> Result<Value> {
    let mut bytes = Vec::new();
    let mut writer = ArrayWriter::new(&mut bytes);
    for batch in &result.batches {
        writer.write(batch).map_err(not_json)?;
    }
    writer.finish().map_err(not_json)?;
    drop(writer);
    if bytes.len() > RESULT_MAX_BYTES {
        let message = format!(
            "the result is {} bytes long and a job keeps at most {RESULT_MAX_BYTES}: select fewer rows",
            bytes.len()
        );
        return Err(Error::Sql { message });
    }
    if bytes.is_empty() { Ok(json!([])) } else { serde_json::from_slice(&bytes).map_err(not_json) }
}

fn not_json(error: impl std::fmt::Display) -> Error {
    Error::Engine { message: error.to_string() }
}

fn failure(error: Error) -> Failure {
    Failure { kind: error.kind(), message: error.to_string(), retryable: error.is_retryable() }
}
