//! How are jobs made, stopped and tried again, by those whose they are?

use serde::Serialize;
use serde_json::{Value, json};
use spool_storage::{path_policy::PathPolicy, redact};
use sqlx::Row as _;

use super::{Change, SqlStore, access, read, webhooks};
use crate::{Created, Error, Id, Job, Kind, NewJob, Order, Request, Result, State};

pub(super) async fn create(store: &SqlStore, new: &NewJob) -> Result<Created> {
    new.order.check()?;
    let mut change = store.change().await?;
    make_tenant(&mut change, &new.tenant).await?;
    let id = Id::job();
    if let Some(key) = &new.key
        && let Some(job) = use_key(&mut change, new, key, &id).await?
    {
        // Given back first: whoever holds one connection and waits for another may wait for others that do the same.
        drop(change);
        return Ok(Created { job: read::job(store, &new.tenant, &job).await?, existed: true });
    }
    access::check_jobs(&mut change, &new.tenant).await?;
    let job = make_job(&mut change, &new.tenant, &new.order, id).await?;
    change.keep().await?;
    Ok(Created { job, existed: false })
}

pub(super) async fn make_tenant(change: &mut Change, tenant: &str) -> Result<()> {
    sqlx::query("INSERT INTO tenants (id, served_ms) VALUES ($1, 0) ON CONFLICT (id) DO NOTHING")
        .bind(tenant)
        .execute(change.connection())
        .await?;
    Ok(())
}

/// Makes a job, and the video that it makes.
pub(super) async fn make_job(change: &mut Change, tenant: &str, order: &Order, id: Id) -> Result<Job> {
    let now = change.now_ms;
    let video = Id::video();
    let Order { request, priority, confines } = order.of_video(&video);
    let video = make_video(change, tenant, &request, video).await?;
    let row = sqlx::query(
        "INSERT INTO jobs (id, tenant, video, request, priority, confines, state, phase, created_ms, due_ms, tries, fence, cancel_requested, \
         rows_total, rows_done, media_ms, media_done_ms, events) \
         VALUES ($1, $2, $3, $4, $5, $6, 'pending', 'waiting', $7, $7, 0, 0, 0, 0, 0, 0, 0, 1) RETURNING *",
    )
    .bind(id.as_str())
    .bind(tenant)
    .bind(video.as_ref().map(|video| video.as_str().to_owned()))
    .bind(as_json(&request))
    .bind(priority)
    .bind(confines.map(|confines| as_json(&confines)))
    .bind(now)
    .fetch_one(change.connection())
    .await?;
    let job = read::job_of(&row)?;
    happened(change, &job, Kind::Created, &json!({ "video": video })).await?;
    Ok(job)
}

/// Has a key stand for a job; gives the job that it stands for already.
async fn use_key(change: &mut Change, new: &NewJob, key: &str, id: &Id) -> Result<Option<Id>> {
    let hash = new.order.request.hash();
    let now = change.now_ms;
    let inserted = sqlx::query(
        "INSERT INTO idempotency (tenant, key, hash, job, created_ms) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, key) DO NOTHING",
    )
    .bind(&new.tenant)
    .bind(key)
    .bind(&hash)
    .bind(id.as_str())
    .bind(now)
    .execute(change.connection())
    .await?;
    if inserted.rows_affected() > 0 {
        return Ok(None);
    }
    let found = sqlx::query("SELECT hash, job FROM idempotency WHERE tenant = $1 AND key = $2")
        .bind(&new.tenant)
        .bind(key);
    let row = found.fetch_one(change.connection()).await?;
    let job = Id::from_text(row.try_get::<String, _>("job")?);
    if row.try_get::<String, _>("hash")? == hash {
        Ok(Some(job))
    } else {
        Err(Error::KeyUsed { key: key.to_owned(), job })
    }
}

