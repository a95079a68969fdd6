//! Job routes: create, list, cancel and retry jobs, and list their rows and failed attempts.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use spool_jobs::{Id, JobFilter, JobSpec, NewJob};
use utoipa::IntoParams;

use super::{
    extract::{JsonBody, PathParams, QueryParams},
    pagination::{DEFAULT_PAGE_ITEMS, page_items},
};
use crate::{
    app_state::AppState,
    auth::{
        path_policy::allow_watched,
        principal::{Principal, Tenant},
    },
    documents::{
        job::{AttemptList, Job, JobList, RowList},
        job_request::{JobRequest, parse_state},
    },
    problem::{Problem, ProblemKind},
};

/// Header that makes a request safe to repeat.
///
/// Source: IETF draft "The Idempotency-Key HTTP Header Field".
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Maximum length of an idempotency key, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 255;

/// Query of the job listing.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct JobQuery {
    /// State of the jobs to list. Default: all states.
    state: Option<String>,
    /// Id of the video that the listed jobs publish. Default: all videos.
    video: Option<String>,
    /// Cursor: the `next` of the previous page. Default: the first page.
    cursor: Option<String>,
    /// Number of items per page. Default: 50.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Query of the row listing.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RowQuery {
    /// Ordinal of the first row of the page. Default: 0.
    #[param(minimum = 0)]
    from: Option<i64>,
    /// Number of items per page. Default: 50.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Creates a job.
///
/// A request with an `Idempotency-Key` is safe to repeat: the repetition returns the job that exists.
#[utoipa::path(
    post,
    path = "/v1/jobs",
    operation_id = "create_job",
    tag = "jobs",
    request_body = JobRequest,
    params((
        "Idempotency-Key" = Option<String>, Header,
        description = "Name of this request, chosen by the client; at most 255 characters."
    )),
    responses(
        (status = 201, description = "Created. Durable once this response is sent.", body = Job),
        (status = 200, description = "The job that an earlier request with this key created.", body = Job),
        (status = 400, description = "The request cannot be parsed."),
        (status = 409, description = "The idempotency key was used for another request."),
        (status = 413, description = "The request body exceeds 1 MiB."),
        (status = 415, description = "The request body is not JSON."),
        (status = 422, description = "A field of the request has an invalid value."),
    )
)]
pub(super) async fn create(
    State(state): State<AppState>,
    principal: Principal,
    headers: HeaderMap,
    JsonBody(job): JsonBody<JobRequest>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?;
    let (request, priority) = job.into_request(state.media_root.as_deref())?;
    let path_policy = state.path_policies.of_principal(&principal).await?;
    let spec = JobSpec { request, priority, path_policy };
    let created =
        state.job_store.create(&NewJob { tenant: principal.tenant, spec, idempotency_key: key }).await?;
    let location = format!("/v1/jobs/{}", created.job.id);
    let status = if created.existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, [(header::LOCATION, location)], Json(Job::from(created.job))).into_response())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=MAX_IDEMPOTENCY_KEY).contains(&key.len()));
    let malformed = || {
        let detail = format!("Idempotency-Key: must have 1 to {MAX_IDEMPOTENCY_KEY} visible characters");
        Problem::new(ProblemKind::Malformed, detail)
    };
    key.map(|key| Some(key.to_owned())).ok_or_else(malformed)
}

/// Lists jobs, the newest first.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    operation_id = "list_jobs",
    tag = "jobs",
    params(JobQuery),
    responses(
        (status = 200, description = "A page of the tenant's jobs.", body = JobList),
        (status = 400, description = "The query cannot be parsed."),
        (status = 422, description = "A query parameter has an invalid value."),
    )
)]
pub(super) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    QueryParams(query): QueryParams<JobQuery>,
) -> Result<Json<JobList>, Problem> {
    let filter = JobFilter {
        state: query.state.as_deref().map(parse_state).transpose()?,
        video: query.video.map(Id::from_text),
    };
    let cursor = query.cursor.map(Id::from_text);
    let page = state.job_store.jobs(&tenant, &filter, cursor.as_ref(), page_items(query.limit)?).await?;
    Ok(Json(page.into()))
}

