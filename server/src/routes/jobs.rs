//! Jobs: asked for, listed, stopped, tried again.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use spool_jobs::{Filter, Id, NewJob, Order};
use utoipa::IntoParams;

use crate::{
    app_state::AppState,
    auth::authenticate::{Principal, Tenant},
    problem::{Problem, ProblemKind},
    routes::{
        documents::{AttemptsShown, JobRequest, JobShown, JobsShown, RowsShown, parse_state},
        extract::{Asked, Body, Named},
    },
};

/// The header that makes a request one that can be sent twice.
///
/// Source: IETF draft "The Idempotency-Key HTTP Header Field".
const KEY: &str = "idempotency-key";

/// The longest key.
const MAX_KEY: usize = 255;

/// Items of a page, unless asked otherwise and at most.
const PAGE: u32 = 50;
const MAX_PAGE: u32 = 1000;

/// Which jobs are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only those in this state.
    state: Option<String>,
    /// Only those that make this video.
    video: Option<String>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// How many are wanted at most: 50 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Which rows are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedRows {
    /// The first row's number: 0 unless given.
    #[param(minimum = 0)]
    from: Option<i64>,
    /// How many are wanted at most: 50 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// How many items are wanted.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(PAGE);
    if (1..=MAX_PAGE).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::new(ProblemKind::Invalid, format!("limit: it is {limit}: it must be from 1 to {MAX_PAGE}")))
}

/// Asks for a job. With an `Idempotency-Key` the same request can be sent again, and makes no second job.
#[utoipa::path(
    post,
    path = "/v1/jobs",
    tag = "jobs",
    request_body = JobRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Stands for this request; at most 255 characters.")),
    responses(
        (status = 201, description = "It is made, and survives whatever dies next.", body = JobShown),
        (status = 200, description = "The key stands for it already.", body = JobShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The key stands for another request.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "It is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It asks for what cannot be done.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(state): State<AppState>,
    principal: Principal,
    headers: HeaderMap,
    Body(asked): Body<JobRequest>,
) -> Result<Response, Problem> {
    let key = key(&headers)?;
    let (request, priority) = asked.read(state.media_root.as_deref())?;
    let order = Order { request, priority, confines: state.auth.path_policy(&principal).await? };
    let created = state.job_store.create(&NewJob { tenant: principal.tenant, order, key }).await?;
    let place = format!("/v1/jobs/{}", created.job.id);
    let status = if created.existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, [(header::LOCATION, place)], Json(JobShown::from(created.job))).into_response())
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=MAX_KEY).contains(&key.len()));
    let wrong = || {
        Problem::new(
            ProblemKind::Malformed,
            format!("Idempotency-Key: it must be of 1 to {MAX_KEY} visible characters"),
        )
    };
    key.map(|key| Some(key.to_owned())).ok_or_else(wrong)
}

/// Jobs, the newest first.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    tag = "jobs",
    params(Wanted),
    responses(
        (status = 200, description = "Some of them.", body = JobsShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It asks for what there cannot be.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<JobsShown>, Problem> {
    let filter = Filter {
        state: wanted.state.as_deref().map(parse_state).transpose()?,
        video: wanted.video.map(Id::from_text),
    };
    let behind = wanted.cursor.map(Id::from_text);
    let page = state.job_store.jobs(&tenant, &filter, behind.as_ref(), limit(wanted.limit)?).await?;
    Ok(Json(page.into()))
}

/// A job.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "It.", body = JobShown),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
) -> Result<Json<JobShown>, Problem> {
    Ok(Json(state.job_store.job(&tenant, &Id::from_text(id)).await?.into()))
}

/// Asks to stop a job. One that waits is canceled at once; one that runs is within a second or so. Asked twice is asked once.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/cancel",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "It is asked.", body = JobShown),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It ended already.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn cancel(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
) -> Result<Json<JobShown>, Problem> {
    Ok(Json(state.job_store.cancel(&tenant, &Id::from_text(id)).await?.into()))
}

/// Has a job that failed or was canceled tried again. What it encoded before is not encoded again.
#[utoipa::path(
    post,
    path = "/v1/jobs/{id}/retry",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "It waits for its turn.", body = JobShown),
        (status = 404, description = "There is none.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is published.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn retry(
    State(state): State<AppState>,
    principal: Principal,
    Named(id): Named<String>,
) -> Result<Json<JobShown>, Problem> {
    let mut confines = state.auth.path_policy(&principal).await?;
    if let Some(confines) = &mut confines {
        // As for a job of what arrived there.
        let watched = state
            .watcher
            .watches
            .watches(Some(&principal.tenant))
            .await?
            .into_iter()
            .map(|watch| watch.prefix);
        for prefix in watched {
            confines.sources.push(prefix.clone());
            confines.own.push(prefix);
        }
    }
    Ok(Json(state.job_store.retry(&principal.tenant, &Id::from_text(id), confines.as_ref()).await?.into()))
}

/// A job's rows, by number.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/rows",
    tag = "jobs",
    params(("id" = String, Path, description = "The job"), WantedRows),
    responses(
        (status = 200, description = "Some of them.", body = RowsShown),
        (status = 400, description = "It cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such job.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It asks for what there cannot be.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn rows(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
    Asked(wanted): Asked<WantedRows>,
) -> Result<Json<RowsShown>, Problem> {
    let limit = limit(wanted.limit)?;
    let from = wanted.from.unwrap_or(0);
    if from < 0 {
        return Err(Problem::new(ProblemKind::Malformed, "from: it must be the number of a row, or 0"));
    }
    let mut rows = state.job_store.rows(&tenant, &Id::from_text(id), from, limit + 1).await?;
    let next = rows.get(limit as usize).map(|row| row.number);
    rows.truncate(limit as usize);
    Ok(Json(RowsShown { rows: rows.into_iter().map(Into::into).collect(), next }))
}

/// The last attempts at a job's rows that gave nothing, the newest first, with FFmpeg's last lines.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}/attempts",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "Those.", body = AttemptsShown),
        (status = 404, description = "There is no such job.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn attempts(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Named(id): Named<String>,
) -> Result<Json<AttemptsShown>, Problem> {
    let attempts = state.job_store.attempts(&tenant, &Id::from_text(id), PAGE).await?;
    Ok(Json(AttemptsShown { attempts: attempts.into_iter().map(Into::into).collect() }))
}