/// Makes the video that a request makes.
async fn make_video(change: &mut Change, tenant: &str, request: &Request, id: Id) -> Result<Option<Id>> {
    let Request::Transcode { source, destination, .. } = request else { return Ok(None) };
    let (source, now) = (redact(source), change.now_ms);
    let name = spool_storage::name(&source);
    sqlx::query("INSERT INTO videos (id, tenant, name, source, destination, created_ms) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(id.as_str())
        .bind(tenant)
        .bind(name)
        .bind(&source)
        .bind(destination)
        .bind(now)
        .execute(change.connection())
        .await?;
    Ok(Some(id))
}

pub(super) async fn cancel(store: &SqlStore, tenant: &str, id: &Id) -> Result<Job> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    let waited = sqlx::query(
        "UPDATE jobs SET state = 'canceled', phase = 'ended', ended_ms = $1, cancel_requested = 1, events = events + 1 \
         WHERE id = $2 AND tenant = $3 AND state = 'pending' RETURNING *",
    )
    .bind(now)
    .bind(id.as_str())
    .bind(tenant);
    if let Some(row) = waited.fetch_optional(change.connection()).await? {
        let job = read::job_of(&row)?;
        happened(&mut change, &job, Kind::Canceled, &json!({})).await?;
        change.keep().await?;
        return Ok(job);
    }
    let runs = sqlx::query(
        "UPDATE jobs SET cancel_requested = 1, events = events + 1 \
         WHERE id = $1 AND tenant = $2 AND state = 'processing' AND cancel_requested = 0 RETURNING *",
    )
    .bind(id.as_str())
    .bind(tenant);
    if let Some(row) = runs.fetch_optional(change.connection()).await? {
        let job = read::job_of(&row)?;
        happened(&mut change, &job, Kind::CancelRequested, &json!({})).await?;
        change.keep().await?;
        return Ok(job);
    }
    drop(change);
    let job = read::job(store, tenant, id).await?;
    match job.state {
        State::Published | State::Failed => {
            Err(Error::State { job: job.id, state: job.state, remedy: "there is nothing to cancel" })
        }
        State::Pending | State::Processing | State::Canceled => Ok(job),
    }
}

pub(super) async fn retry(
    store: &SqlStore,
    tenant: &str,
    id: &Id,
    confines: Option<&PathPolicy>,
) -> Result<Job> {
    let confines = match confines {
        Some(confines) => Some(as_json(&places(store, tenant, id, confines).await?)),
        None => None,
    };
    let mut change = store.change().await?;
    let now = change.now_ms;
    access::check_jobs(&mut change, tenant).await?;
    let again = sqlx::query(
        "UPDATE jobs SET state = 'pending', phase = 'waiting', due_ms = $1, tries = 0, cancel_requested = 0, ended_ms = NULL, \
         error_kind = NULL, error = NULL, confines = COALESCE($2, confines), events = events + 1 \
         WHERE id = $3 AND tenant = $4 AND state IN ('failed', 'canceled') RETURNING *",
    )
    .bind(now)
    .bind(confines)
    .bind(id.as_str())
    .bind(tenant);
    if let Some(row) = again.fetch_optional(change.connection()).await? {
        let job = read::job_of(&row)?;
        happened(&mut change, &job, Kind::Retried, &json!({})).await?;
        change.keep().await?;
        return Ok(job);
    }
    drop(change);
    let job = read::job(store, tenant, id).await?;
    match job.state {
        State::Published => Err(Error::State {
            job: job.id,
            state: job.state,
            remedy: "make a new job to transcode its source again",
        }),
        State::Pending | State::Processing | State::Failed | State::Canceled => Ok(job),
    }
}

/// The places that a job may touch now: what it was once allowed may be so no more.
async fn places(store: &SqlStore, tenant: &str, id: &Id, confines: &PathPolicy) -> Result<PathPolicy> {
    let job = read::job(store, tenant, id).await?;
    let order = Order { request: job.request, priority: job.priority, confines: Some(confines.clone()) };
    let order = job.video.as_ref().map_or_else(|| order.clone(), |video| order.of_video(video));
    order.check()?;
    Ok(order.confines.unwrap_or_default())
}

/// Notes the event that a job counts as its last.
pub(super) async fn happened(change: &mut Change, job: &Job, kind: Kind, data: &Value) -> Result<()> {
    note(change, &job.id, job.events, kind, data).await
}

/// An event is not older than the one before: a change that had to wait for the job began earlier than it happened.
const NOTE: &str = "INSERT INTO events (job, sequence, at_ms, kind, data) \
     SELECT $1, $2, CASE WHEN last.at_ms > $3 THEN last.at_ms ELSE $3 END, $4, $5 \
     FROM (SELECT COALESCE((SELECT at_ms FROM events WHERE job = $1 ORDER BY sequence DESC LIMIT 1), 0) AS at_ms) AS last";

/// Notes an event under its number.
pub(super) async fn note(
    change: &mut Change,
    job: &Id,
    sequence: i64,
    kind: Kind,
    data: &Value,
) -> Result<()> {
    let now = change.now_ms;
    sqlx::query(NOTE)
        .bind(job.as_str())
        .bind(sequence)
        .bind(now)
        .bind(kind.word())
        .bind(data.to_string())
        .execute(change.connection())
        .await?;
    webhooks::tell(change, job, sequence, kind, data).await
}

/// Texts and numbers always serialise.
pub(super) fn as_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
