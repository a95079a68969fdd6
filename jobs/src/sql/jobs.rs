//! Jobs in SQL: creation, cancellation and retry, on a client's request.

use serde_json::json;
use spool_storage::{path_policy::PathPolicy, redact};
use sqlx::Row as _;

use super::{
    columns::{id as id_column, to_json},
    events::append_last,
    pool::{SqlStore, WriteTransaction},
    read, tenants,
};
use crate::{Created, Error, EventKind, Id, Job, JobSpec, JobState, NewJob, Request, Result};

pub(super) async fn create(store: &SqlStore, new: &NewJob) -> Result<Created> {
    new.spec.check()?;
    let mut tx = store.begin().await?;
    tenants::ensure(&mut tx, &new.tenant).await?;
    let id = Id::job();
    if let Some(key) = &new.idempotency_key
        && let Some(job) = use_key(&mut tx, new, key, &id).await?
    {
        // Released first: calls that hold one connection and wait for another can deadlock on the pool.
        drop(tx);
        return Ok(Created { job: read::job(store, &new.tenant, &job).await?, existed: true });
    }
    tenants::check_job_quota(&mut tx, &new.tenant).await?;
    let job = insert(&mut tx, &new.tenant, &new.spec, id).await?;
    tx.commit().await?;
    Ok(Created { job, existed: false })
}

/// Inserts a job, and the video that it publishes.
pub(super) async fn insert(tx: &mut WriteTransaction, tenant: &str, spec: &JobSpec, id: Id) -> Result<Job> {
    let now = tx.now_ms;
    let video = Id::video();
    let JobSpec { request, priority, path_policy } = spec.for_video(&video);
    let video = insert_video(tx, tenant, &request, video).await?;
    let row = sqlx::query(
        "INSERT INTO jobs (id, tenant, video, request, priority, path_policy, state, phase, created_ms, \
         due_ms, tries, fencing_token, cancel_requested, rows_total, rows_done, media_ms, media_done_ms, \
         events) \
         VALUES ($1, $2, $3, $4, $5, $6, 'pending', 'waiting', $7, $7, 0, 0, 0, 0, 0, 0, 0, 1) RETURNING *",
    )
    .bind(id.as_str())
    .bind(tenant)
    .bind(video.as_ref().map(|video| video.as_str().to_owned()))
    .bind(to_json(&request))
    .bind(priority)
    .bind(path_policy.map(|policy| to_json(&policy)))
    .bind(now)
    .fetch_one(tx.connection())
    .await?;
    let job = read::job_of(&row)?;
    append_last(tx, &job, EventKind::Created, &json!({ "video": video })).await?;
    Ok(job)
}

/// Assigns an idempotency key to a job. Returns the job that the key belongs to already.
async fn use_key(tx: &mut WriteTransaction, new: &NewJob, key: &str, id: &Id) -> Result<Option<Id>> {
    let hash = new.spec.request.hash();
    let now = tx.now_ms;
    let inserted = sqlx::query(
        "INSERT INTO idempotency (tenant, key, hash, job, created_ms) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (tenant, key) DO NOTHING",
    )
    .bind(&new.tenant)
    .bind(key)
    .bind(&hash)
    .bind(id.as_str())
    .bind(now)
    .execute(tx.connection())
    .await?;
    if inserted.rows_affected() > 0 {
        return Ok(None);
    }
    let found = sqlx::query("SELECT hash, job FROM idempotency WHERE tenant = $1 AND key = $2")
        .bind(&new.tenant)
        .bind(key);
    let row = found.fetch_one(tx.connection()).await?;
    let job = id_column(&row, "job")?;
    if row.try_get::<String, _>("hash")? == hash {
        Ok(Some(job))
    } else {
        Err(Error::KeyUsed { key: key.to_owned(), job })
    }
}

