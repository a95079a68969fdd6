//! Jobs of uploads: the job that is created once an upload is finished.

use spool_jobs::JobSpec;
use spool_storage::path_policy::PathPolicy;

use crate::{
    app_state::AppState,
    auth::principal::Principal,
    documents::job_request::JobRequest,
    problem::{Problem, ProblemKind},
};

/// Parses the requested job; an empty text stands for a job with default options.
pub(super) fn parse_job(text: &str) -> Result<JobRequest, Problem> {
    JobRequest::parse(if text.trim().is_empty() { "{}" } else { text })
}

/// Returns the job of an upload of `bytes` bytes: the requested one, or, with an upload token, that of the
/// token.
pub(super) fn job_of_upload(
    principal: &Principal,
    requested: Option<&str>,
    bytes: u64,
) -> Result<Option<JobRequest>, Problem> {
    let Some(token) = &principal.upload_token else { return requested.map(parse_job).transpose() };
    if bytes > token.max_bytes {
        let detail = format!("the upload has {bytes} bytes; this token permits at most {}", token.max_bytes);
        return Err(Problem::new(ProblemKind::TooLarge, detail));
    }
    token.job.as_deref().map(parse_job).transpose()
}

/// Returns the job's specification, with the finished upload as the source.
pub(super) fn job_spec(
    state: &AppState,
    job: Option<JobRequest>,
    path_policy: Option<PathPolicy>,
    source: &str,
) -> Result<Option<JobSpec>, Problem> {
    let Some(job) = job else { return Ok(None) };
    let (request, priority) = job.with_source(source)?.into_request(state.media_root.as_deref())?;
    Ok(Some(JobSpec { request, priority, path_policy }))
}
