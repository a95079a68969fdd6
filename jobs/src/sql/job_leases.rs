//! Leases of jobs in SQL: taking one, its status, reports under it, and its end.

use std::time::Duration;

use serde_json::{Value, json};
use spool_storage::ErrorKind;
use sqlx::AssertSqlSafe;
use tracing::warn;

use super::{
    columns::{after, fencing_token, flag, milliseconds, name},
    events::{append, append_last},
    lease_table::{LeaseTable, lease_lost},
    pool::{SqlStore, WriteTransaction},
    read,
};
use crate::{
    Attempt, Error, EventKind, Id, Job, JobState, Lease, LeaseStatus, Outcome, Phase, Report, Request,
    Result, Row,
};

/// Attempts of one call to lease a job before it returns none: dispatchers that poll at the same time try the
/// same job.
const LEASE_ATTEMPTS: usize = 8;

/// Time for which a job that this version cannot read is postponed, for other dispatchers.
const SET_ASIDE: Duration = Duration::from_secs(60);

/// Recorded outcome of a lease whose holder reported none.
const LEASE_EXPIRED: &str = "lease expired";

/// Jobs: pending ones that are due, and running ones whose lease has expired. `$4` is the dispatcher.
const JOBS: LeaseTable = LeaseTable {
    table: "jobs",
    next: &[EXPIRED, FAIR_NEXT],
    until: "lease_until_ms",
    due: "((state = 'pending' AND due_ms <= $1) OR (state = 'processing' AND lease_until_ms <= $1))",
    set: ", state = 'processing', phase = 'planning', fencing_token = fencing_token + 1, dispatcher = $4, \
          started_ms = COALESCE(started_ms, $1), tries = tries + 1, events = events + 1",
};

/// A job whose lease has expired, the longest ago first.
const EXPIRED: &str =
    "SELECT id FROM jobs WHERE state = 'processing' AND lease_until_ms <= $1 ORDER BY lease_until_ms LIMIT 1";

/// The first due job of the tenant with the fewest running jobs; among such tenants, of the one served
/// longest ago.
const FAIR_NEXT: &str = "SELECT id FROM jobs WHERE id = ( \
     SELECT (SELECT j.id FROM jobs j WHERE j.tenant = t.id AND j.state = 'pending' AND j.due_ms <= $1 \
             ORDER BY j.priority DESC, j.id LIMIT 1) \
     FROM tenants t \
     WHERE EXISTS (SELECT 1 FROM jobs j WHERE j.tenant = t.id AND j.state = 'pending' AND j.due_ms <= $1) \
     ORDER BY (SELECT count(*) FROM jobs a WHERE a.tenant = t.id AND a.state = 'processing'), \
     t.served_ms, t.id LIMIT 1)";

pub(super) async fn lease(store: &SqlStore, dispatcher: &str, lease_time: Duration) -> Result<Option<Lease>> {
    for _ in 0..LEASE_ATTEMPTS {
        let Some(id) = JOBS.next(store).await? else { return Ok(None) };
        match take(store, &id, dispatcher, lease_time).await {
            Ok(None) => {}
            Err(Error::UnknownValue { what, value }) => {
                warn!(job = %id, what, value, "job unreadable for this version of Spool; set aside");
                set_aside(store, &id).await?;
            }
            lease => return lease,
        }
    }
    Ok(None)
}

/// Postpones a job that this version cannot read, so that it does not block the jobs behind it.
async fn set_aside(store: &SqlStore, id: &Id) -> Result<()> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    let statement = format!(
        "UPDATE jobs SET due_ms = $2, \
         lease_until_ms = CASE WHEN lease_until_ms IS NULL THEN NULL ELSE $2 END WHERE id = $3 AND {}",
        JOBS.due
    );
    sqlx::query(AssertSqlSafe(statement))
        .bind(now)
        .bind(after(now, SET_ASIDE))
        .bind(id.as_str())
        .execute(tx.connection())
        .await?;
    tx.commit().await
}

