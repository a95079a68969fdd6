//! Queries for jobs, videos, rows, attempts and events, and conversions from database rows.

use sqlx::{Row as _, any::AnyRow};
use strum::IntoEnumIterator;

use super::{
    columns::{
        fencing_token, flag, from_json, id as id_column, json, name, named, optional_id, optional_json,
        quoted, text,
    },
    pool::SqlStore,
};
use crate::{
    Attempt, Counts, Error, Event, Id, Job, JobError, JobFilter, JobState, Page, Result, Row, Video,
};

pub(super) async fn job(store: &SqlStore, tenant: &str, id: &Id) -> Result<Job> {
    let found =
        sqlx::query("SELECT * FROM jobs WHERE id = $1 AND tenant = $2").bind(id.as_str()).bind(tenant);
    let row = found.fetch_optional(&store.reader).await?.ok_or_else(|| no_job(id))?;
    job_of(&row)
}

pub(super) async fn jobs(
    store: &SqlStore,
    tenant: &str,
    filter: &JobFilter,
    after: Option<&Id>,
    limit: u32,
) -> Result<Page<Job>> {
    let rows = sqlx::query(
        "SELECT * FROM jobs WHERE tenant = $1 AND ($2 = '' OR id < $2) AND ($3 = '' OR state = $3) \
         AND ($4 = '' OR video = $4) ORDER BY id DESC LIMIT $5",
    )
    .bind(tenant)
    .bind(after.map_or("", Id::as_str))
    .bind(filter.state.map_or("", name))
    .bind(filter.video.as_ref().map_or("", Id::as_str))
    .bind(i64::from(limit) + 1)
    .fetch_all(&store.reader)
    .await?;
    page(&rows, limit, job_of, |job| &job.id)
}

pub(super) async fn video(store: &SqlStore, tenant: &str, id: &Id) -> Result<Video> {
    let found =
        sqlx::query("SELECT * FROM videos WHERE id = $1 AND tenant = $2").bind(id.as_str()).bind(tenant);
    let row = found.fetch_optional(&store.reader).await?;
    video_of(&row.ok_or_else(|| Error::NotFound { what: "video", id: id.to_string() })?)
}

pub(super) async fn videos(
    store: &SqlStore,
    tenant: &str,
    after: Option<&Id>,
    limit: u32,
) -> Result<Page<Video>> {
    let rows = sqlx::query(
        "SELECT * FROM videos WHERE tenant = $1 AND ($2 = '' OR id < $2) ORDER BY id DESC LIMIT $3",
    )
    .bind(tenant)
    .bind(after.map_or("", Id::as_str))
    .bind(i64::from(limit) + 1)
    .fetch_all(&store.reader)
    .await?;
    page(&rows, limit, video_of, |video| &video.id)
}

pub(super) async fn rows(
    store: &SqlStore,
    tenant: &str,
    id: &Id,
    first: i64,
    limit: u32,
) -> Result<Vec<Row>> {
    job(store, tenant, id).await?;
    let rows =
        sqlx::query("SELECT * FROM job_rows WHERE job = $1 AND ordinal >= $2 ORDER BY ordinal LIMIT $3")
            .bind(id.as_str())
            .bind(first)
            .bind(i64::from(limit))
            .fetch_all(&store.reader)
            .await?;
    rows.iter().map(row_of).collect()
}

pub(super) async fn attempts(store: &SqlStore, tenant: &str, id: &Id, limit: u32) -> Result<Vec<Attempt>> {
    job(store, tenant, id).await?;
    let query = "SELECT * FROM attempts WHERE job = $1 \
                 ORDER BY at_ms DESC, fencing_token DESC, attempt DESC, ordinal LIMIT $2";
    let rows = sqlx::query(query).bind(id.as_str()).bind(i64::from(limit)).fetch_all(&store.reader).await?;
    rows.iter().map(attempt_of).collect()
}

pub(super) async fn events(
    store: &SqlStore,
    tenant: &str,
    id: &Id,
    after: i64,
    limit: u32,
) -> Result<Vec<Event>> {
    job(store, tenant, id).await?;
    let rows =
        sqlx::query("SELECT * FROM events WHERE job = $1 AND sequence > $2 ORDER BY sequence LIMIT $3")
            .bind(id.as_str())
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&store.reader)
            .await?;
    rows.iter().map(event_of).collect()
}

