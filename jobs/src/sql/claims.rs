//! How does a job get into a dispatcher's hand, and how is it kept out of every other's? A claim has a number; whoever holds an older one
//! writes nothing.

use std::time::Duration;

use serde_json::{Value, json};
use spool_storage::ErrorKind;
use sqlx::Row as _;
use tracing::warn;

use super::{
    Change, SqlStore,
    jobs::{happened, note},
    read,
};
use crate::{
    Attempt, Claim, Ending, Error, Id, Job, Kind, Phase, Report, Request, Result, Row, Standing, State,
};

/// How often another job is looked for where somebody else was faster.
const RACES: usize = 8;

/// How long a job waits that this version cannot read.
const SET_ASIDE: Duration = Duration::from_secs(60);

/// Why a claim ended where its holder did not say.
const LEASE_ENDED: &str = "lease ended";

/// A job whose lease ended, the longest ago first.
const LEFT: &str = "SELECT id, fence FROM jobs WHERE state = 'processing' AND lease_until_ms <= $1 ORDER BY lease_until_ms LIMIT 1";

/// The first job of the tenant that has the fewest in hand and, among those, was not served for longest.
const NEXT: &str = "SELECT id, fence FROM jobs WHERE id = ( \
     SELECT (SELECT j.id FROM jobs j WHERE j.tenant = t.id AND j.state = 'pending' AND j.due_ms <= $1 \
             ORDER BY j.priority DESC, j.id LIMIT 1) \
     FROM tenants t \
     WHERE EXISTS (SELECT 1 FROM jobs j WHERE j.tenant = t.id AND j.state = 'pending' AND j.due_ms <= $1) \
     ORDER BY (SELECT count(*) FROM jobs a WHERE a.tenant = t.id AND a.state = 'processing'), t.served_ms, t.id \
     LIMIT 1)";

pub(super) async fn claim(store: &SqlStore, dispatcher: &str, lease: Duration) -> Result<Option<Claim>> {
    for _ in 0..RACES {
        let Some((id, fence)) = next(store).await? else { return Ok(None) };
        match take(store, &id, fence, dispatcher, lease).await {
            Ok(None) => {}
            Err(Error::Unknown { what, value }) => {
                warn!(job = %id, what, value, "a job is left to a version of Spool that can read it");
                set_aside(store, &id, fence).await?;
            }
            claim => return claim,
        }
    }
    Ok(None)
}

/// Has a job that this version cannot read wait, so that it does not keep others waiting.
async fn set_aside(store: &SqlStore, id: &Id, fence: i64) -> Result<()> {
    let mut change = store.change().await?;
    let until = change.now_ms.saturating_add(milliseconds(SET_ASIDE));
    sqlx::query(
        "UPDATE jobs SET due_ms = $1, lease_until_ms = CASE WHEN lease_until_ms IS NULL THEN NULL ELSE $1 END \
         WHERE id = $2 AND fence = $3",
    )
    .bind(until)
    .bind(id.as_str())
    .bind(fence)
    .execute(change.connection())
    .await?;
    change.keep().await
}

/// Looks without a lock: most of the time there is nothing to do.
async fn next(store: &SqlStore) -> Result<Option<(Id, i64)>> {
    let mut connection = store.reader.acquire().await?;
    let now = store.now(&mut connection).await?;
    for statement in [LEFT, NEXT] {
        if let Some(row) = sqlx::query(statement).bind(now).fetch_optional(&mut *connection).await? {
            return Ok(Some((Id::from_text(row.try_get::<String, _>("id")?), row.try_get("fence")?)));
        }
    }
    Ok(None)
}