/// Leases a job, if no other dispatcher has leased it meanwhile.
async fn take(store: &SqlStore, id: &Id, dispatcher: &str, lease_time: Duration) -> Result<Option<Lease>> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    let Some(row) = JOBS.take(&mut tx, id, lease_time, &[dispatcher]).await? else { return Ok(None) };
    let lease = Lease { job: read::job_of(&row)?, fencing_token: fencing_token(&row)? };
    close(&mut tx, id, LEASE_EXPIRED).await?;
    sqlx::query("INSERT INTO leases (job, fencing_token, dispatcher, leased_ms) VALUES ($1, $2, $3, $4)")
        .bind(id.as_str())
        .bind(lease.fencing_token.get())
        .bind(dispatcher)
        .bind(now)
        .execute(tx.connection())
        .await?;
    sqlx::query("UPDATE tenants SET served_ms = $1 WHERE id = $2")
        .bind(now)
        .bind(&lease.job.tenant)
        .execute(tx.connection())
        .await?;
    let data = json!({ "dispatcher": dispatcher, "try": lease.job.tries });
    append_last(&mut tx, &lease.job, EventKind::Started, &data).await?;
    tx.commit().await?;
    Ok(Some(lease))
}

pub(super) async fn status(store: &SqlStore, lease: &Lease) -> Result<LeaseStatus> {
    let held = sqlx::query(
        "SELECT cancel_requested FROM jobs WHERE id = $1 AND fencing_token = $2 AND state = 'processing'",
    )
    .bind(lease.job.id.as_str())
    .bind(lease.fencing_token.get());
    let row = held.fetch_optional(&store.reader).await?.ok_or_else(|| lost(lease))?;
    Ok(LeaseStatus { cancel_requested: flag(&row, "cancel_requested")? })
}

pub(super) async fn renew(
    store: &SqlStore,
    lease: &Lease,
    lease_time: Duration,
    report: &Report,
) -> Result<LeaseStatus> {
    let mut tx = store.begin().await?;
    let status = write_report(&mut tx, lease, Some(lease_time), report).await?;
    tx.commit().await?;
    Ok(status)
}

pub(super) async fn finish(
    store: &SqlStore,
    lease: &Lease,
    report: &Report,
    outcome: &Outcome,
) -> Result<Job> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    let status = write_report(&mut tx, lease, None, report).await?;
    // A client that requested cancellation wants no other try.
    let outcome = match outcome {
        Outcome::Retry { .. } | Outcome::Released if status.cancel_requested => &Outcome::Canceled,
        outcome => outcome,
    };
    let Changes { state, due_ms, result, error, event } = Changes::of(outcome, now);
    let row = sqlx::query(
        "UPDATE jobs SET state = $1, phase = $2, due_ms = $3, lease_until_ms = NULL, ended_ms = $4, \
         tries = tries - $5, result = COALESCE($6, result), error_kind = $7, error = $8, source_due_ms = $9, \
         events = events + 1 WHERE id = $10 AND fencing_token = $11 RETURNING *",
    )
    .bind(name(state))
    .bind(name(if state.ended() { Phase::Ended } else { Phase::Waiting }))
    .bind(due_ms.unwrap_or(lease.job.due_ms))
    .bind(state.ended().then_some(now))
    .bind(i64::from(matches!(outcome, Outcome::Released)))
    .bind(result.map(Value::to_string))
    .bind(error.map(|(kind, _)| name(kind).to_owned()))
    .bind(error.map(|(_, message)| message.to_owned()))
    .bind((state == JobState::Published && deletes_source(&lease.job)).then_some(now))
    .bind(lease.job.id.as_str())
    .bind(lease.fencing_token.get())
    .fetch_one(tx.connection())
    .await?;
    let job = read::job_of(&row)?;
    if let (Some(published), Some(video)) = (result, &job.video) {
        sqlx::query("UPDATE videos SET published = $1, published_ms = $2, gc_pending_ms = $2 WHERE id = $3")
            .bind(published.to_string())
            .bind(now)
            .bind(video.as_str())
            .execute(tx.connection())
            .await?;
    }
    close(&mut tx, &job.id, outcome.name()).await?;
    append_last(&mut tx, &job, event.0, &event.1).await?;
    tx.commit().await?;
    Ok(job)
}

fn deletes_source(job: &Job) -> bool {
    matches!(&job.request, Request::Transcode { delete_source: true, .. })
}