pub(super) async fn counts(store: &SqlStore) -> Result<Counts> {
    let mut connection = store.reader.acquire().await?;
    let now = store.now(&mut connection).await?;
    let rows = sqlx::query("SELECT state, count(*) AS jobs FROM jobs GROUP BY state")
        .fetch_all(&mut *connection)
        .await?;
    let mut jobs: Vec<(JobState, i64)> = JobState::iter().map(|state| (state, 0)).collect();
    for row in &rows {
        let state: JobState = named("state of a job", row, "state")?;
        if let Some(entry) = jobs.iter_mut().find(|entry| entry.0 == state) {
            entry.1 = row.try_get("jobs")?;
        }
    }
    let due: Option<i64> =
        sqlx::query_scalar("SELECT min(due_ms) FROM jobs WHERE state = 'pending' AND due_ms <= $1")
            .bind(now)
            .fetch_one(&mut *connection)
            .await?;
    let uploads_open = sqlx::query_scalar("SELECT count(*) FROM uploads WHERE state = 'open'")
        .fetch_one(&mut *connection)
        .await?;
    Ok(Counts { jobs, longest_wait_ms: due.map_or(0, |due| now - due), uploads_open })
}

fn no_job(id: &Id) -> Error {
    Error::NotFound { what: "job", id: id.to_string() }
}

pub(super) fn job_of(row: &AnyRow) -> Result<Job> {
    let error_kind: Option<String> = row.try_get("error_kind")?;
    let error = match error_kind {
        Some(kind) => {
            let message: Option<String> = row.try_get("error")?;
            Some(JobError {
                kind: from_json("error kind", &quoted(&kind))?,
                message: message.unwrap_or_default(),
            })
        }
        None => None,
    };
    Ok(Job {
        id: id_column(row, "id")?,
        tenant: text(row, "tenant")?,
        video: optional_id(row, "video")?,
        request: json(row, "request")?,
        priority: row.try_get("priority")?,
        path_policy: optional_json(row, "path_policy")?,
        state: named("state of a job", row, "state")?,
        phase: named("phase", row, "phase")?,
        created_ms: row.try_get("created_ms")?,
        due_ms: row.try_get("due_ms")?,
        started_ms: row.try_get("started_ms")?,
        ended_ms: row.try_get("ended_ms")?,
        tries: row.try_get("tries")?,
        dispatcher: row.try_get("dispatcher")?,
        cancel_requested: flag(row, "cancel_requested")?,
        rows: row.try_get("rows_total")?,
        rows_done: row.try_get("rows_done")?,
        media_ms: row.try_get("media_ms")?,
        media_done_ms: row.try_get("media_done_ms")?,
        result: optional_json(row, "result")?,
        error,
        events: row.try_get("events")?,
    })
}

pub(super) fn video_of(row: &AnyRow) -> Result<Video> {
    Ok(Video {
        id: id_column(row, "id")?,
        tenant: text(row, "tenant")?,
        name: text(row, "name")?,
        source: text(row, "source")?,
        destination: text(row, "destination")?,
        created_ms: row.try_get("created_ms")?,
        published: optional_json(row, "published")?,
        published_ms: row.try_get("published_ms")?,
    })
}

fn row_of(row: &AnyRow) -> Result<Row> {
    Ok(Row {
        ordinal: row.try_get("ordinal")?,
        track: from_json("track", &quoted(&text(row, "track")?))?,
        track_index: row.try_get("track_index")?,
        first_frame: row.try_get("first_frame")?,
        frames: row.try_get("frames")?,
        start_ms: row.try_get("start_ms")?,
        duration_ms: row.try_get("duration_ms")?,
        state: named("state of a row", row, "state")?,
        done_ms: row.try_get("done_ms")?,
        attempts: row.try_get("attempts")?,
        encoded: row.try_get("encoded")?,
        reused: row.try_get("reused")?,
    })
}

fn attempt_of(row: &AnyRow) -> Result<Attempt> {
    Ok(Attempt {
        ordinal: row.try_get("ordinal")?,
        fencing_token: fencing_token(row)?,
        attempt: row.try_get("attempt")?,
        at_ms: row.try_get("at_ms")?,
        reason: text(row, "reason")?,
    })
}

fn event_of(row: &AnyRow) -> Result<Event> {
    Ok(Event {
        job: id_column(row, "job")?,
        sequence: row.try_get("sequence")?,
        at_ms: row.try_get("at_ms")?,
        kind: named("kind of event", row, "kind")?,
        data: json(row, "data")?,
    })
}

/// Returns the first `limit` of `limit` + 1 rows as a page: a row beyond `limit` means that another page
/// follows.
fn page<T>(
    rows: &[AnyRow],
    limit: u32,
    item: fn(&AnyRow) -> Result<T>,
    id: fn(&T) -> &Id,
) -> Result<Page<T>> {
    let items: Vec<T> = rows.iter().take(limit as usize).map(item).collect::<Result<_>>()?;
    let next = (rows.len() > items.len()).then(|| items.last().map(|last| id(last).clone())).flatten();
    Ok(Page { items, next })
}