/// Takes a job, if nobody else has meanwhile.
async fn take(
    store: &SqlStore,
    id: &Id,
    fence: i64,
    dispatcher: &str,
    lease: Duration,
) -> Result<Option<Claim>> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    let taken = sqlx::query(
        "UPDATE jobs SET state = 'processing', phase = 'planning', fence = fence + 1, dispatcher = $1, lease_until_ms = $2, \
         started_ms = COALESCE(started_ms, $3), tries = tries + 1, events = events + 1 \
         WHERE id = $4 AND fence = $5 AND (state = 'pending' OR (state = 'processing' AND lease_until_ms <= $3)) RETURNING *",
    )
    .bind(dispatcher)
    .bind(now.saturating_add(milliseconds(lease)))
    .bind(now)
    .bind(id.as_str())
    .bind(fence);
    let Some(row) = taken.fetch_optional(change.connection()).await? else { return Ok(None) };
    let claim = Claim { job: read::job_of(&row)?, fence: row.try_get("fence")? };
    close(&mut change, id, LEASE_ENDED).await?;
    sqlx::query("INSERT INTO claims (job, fence, dispatcher, claimed_ms) VALUES ($1, $2, $3, $4)")
        .bind(id.as_str())
        .bind(claim.fence)
        .bind(dispatcher)
        .bind(now)
        .execute(change.connection())
        .await?;
    sqlx::query("UPDATE tenants SET served_ms = $1 WHERE id = $2")
        .bind(now)
        .bind(&claim.job.tenant)
        .execute(change.connection())
        .await?;
    happened(
        &mut change,
        &claim.job,
        Kind::Started,
        &json!({ "dispatcher": dispatcher, "try": claim.job.tries }),
    )
    .await?;
    change.keep().await?;
    Ok(Some(claim))
}

pub(super) async fn standing(store: &SqlStore, claim: &Claim) -> Result<Standing> {
    let held = sqlx::query(
        "SELECT cancel_requested FROM jobs WHERE id = $1 AND fence = $2 AND state = 'processing'",
    )
    .bind(claim.job.id.as_str())
    .bind(claim.fence);
    let row = held.fetch_optional(&store.reader).await?.ok_or_else(|| lost(claim))?;
    Ok(Standing { cancel_requested: row.try_get::<i64, _>("cancel_requested")? != 0 })
}

pub(super) async fn report(
    store: &SqlStore,
    claim: &Claim,
    lease: Duration,
    report: &Report,
) -> Result<Standing> {
    let mut change = store.change().await?;
    let standing = write(&mut change, claim, Some(lease), report).await?;
    change.keep().await?;
    Ok(standing)
}

pub(super) async fn end(store: &SqlStore, claim: &Claim, report: &Report, ending: &Ending) -> Result<Job> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    let standing = write(&mut change, claim, None, report).await?;
    let End { state, due_ms, result, error, event, outcome } = End::of(ending, standing, now);
    let row = sqlx::query(
        "UPDATE jobs SET state = $1, phase = $2, due_ms = $3, lease_until_ms = NULL, ended_ms = $4, tries = tries - $5, \
         result = COALESCE($6, result), error_kind = $7, error = $8, source_due_ms = $9, events = events + 1 \
         WHERE id = $10 AND fence = $11 RETURNING *",
    )
    .bind(state.word())
    .bind(if state.ended() { Phase::Ended } else { Phase::Waiting }.word())
    .bind(due_ms.unwrap_or(claim.job.due_ms))
    .bind(state.ended().then_some(now))
    .bind(i64::from(matches!(ending, Ending::Released)))
    .bind(result.map(Value::to_string))
    .bind(error.and_then(|(kind, _)| word(kind)))
    .bind(error.map(|(_, message)| message.to_owned()))
    .bind((state == State::Published && deletes_source(&claim.job)).then_some(now))
    .bind(claim.job.id.as_str())
    .bind(claim.fence)
    .fetch_one(change.connection())
    .await?;
    let job = read::job_of(&row)?;
    if let (Some(published), Some(video)) = (result, &job.video) {
        sqlx::query("UPDATE videos SET published = $1, published_ms = $2, unswept_ms = $2 WHERE id = $3")
            .bind(published.to_string())
            .bind(now)
            .bind(video.as_str())
            .execute(change.connection())
            .await?;
    }
    close(&mut change, &job.id, outcome).await?;
    happened(&mut change, &job, event.0, &event.1).await?;
    change.keep().await?;
    Ok(job)
}