/// Changes of a job at the end of its lease.
struct Changes<'a> {
    state: JobState,
    due_ms: Option<i64>,
    result: Option<&'a Value>,
    error: Option<(ErrorKind, &'a str)>,
    event: (EventKind, Value),
}

impl<'a> Changes<'a> {
    fn of(outcome: &'a Outcome, now: i64) -> Self {
        let canceled = Self {
            state: JobState::Canceled,
            due_ms: None,
            result: None,
            error: None,
            event: (EventKind::Canceled, json!({})),
        };
        match outcome {
            Outcome::Published(result) => Self {
                state: JobState::Published,
                result: Some(result),
                event: (EventKind::Published, json!({ "percent": 100, "master": result.get("master") })),
                ..canceled
            },
            Outcome::Canceled => canceled,
            Outcome::Failed { kind, message } => Self {
                state: JobState::Failed,
                error: Some((*kind, message)),
                event: (EventKind::Failed, json!({ "kind": kind, "message": message })),
                ..canceled
            },
            Outcome::Retry { kind, message, delay } => Self {
                state: JobState::Pending,
                due_ms: Some(after(now, *delay)),
                error: Some((*kind, message)),
                event: (
                    EventKind::RetryScheduled,
                    json!({ "reason": message, "after_ms": milliseconds(*delay) }),
                ),
                ..canceled
            },
            Outcome::Released => Self {
                state: JobState::Pending,
                due_ms: Some(now),
                event: (
                    EventKind::RetryScheduled,
                    json!({ "reason": "the dispatcher shuts down", "after_ms": 0 }),
                ),
                ..canceled
            },
        }
    }
}

/// Writes a report if the lease is the job's newest. The first statement locks the job until the transaction
/// ends.
async fn write_report(
    tx: &mut WriteTransaction,
    lease: &Lease,
    lease_time: Option<Duration>,
    report: &Report,
) -> Result<LeaseStatus> {
    let progress = report.progress.unwrap_or_default();
    let until = lease_time.map(|lease_time| after(tx.now_ms, lease_time));
    let held = sqlx::query(
        "UPDATE jobs SET lease_until_ms = COALESCE($1, lease_until_ms), phase = COALESCE($2, phase), \
         rows_total = CASE WHEN $3 > rows_total THEN $3 ELSE rows_total END, \
         rows_done = CASE WHEN $4 > rows_done THEN $4 ELSE rows_done END, \
         media_ms = CASE WHEN $5 > media_ms THEN $5 ELSE media_ms END, \
         media_done_ms = CASE WHEN $6 > media_done_ms THEN $6 ELSE media_done_ms END \
         WHERE id = $7 AND fencing_token = $8 AND state = 'processing' RETURNING cancel_requested",
    )
    .bind(until)
    .bind(report.phase.map(|phase| name(phase).to_owned()))
    .bind(progress.rows)
    .bind(progress.rows_done)
    .bind(progress.media_ms)
    .bind(progress.media_done_ms)
    .bind(lease.job.id.as_str())
    .bind(lease.fencing_token.get());
    let row = held.fetch_optional(tx.connection()).await?.ok_or_else(|| lost(lease))?;
    for row in &report.rows {
        write_row(tx, &lease.job.id, row).await?;
    }
    for attempt in &report.attempts {
        write_attempt(tx, lease, attempt).await?;
    }
    write_events(tx, lease, report).await?;
    Ok(LeaseStatus { cancel_requested: flag(&row, "cancel_requested")? })
}

/// Writes the events of a report, except those that an earlier report, whose response was lost, has written.
async fn write_events(tx: &mut WriteTransaction, lease: &Lease, report: &Report) -> Result<()> {
    if report.events.is_empty() {
        return Ok(());
    }
    let job = &lease.job.id;
    let stored: i64 =
        sqlx::query_scalar("SELECT events_written FROM leases WHERE job = $1 AND fencing_token = $2")
            .bind(job.as_str())
            .bind(lease.fencing_token.get())
            .fetch_one(tx.connection())
            .await?;
    let repeated = report.events_written.map_or(0, |written| stored - written);
    let events = report.events.get(usize::try_from(repeated).unwrap_or_default()..).unwrap_or_default();
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    let last: i64 = sqlx::query_scalar("UPDATE jobs SET events = events + $1 WHERE id = $2 RETURNING events")
        .bind(count)
        .bind(job.as_str())
        .fetch_one(tx.connection())
        .await?;
    sqlx::query(
        "UPDATE leases SET events_written = events_written + $1 WHERE job = $2 AND fencing_token = $3",
    )
    .bind(count)
    .bind(job.as_str())
    .bind(lease.fencing_token.get())
    .execute(tx.connection())
    .await?;
    for (sequence, (kind, data)) in (last - count + 1..).zip(events) {
        append(tx, job, sequence, *kind, data).await?;
    }
    Ok(())
}

