//! S3 event route: object stores report objects that were created.

use axum::{
    Json,
    extract::{State, rejection::StringRejection},
    http::StatusCode,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app_state::AppState,
    auth::principal::Tenant,
    ingest::{s3_events, watcher::IngestOutcome},
    problem::{Problem, ProblemKind},
};

/// Result of an object store's notification.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NotificationResult {
    /// Ids of the jobs that exist for the reported objects, created now or before.
    jobs: Vec<String>,
    /// Number of reported objects without a job: no watch covers the object, the object is gone, or Spool
    /// wrote the object.
    ignored: u64,
}

/// Creates jobs from an object store's notification.
///
/// Accepts events of S3, MinIO and the Ceph Object Gateway, plain, in the envelope of an SNS topic, or from
/// EventBridge. Each object below a watched prefix (`spool watches`) becomes one job, however often the
/// object is reported. Object stores that can be configured with a URL only send the API key as the URL's
/// password.
#[utoipa::path(
    post,
    path = "/v1/events/s3",
    operation_id = "ingest_s3_events",
    tag = "jobs",
    request_body(content = Object, content_type = "application/json"),
    responses(
        (status = 200, description = "Accepted; no resend is needed.", body = NotificationResult),
        (status = 400, description = "The request cannot be parsed."),
        (status = 413, description = "The request body exceeds 1 MiB."),
        (status = 422, description = "The notification is not of a supported form."),
        (status = 429, description = "The tenant's quota of jobs is exceeded; resend later."),
        (status = 503, description = "A required service is unavailable; resend later."),
    )
)]
pub(super) async fn ingest(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    message: Result<String, StringRejection>,
) -> Result<Json<NotificationResult>, Problem> {
    let message = message.map_err(|error| {
        let is_too_large = error.status() == StatusCode::PAYLOAD_TOO_LARGE;
        let kind = if is_too_large { ProblemKind::TooLarge } else { ProblemKind::Malformed };
        Problem::new(kind, error.body_text())
    })?;
    let objects =
        s3_events::parse(&message).map_err(|error| Problem::new(ProblemKind::Invalid, error.to_string()))?;
    let watches = state.watcher.watch_store.watches(Some(&tenant)).await?;
    let (mut jobs, mut ignored, mut first_problem) = (Vec::new(), 0, None);
    for object in &objects {
        match state.watcher.ingest(&watches, object).await {
            Ok(IngestOutcome::Job(job)) => jobs.push(job.to_string()),
            Ok(IngestOutcome::Ignored(_)) => ignored += 1,
            // The other objects are ingested nevertheless: when the notification comes again, their jobs
            // exist.
            Err(problem) => first_problem = first_problem.or(Some(problem)),
        }
    }
    first_problem.map_or(Ok(Json(NotificationResult { jobs, ignored })), Err)
}