fn deletes_source(job: &Job) -> bool {
    matches!(&job.request, Request::Transcode { delete_source: true, .. })
}

/// What an ending means for the job.
struct End<'a> {
    state: State,
    due_ms: Option<i64>,
    result: Option<&'a Value>,
    error: Option<(ErrorKind, &'a str)>,
    event: (Kind, Value),
    outcome: &'static str,
}

impl<'a> End<'a> {
    fn of(ending: &'a Ending, standing: Standing, now: i64) -> Self {
        let canceled = Self {
            state: State::Canceled,
            due_ms: None,
            result: None,
            error: None,
            event: (Kind::Canceled, json!({})),
            outcome: "canceled",
        };
        match ending {
            Ending::Published(result) => Self {
                state: State::Published,
                result: Some(result),
                event: (Kind::Published, json!({ "percent": 100, "master": result.get("master") })),
                outcome: "published",
                ..canceled
            },
            Ending::Canceled => canceled,
            // Who asked to stop it does not want it tried again.
            Ending::Again { .. } | Ending::Released if standing.cancel_requested => canceled,
            Ending::Failed { kind, message } => Self {
                state: State::Failed,
                error: Some((*kind, message)),
                event: (Kind::Failed, json!({ "kind": kind, "message": message })),
                outcome: "failed",
                ..canceled
            },
            Ending::Again { kind, message, after } => Self {
                state: State::Pending,
                due_ms: Some(now.saturating_add(milliseconds(*after))),
                error: Some((*kind, message)),
                event: (Kind::Again, json!({ "reason": message, "after_ms": milliseconds(*after) })),
                outcome: "failed, and is tried again",
                ..canceled
            },
            Ending::Released => Self {
                state: State::Pending,
                due_ms: Some(now),
                event: (Kind::Again, json!({ "reason": "its dispatcher leaves", "after_ms": 0 })),
                outcome: "released",
                ..canceled
            },
        }
    }
}

/// Writes a report under the condition that the claim is the job's last. The first statement keeps everybody else from the job until
/// the change is made.
async fn write(
    change: &mut Change,
    claim: &Claim,
    lease: Option<Duration>,
    report: &Report,
) -> Result<Standing> {
    let progress = report.progress.unwrap_or_default();
    let until = lease.map(|lease| change.now_ms.saturating_add(milliseconds(lease)));
    let held = sqlx::query(
        "UPDATE jobs SET lease_until_ms = COALESCE($1, lease_until_ms), phase = COALESCE($2, phase), \
         rows_total = CASE WHEN $3 > rows_total THEN $3 ELSE rows_total END, \
         rows_done = CASE WHEN $4 > rows_done THEN $4 ELSE rows_done END, \
         media_ms = CASE WHEN $5 > media_ms THEN $5 ELSE media_ms END, \
         media_done_ms = CASE WHEN $6 > media_done_ms THEN $6 ELSE media_done_ms END \
         WHERE id = $7 AND fence = $8 AND state = 'processing' RETURNING cancel_requested",
    )
    .bind(until)
    .bind(report.phase.map(|phase| phase.word().to_owned()))
    .bind(progress.rows)
    .bind(progress.rows_done)
    .bind(progress.media_ms)
    .bind(progress.media_done_ms)
    .bind(claim.job.id.as_str())
    .bind(claim.fence);
    let row = held.fetch_optional(change.connection()).await?.ok_or_else(|| lost(claim))?;
    for row in &report.rows {
        write_row(change, &claim.job.id, row).await?;
    }
    for attempt in &report.attempts {
        write_attempt(change, claim, attempt).await?;
    }
    write_events(change, claim, report).await?;
    Ok(Standing { cancel_requested: row.try_get::<i64, _>("cancel_requested")? != 0 })
}