async fn write_row(tx: &mut WriteTransaction, job: &Id, row: &Row) -> Result<()> {
    let track = serde_json::to_value(row.track).ok().and_then(|track| Some(track.as_str()?.to_owned()));
    sqlx::query(
        "INSERT INTO job_rows (job, ordinal, track, track_index, first_frame, frames, start_ms, duration_ms, \
         state, done_ms, attempts, encoded, reused) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
         ON CONFLICT (job, ordinal) DO UPDATE SET track = excluded.track, \
         track_index = excluded.track_index, \
         first_frame = excluded.first_frame, frames = excluded.frames, start_ms = excluded.start_ms, \
         duration_ms = excluded.duration_ms, state = excluded.state, done_ms = excluded.done_ms, \
         attempts = excluded.attempts, encoded = excluded.encoded, reused = excluded.reused",
    )
    .bind(job.as_str())
    .bind(row.ordinal)
    .bind(track.unwrap_or_default())
    .bind(row.track_index)
    .bind(row.first_frame)
    .bind(row.frames)
    .bind(row.start_ms)
    .bind(row.duration_ms)
    .bind(name(row.state))
    .bind(row.done_ms)
    .bind(row.attempts)
    .bind(row.encoded)
    .bind(row.reused)
    .execute(tx.connection())
    .await?;
    Ok(())
}

async fn write_attempt(tx: &mut WriteTransaction, lease: &Lease, attempt: &Attempt) -> Result<()> {
    let now = tx.now_ms;
    sqlx::query(
        "INSERT INTO attempts (job, ordinal, fencing_token, attempt, at_ms, reason) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (job, ordinal, fencing_token, attempt) DO NOTHING",
    )
    .bind(lease.job.id.as_str())
    .bind(attempt.ordinal)
    .bind(lease.fencing_token.get())
    .bind(attempt.attempt)
    .bind(now)
    .bind(&attempt.reason)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Records the outcome of the open leases of a job.
async fn close(tx: &mut WriteTransaction, job: &Id, outcome: &str) -> Result<()> {
    let now = tx.now_ms;
    sqlx::query("UPDATE leases SET ended_ms = $1, outcome = $2 WHERE job = $3 AND ended_ms IS NULL")
        .bind(now)
        .bind(outcome)
        .bind(job.as_str())
        .execute(tx.connection())
        .await?;
    Ok(())
}

fn lost(lease: &Lease) -> Error {
    lease_lost("job", &lease.job.id, lease.fencing_token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JobStore, NewJob};

    #[tokio::test]
    async fn a_job_of_a_newer_version_does_not_block_others() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqlStore::open(folder.path().join("jobs.db").to_str().unwrap()).await.unwrap();
        let new = |source: &str| NewJob {
            tenant: "acme".to_owned(),
            spec: Request::transcode(source, "out/").into(),
            idempotency_key: None,
        };
        let newer = store.create(&new("newer.mp4")).await.unwrap().job;
        let ours = store.create(&new("ours.mp4")).await.unwrap().job;
        let unknown = sqlx::query("UPDATE jobs SET request = '{\"hologram\": true}' WHERE id = $1")
            .bind(newer.id.as_str());
        let mut tx = store.begin().await.unwrap();
        unknown.execute(tx.connection()).await.unwrap();
        tx.commit().await.unwrap();
        let lease_time = Duration::from_secs(60);
        assert_eq!(store.lease_job("a", lease_time).await.unwrap().unwrap().job.id, ours.id);
        assert!(store.lease_job("a", lease_time).await.unwrap().is_none());
    }
}