/// Returns a job.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    operation_id = "get_job",
    tag = "jobs",
    params(("id" = String, Path, description = "Id of the job: `job_…`, as listed.")),
    responses(
        (status = 200, description = "The job with its progress.", body = Job),
        (status = 404, description = "The tenant has no job with this id."),
    )
)]
pub(super) async fn get(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
) -> Result<Json<Job>, Problem> {
    Ok(Json(state.job_store.job(&tenant, &Id::from_text(id)).await?.into()))
}

/// Requests cancellation of a job.
///
/// A waiting job is canceled at once, a running one within about a second. A repeated request changes
/// nothing.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/cancel",
    operation_id = "cancel_job",
    tag = "jobs",
    params(("id" = String, Path, description = "Id of the job: `job_…`, as listed.")),
    responses(
        (status = 200, description = "Cancellation is requested, or done.", body = Job),
        (status = 404, description = "The tenant has no job with this id."),
        (status = 409, description = "The job has ended already."),
    )
)]
pub(super) async fn cancel(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
) -> Result<Json<Job>, Problem> {
    Ok(Json(state.job_store.cancel(&tenant, &Id::from_text(id)).await?.into()))
}

/// Retries a failed or canceled job.
///
/// Parts that were encoded before are reused.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/retry",
    operation_id = "retry_job",
    tag = "jobs",
    params(("id" = String, Path, description = "Id of the job: `job_…`, as listed.")),
    responses(
        (status = 200, description = "The job is waiting to be started.", body = Job),
        (status = 404, description = "The tenant has no job with this id."),
        (status = 409, description = "The job is published already."),
    )
)]
pub(super) async fn retry(
    State(state): State<AppState>,
    principal: Principal,
    PathParams(id): PathParams<String>,
) -> Result<Json<Job>, Problem> {
    let mut policy = state.path_policies.of_principal(&principal).await?;
    if let Some(policy) = &mut policy {
        // The source of a job that a watch created lies below the watched prefix.
        for watch in state.watcher.watch_store.watches(Some(&principal.tenant)).await? {
            allow_watched(policy, &watch.prefix);
        }
    }
    let job = state.job_store.retry(&principal.tenant, &Id::from_text(id), policy.as_ref()).await?;
    Ok(Json(job.into()))
}

/// Lists a job's rows by ordinal.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/rows",
    operation_id = "list_rows",
    tag = "jobs",
    params(("id" = String, Path, description = "Id of the job: `job_…`, as listed."), RowQuery),
    responses(
        (status = 200, description = "A page of the job's rows.", body = RowList),
        (status = 400, description = "The query cannot be parsed."),
        (status = 404, description = "The tenant has no job with this id."),
        (status = 422, description = "A query parameter has an invalid value."),
    )
)]
pub(super) async fn rows(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<RowQuery>,
) -> Result<Json<RowList>, Problem> {
    let limit = page_items(query.limit)?;
    let from = query.from.unwrap_or(0);
    if from < 0 {
        return Err(Problem::new(ProblemKind::Malformed, "from: must be the ordinal of a row, 0 or more"));
    }
    let mut rows = state.job_store.rows(&tenant, &Id::from_text(id), from, limit + 1).await?;
    let next = rows.get(limit as usize).map(|row| row.ordinal);
    rows.truncate(limit as usize);
    Ok(Json(RowList { rows: rows.into_iter().map(Into::into).collect(), next }))
}

/// Lists the latest failed attempts at a job's rows, the newest first.
///
/// The reason of each holds FFmpeg's last lines.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/attempts",
    operation_id = "list_attempts",
    tag = "jobs",
    params(("id" = String, Path, description = "Id of the job: `job_…`, as listed.")),
    responses(
        (status = 200, description = "The latest failed attempts, at most 50.", body = AttemptList),
        (status = 404, description = "The tenant has no job with this id."),
    )
)]
pub(super) async fn attempts(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    PathParams(id): PathParams<String>,
) -> Result<Json<AttemptList>, Problem> {
    let attempts = state.job_store.attempts(&tenant, &Id::from_text(id), DEFAULT_PAGE_ITEMS).await?;
    Ok(Json(AttemptList { attempts: attempts.into_iter().map(Into::into).collect() }))
}
