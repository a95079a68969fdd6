//! What is in the database, as what it stands for.

use serde::de::DeserializeOwned;
use sqlx::{Row as _, any::AnyRow};

use super::SqlStore;
use crate::{Attempt, Counts, Ended, Error, Event, Filter, Id, Job, Page, Result, Row, State, Video};

pub(super) async fn job(store: &SqlStore, tenant: &str, id: &Id) -> Result<Job> {
    let found =
        sqlx::query("SELECT * FROM jobs WHERE id = $1 AND tenant = $2").bind(id.as_str()).bind(tenant);
    let row = found.fetch_optional(&store.reader).await?.ok_or_else(|| no_job(id))?;
    job_of(&row)
}

pub(super) async fn jobs(
    store: &SqlStore,
    tenant: &str,
    filter: &Filter,
    behind: Option<&Id>,
    limit: u32,
) -> Result<Page<Job>> {
    let rows = sqlx::query(
        "SELECT * FROM jobs WHERE tenant = $1 AND ($2 = '' OR id < $2) AND ($3 = '' OR state = $3) AND ($4 = '' OR video = $4) \
         ORDER BY id DESC LIMIT $5",
    )
    .bind(tenant)
    .bind(behind.map_or("", Id::as_str))
    .bind(filter.state.map_or("", |state| state.word()))
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
    behind: Option<&Id>,
    limit: u32,
) -> Result<Page<Video>> {
    let rows = sqlx::query(
        "SELECT * FROM videos WHERE tenant = $1 AND ($2 = '' OR id < $2) ORDER BY id DESC LIMIT $3",
    )
    .bind(tenant)
    .bind(behind.map_or("", Id::as_str))
    .bind(i64::from(limit) + 1)
    .fetch_all(&store.reader)
    .await?;
    page(&rows, limit, video_of, |video| &video.id)
}

pub(super) async fn rows(store: &SqlStore, tenant: &str, id: &Id, from: i64, limit: u32) -> Result<Vec<Row>> {
    job(store, tenant, id).await?;
    let rows = sqlx::query("SELECT * FROM job_rows WHERE job = $1 AND number >= $2 ORDER BY number LIMIT $3")
        .bind(id.as_str())
        .bind(from)
        .bind(i64::from(limit))
        .fetch_all(&store.reader)
        .await?;
    rows.iter().map(row_of).collect()
}

pub(super) async fn attempts(store: &SqlStore, tenant: &str, id: &Id, limit: u32) -> Result<Vec<Attempt>> {
    job(store, tenant, id).await?;
    let rows = sqlx::query("SELECT * FROM attempts WHERE job = $1 ORDER BY at_ms DESC, fence DESC, attempt DESC, number LIMIT $2")
        .bind(id.as_str())
        .bind(i64::from(limit))
        .fetch_all(&store.reader)
        .await?;
    rows.iter().map(attempt_of).collect()
}

pub(super) async fn events(
    store: &SqlStore,
    tenant: &str,
    id: &Id,
    behind: i64,
    limit: u32,
) -> Result<Vec<Event>> {
    job(store, tenant, id).await?;
    let rows =
        sqlx::query("SELECT * FROM events WHERE job = $1 AND sequence > $2 ORDER BY sequence LIMIT $3")
            .bind(id.as_str())
            .bind(behind)
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
    let mut jobs = State::ALL.map(|state| (state, 0)).to_vec();
    for row in &rows {
        let state: State = text(row, "state")?.parse()?;
        if let Some(counted) = jobs.iter_mut().find(|counted| counted.0 == state) {
            counted.1 = row.try_get("jobs")?;
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

pub(super) fn no_job(id: &Id) -> Error {
    Error::NotFound { what: "job", id: id.to_string() }
}

pub(super) fn job_of(row: &AnyRow) -> Result<Job> {
    let error_kind: Option<String> = row.try_get("error_kind")?;
    let error = match error_kind {
        Some(kind) => {
            let message: Option<String> = row.try_get("error")?;
            Some(Ended {
                kind: json("kind of error", &format!("\"{kind}\""))?,
                message: message.unwrap_or_default(),
            })
        }
        None => None,
    };
    Ok(Job {
        id: Id::from_text(text(row, "id")?),
        tenant: text(row, "tenant")?,
        video: row.try_get::<Option<String>, _>("video")?.map(Id::from_text),
        request: json("request", &text(row, "request")?)?,
        priority: row.try_get("priority")?,
        confines: optional_json(row, "confines")?,
        state: text(row, "state")?.parse()?,
        phase: text(row, "phase")?.parse()?,
        created_ms: row.try_get("created_ms")?,
        due_ms: row.try_get("due_ms")?,
        started_ms: row.try_get("started_ms")?,
        ended_ms: row.try_get("ended_ms")?,
        tries: row.try_get("tries")?,
        dispatcher: row.try_get("dispatcher")?,
        cancel_requested: row.try_get::<i64, _>("cancel_requested")? != 0,
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
        id: Id::from_text(text(row, "id")?),
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
        number: row.try_get("number")?,
        track: json("track", &format!("\"{}\"", text(row, "track")?))?,
        track_index: row.try_get("track_index")?,
        first_frame: row.try_get("first_frame")?,
        frames: row.try_get("frames")?,
        start_ms: row.try_get("start_ms")?,
        duration_ms: row.try_get("duration_ms")?,
        state: text(row, "state")?.parse()?,
        done_ms: row.try_get("done_ms")?,
        attempts: row.try_get("attempts")?,
        encoded: row.try_get("encoded")?,
        reused: row.try_get("reused")?,
    })
}

fn attempt_of(row: &AnyRow) -> Result<Attempt> {
    Ok(Attempt {
        row: row.try_get("number")?,
        claim: row.try_get("fence")?,
        attempt: row.try_get("attempt")?,
        at_ms: row.try_get("at_ms")?,
        reason: text(row, "reason")?,
    })
}

fn event_of(row: &AnyRow) -> Result<Event> {
    Ok(Event {
        job: Id::from_text(text(row, "job")?),
        sequence: row.try_get("sequence")?,
        at_ms: row.try_get("at_ms")?,
        kind: text(row, "kind")?.parse()?,
        data: json("event", &text(row, "data")?)?,
    })
}

/// The first `limit` of what was found, and whether there was more.
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

pub(super) fn text(row: &AnyRow, column: &str) -> Result<String> {
    Ok(row.try_get(column)?)
}

pub(super) fn json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|_| Error::Unknown { what, value: text.to_owned() })
}

pub(super) fn optional_json<T: DeserializeOwned>(row: &AnyRow, column: &'static str) -> Result<Option<T>> {
    row.try_get::<Option<String>, _>(column)?.map(|text| json(column, &text)).transpose()
}