/// Writes down events, but for those that were by a report whose answer was lost.
async fn write_events(change: &mut Change, claim: &Claim, report: &Report) -> Result<()> {
    if report.events.is_empty() {
        return Ok(());
    }
    let job = &claim.job.id;
    let known = "SELECT told FROM claims WHERE job = $1 AND fence = $2";
    let known: i64 =
        sqlx::query_scalar(known).bind(job.as_str()).bind(claim.fence).fetch_one(change.connection()).await?;
    let written = usize::try_from(report.told.map_or(0, |told| known - told)).unwrap_or_default();
    let events = report.events.get(written..).unwrap_or_default();
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    let last: i64 = sqlx::query_scalar("UPDATE jobs SET events = events + $1 WHERE id = $2 RETURNING events")
        .bind(count)
        .bind(job.as_str())
        .fetch_one(change.connection())
        .await?;
    sqlx::query("UPDATE claims SET told = told + $1 WHERE job = $2 AND fence = $3")
        .bind(count)
        .bind(job.as_str())
        .bind(claim.fence)
        .execute(change.connection())
        .await?;
    for (sequence, (kind, data)) in (last - count + 1..).zip(events) {
        note(change, job, sequence, *kind, data).await?;
    }
    Ok(())
}

async fn write_row(change: &mut Change, job: &Id, row: &Row) -> Result<()> {
    let track = serde_json::to_value(row.track).ok().and_then(|track| Some(track.as_str()?.to_owned()));
    sqlx::query(
        "INSERT INTO job_rows (job, number, track, track_index, first_frame, frames, start_ms, duration_ms, state, done_ms, attempts, \
         encoded, reused) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
         ON CONFLICT (job, number) DO UPDATE SET track = excluded.track, track_index = excluded.track_index, \
         first_frame = excluded.first_frame, frames = excluded.frames, start_ms = excluded.start_ms, \
         duration_ms = excluded.duration_ms, state = excluded.state, done_ms = excluded.done_ms, attempts = excluded.attempts, \
         encoded = excluded.encoded, reused = excluded.reused",
    )
    .bind(job.as_str())
    .bind(row.number)
    .bind(track.unwrap_or_default())
    .bind(row.track_index)
    .bind(row.first_frame)
    .bind(row.frames)
    .bind(row.start_ms)
    .bind(row.duration_ms)
    .bind(row.state.word())
    .bind(row.done_ms)
    .bind(row.attempts)
    .bind(row.encoded)
    .bind(row.reused)
    .execute(change.connection())
    .await?;
    Ok(())
}

async fn write_attempt(change: &mut Change, claim: &Claim, attempt: &Attempt) -> Result<()> {
    let now = change.now_ms;
    sqlx::query(
        "INSERT INTO attempts (job, number, fence, attempt, at_ms, reason) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (job, number, fence, attempt) DO NOTHING",
    )
    .bind(claim.job.id.as_str())
    .bind(attempt.row)
    .bind(claim.fence)
    .bind(attempt.attempt)
    .bind(now)
    .bind(&attempt.reason)
    .execute(change.connection())
    .await?;
    Ok(())
}

/// Notes how the claims of a job that are open ended.
async fn close(change: &mut Change, job: &Id, outcome: &str) -> Result<()> {
    let now = change.now_ms;
    sqlx::query("UPDATE claims SET ended_ms = $1, outcome = $2 WHERE job = $3 AND ended_ms IS NULL")
        .bind(now)
        .bind(outcome)
        .bind(job.as_str())
        .execute(change.connection())
        .await?;
    Ok(())
}

fn lost(claim: &Claim) -> Error {
    Error::Lost { what: "job", id: claim.job.id.clone(), fence: claim.fence }
}

fn word(kind: ErrorKind) -> Option<String> {
    serde_json::to_value(kind).ok().and_then(|kind| Some(kind.as_str()?.to_owned()))
}

pub(super) fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