/// Inserts the video that a request publishes.
async fn insert_video(
    tx: &mut WriteTransaction,
    tenant: &str,
    request: &Request,
    id: Id,
) -> Result<Option<Id>> {
    let Request::Transcode { source, destination, .. } = request else { return Ok(None) };
    let (source, now) = (redact(source), tx.now_ms);
    let name = spool_storage::name(&source);
    sqlx::query(
        "INSERT INTO videos (id, tenant, name, source, destination, created_ms) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(id.as_str())
    .bind(tenant)
    .bind(name)
    .bind(&source)
    .bind(destination)
    .bind(now)
    .execute(tx.connection())
    .await?;
    Ok(Some(id))
}

pub(super) async fn cancel(store: &SqlStore, tenant: &str, id: &Id) -> Result<Job> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    let pending = sqlx::query(
        "UPDATE jobs SET state = 'canceled', phase = 'ended', ended_ms = $1, cancel_requested = 1, \
         events = events + 1 WHERE id = $2 AND tenant = $3 AND state = 'pending' RETURNING *",
    )
    .bind(now)
    .bind(id.as_str())
    .bind(tenant);
    if let Some(row) = pending.fetch_optional(tx.connection()).await? {
        let job = read::job_of(&row)?;
        append_last(&mut tx, &job, EventKind::Canceled, &json!({})).await?;
        tx.commit().await?;
        return Ok(job);
    }
    let processing = sqlx::query(
        "UPDATE jobs SET cancel_requested = 1, events = events + 1 \
         WHERE id = $1 AND tenant = $2 AND state = 'processing' AND cancel_requested = 0 RETURNING *",
    )
    .bind(id.as_str())
    .bind(tenant);
    if let Some(row) = processing.fetch_optional(tx.connection()).await? {
        let job = read::job_of(&row)?;
        append_last(&mut tx, &job, EventKind::CancelRequested, &json!({})).await?;
        tx.commit().await?;
        return Ok(job);
    }
    drop(tx);
    let job = read::job(store, tenant, id).await?;
    match job.state {
        JobState::Published | JobState::Failed => Err(Error::InvalidState {
            job: job.id,
            state: job.state,
            remedy: "only a pending or running job can be canceled",
        }),
        JobState::Pending | JobState::Processing | JobState::Canceled => Ok(job),
    }
}

pub(super) async fn retry(
    store: &SqlStore,
    tenant: &str,
    id: &Id,
    path_policy: Option<&PathPolicy>,
) -> Result<Job> {
    let path_policy = match path_policy {
        Some(policy) => Some(to_json(&checked_policy(store, tenant, id, policy).await?)),
        None => None,
    };
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    tenants::check_job_quota(&mut tx, tenant).await?;
    let retried = sqlx::query(
        "UPDATE jobs SET state = 'pending', phase = 'waiting', due_ms = $1, tries = 0, cancel_requested = 0, \
         ended_ms = NULL, error_kind = NULL, error = NULL, path_policy = COALESCE($2, path_policy), \
         events = events + 1 WHERE id = $3 AND tenant = $4 AND state IN ('failed', 'canceled') RETURNING *",
    )
    .bind(now)
    .bind(path_policy)
    .bind(id.as_str())
    .bind(tenant);
    if let Some(row) = retried.fetch_optional(tx.connection()).await? {
        let job = read::job_of(&row)?;
        append_last(&mut tx, &job, EventKind::Retried, &json!({})).await?;
        tx.commit().await?;
        return Ok(job);
    }
    drop(tx);
    let job = read::job(store, tenant, id).await?;
    match job.state {
        JobState::Published => Err(Error::InvalidState {
            job: job.id,
            state: job.state,
            remedy: "create a new job to transcode its source again",
        }),
        JobState::Pending | JobState::Processing | JobState::Failed | JobState::Canceled => Ok(job),
    }
}

/// Returns the policy for a job that is retried, after a check of its paths: the tenant's rights may have
/// shrunk since.
async fn checked_policy(store: &SqlStore, tenant: &str, id: &Id, policy: &PathPolicy) -> Result<PathPolicy> {
    let job = read::job(store, tenant, id).await?;
    let spec = JobSpec { request: job.request, priority: job.priority, path_policy: Some(policy.clone()) };
    let spec = job.video.as_ref().map_or_else(|| spec.clone(), |video| spec.for_video(video));
    spec.check()?;
    Ok(spec.path_policy.unwrap_or_default())
}
