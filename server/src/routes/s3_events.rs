//! What stores tell: what has arrived in a bucket.

use axum::{
    Json,
    extract::{State, rejection::StringRejection},
    http::StatusCode,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app_state::AppState,
    auth::authenticate::Tenant,
    ingest::{s3_events, watcher::IngestOutcome},
    problem::{Problem, ProblemKind},
};

/// What became of what was told.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ArrivalsShown {
    /// The jobs that are made of it, or were before.
    jobs: Vec<String>,
    /// Objects of which nothing is made: nobody watches them, they are gone, or Spool wrote them itself.
    ignored: u64,
}

/// Tells what has arrived in a bucket: an event of S3, MinIO or Ceph's gateway, plain, in the envelope of a topic (SNS), or from EventBridge. Each object that
/// somebody watches (`spool watches`) becomes a job, once, however often it is told. A store that can be told no more than an address shows its
/// key as the password in it.
#[utoipa::path(
    post,
    path = "/v1/events/s3",
    tag = "jobs",
    request_body(content = Object, content_type = "application/json"),
    responses(
        (status = 200, description = "It is taken, and need not be told again.", body = ArrivalsShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "It is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It is no event that is known here.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The tenant has as many jobs as it may: tell it again.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Something that is needed is away: tell it again.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn s3(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    message: Result<String, StringRejection>,
) -> Result<Json<ArrivalsShown>, Problem> {
    let message = message.map_err(|error| {
        let kind = if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            ProblemKind::TooLarge
        } else {
            ProblemKind::Malformed
        };
        Problem::new(kind, error.body_text())
    })?;
    let objects =
        s3_events::parse(&message).map_err(|error| Problem::new(ProblemKind::Invalid, error.to_string()))?;
    let watches = state.watcher.watches.watches(Some(&tenant)).await?;
    let (mut jobs, mut ignored, mut wrong) = (Vec::new(), 0, None);
    for object in &objects {
        match state.watcher.ingest(&watches, object).await {
            Ok(IngestOutcome::Job(job)) => jobs.push(job.to_string()),
            Ok(IngestOutcome::Ignored(_)) => ignored += 1,
            // The others are taken all the same: told again, they are the same jobs.
            Err(problem) => wrong = wrong.or(Some(problem)),
        }
    }
    wrong.map_or(Ok(Json(ArrivalsShown { jobs, ignored })), Err)
}
