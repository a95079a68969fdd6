//! What is to go, once videos are published? Their sources, and parts that nothing refers to.

use std::time::Duration;

use serde_json::json;

use super::{SqlStore, claims::milliseconds, jobs::happened, read};
use crate::{Id, Job, Kind, Result, Video};

/// A job whose source is due, and that no other job waits for or reads. What a statement reads is not known before it runs.
const DUE: &str = "SELECT j.id FROM jobs j JOIN videos v ON v.id = j.video WHERE j.source_due_ms <= $1 AND NOT EXISTS ( \
     SELECT 1 FROM jobs other JOIN videos theirs ON theirs.id = other.video \
     WHERE theirs.source = v.source AND other.id <> j.id AND other.state IN ('pending', 'processing')) \
     AND NOT EXISTS (SELECT 1 FROM jobs s WHERE s.tenant = j.tenant AND s.video IS NULL AND s.state IN ('pending', 'processing')) \
     ORDER BY j.source_due_ms LIMIT 1";

pub(super) async fn hold(store: &SqlStore, lease: Duration) -> Result<Option<Job>> {
    let Some(due) = store.due(DUE).await? else { return Ok(None) };
    let mut change = store.change().await?;
    let now = change.now_ms;
    let taken =
        sqlx::query("UPDATE jobs SET source_due_ms = $1 WHERE id = $2 AND source_due_ms <= $3 RETURNING *")
            .bind(now.saturating_add(milliseconds(lease)))
            .bind(due)
            .bind(now);
    let Some(row) = taken.fetch_optional(change.connection()).await? else { return Ok(None) };
    let job = read::job_of(&row)?;
    change.keep().await?;
    Ok(Some(job))
}

pub(super) async fn settle(store: &SqlStore, job: &Job, source: &str, kept: Option<&str>) -> Result<()> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    let settled = sqlx::query(
        "UPDATE jobs SET source_due_ms = NULL, events = events + 1 WHERE id = $1 AND source_due_ms IS NOT NULL RETURNING *",
    )
    .bind(job.id.as_str());
    // Whoever had it before was slower than its lease, and did the same.
    let Some(row) = settled.fetch_optional(change.connection()).await? else { return Ok(()) };
    let job = read::job_of(&row)?;
    match kept {
        Some(why) => happened(&mut change, &job, Kind::SourceKept, &json!({ "reason": why })).await?,
        None => {
            happened(&mut change, &job, Kind::SourceDeleted, &json!({})).await?;
            sqlx::query(
                "UPDATE uploads SET state = 'gone', updated_ms = $1 WHERE tenant = $2 AND location = $3 AND state = 'finished'",
            )
            .bind(now)
            .bind(&job.tenant)
            .bind(source)
            .execute(change.connection())
            .await?;
        }
    }
    change.keep().await
}

pub(super) async fn hold_unswept(
    store: &SqlStore,
    since: Duration,
    lease: Duration,
) -> Result<Option<Video>> {
    let since = milliseconds(since);
    let mut change = store.change().await?;
    let now = change.now_ms;
    let taken = sqlx::query(
        "UPDATE videos SET unswept_ms = $1 WHERE id = (SELECT id FROM videos WHERE unswept_ms <= $2 ORDER BY unswept_ms LIMIT 1) \
         AND unswept_ms <= $2 RETURNING *",
    )
    .bind(now.saturating_sub(since).saturating_add(milliseconds(lease)))
    .bind(now.saturating_sub(since));
    let Some(row) = taken.fetch_optional(change.connection()).await? else { return Ok(None) };
    let video = read::video_of(&row)?;
    change.keep().await?;
    Ok(Some(video))
}

pub(super) async fn swept(store: &SqlStore, id: &Id, again: bool) -> Result<()> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    sqlx::query("UPDATE videos SET unswept_ms = $1 WHERE id = $2 AND unswept_ms IS NOT NULL")
        .bind(again.then_some(now))
        .bind(id.as_str())
        .execute(change.connection())
        .await?;
    change.keep().await
}
