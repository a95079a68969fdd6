//! Cleanup work in SQL: sources of published jobs, and videos whose destination may hold unreferenced parts.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::{
    events::append_last,
    lease_table::LeaseTable,
    pool::{SqlStore, with_deadline},
    read,
};
use crate::{CleanupQueue, EventKind, Id, Job, Result, Video};

/// Published jobs whose source is to be deleted and that no other unfinished job reads. A running SQL
/// statement of the tenant may read any source, which is known only once it has run: while one is unfinished,
/// no source of the tenant is due.
const SOURCES: LeaseTable = LeaseTable {
    table: "jobs",
    next: &["SELECT j.id FROM jobs j JOIN videos v ON v.id = j.video WHERE j.source_due_ms <= $1 \
         AND NOT EXISTS (SELECT 1 FROM jobs other JOIN videos theirs ON theirs.id = other.video \
         WHERE theirs.source = v.source AND other.id <> j.id AND other.state IN ('pending', 'processing')) \
         AND NOT EXISTS (SELECT 1 FROM jobs s \
         WHERE s.tenant = j.tenant AND s.video IS NULL AND s.state IN ('pending', 'processing')) \
         ORDER BY j.source_due_ms LIMIT 1"],
    until: "source_due_ms",
    due: "source_due_ms <= $1",
    set: "",
};

/// Videos that were published or collected.
const GC_PENDING: LeaseTable = LeaseTable {
    table: "videos",
    next: &["SELECT id FROM videos WHERE gc_pending_ms <= $1 ORDER BY gc_pending_ms LIMIT 1"],
    until: "gc_pending_ms",
    due: "gc_pending_ms <= $1",
    set: "",
};

#[async_trait]
impl CleanupQueue for SqlStore {
    async fn lease_source(&self, lease_time: Duration) -> Result<Option<Job>> {
        with_deadline(lease_source(self, lease_time)).await
    }

    async fn finish_source(&self, job: &Job, source: &str, kept_because: Option<&str>) -> Result<()> {
        with_deadline(finish_source(self, job, source, kept_because)).await
    }

    async fn lease_gc(&self, grace: Duration, lease_time: Duration) -> Result<Option<Video>> {
        with_deadline(lease_gc(self, grace, lease_time)).await
    }

    async fn finish_gc(&self, id: &Id, pending: bool) -> Result<()> {
        with_deadline(finish_gc(self, id, pending)).await
    }
}

async fn lease_source(store: &SqlStore, lease_time: Duration) -> Result<Option<Job>> {
    let Some((tx, row)) = SOURCES.lease(store, lease_time).await? else { return Ok(None) };
    let job = read::job_of(&row)?;
    tx.commit().await?;
    Ok(Some(job))
}

async fn finish_source(store: &SqlStore, job: &Job, source: &str, kept_because: Option<&str>) -> Result<()> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    let finished = sqlx::query(
        "UPDATE jobs SET source_due_ms = NULL, events = events + 1 \
         WHERE id = $1 AND source_due_ms IS NOT NULL RETURNING *",
    )
    .bind(job.id.as_str());
    // No row: another holder, after this lease ended, has done the work.
    let Some(row) = finished.fetch_optional(tx.connection()).await? else { return Ok(()) };
    let job = read::job_of(&row)?;
    match kept_because {
        Some(reason) => {
            append_last(&mut tx, &job, EventKind::SourceKept, &json!({ "reason": reason })).await?;
        }
        None => {
            append_last(&mut tx, &job, EventKind::SourceDeleted, &json!({})).await?;
            sqlx::query(
                "UPDATE uploads SET state = 'gone', updated_ms = $1 \
                 WHERE tenant = $2 AND location = $3 AND state = 'finished'",
            )
            .bind(now)
            .bind(&job.tenant)
            .bind(source)
            .execute(tx.connection())
            .await?;
        }
    }
    tx.commit().await
}

async fn lease_gc(store: &SqlStore, grace: Duration, lease_time: Duration) -> Result<Option<Video>> {
    let Some((tx, row)) = GC_PENDING.lease_since(store, grace, lease_time).await? else { return Ok(None) };
    let video = read::video_of(&row)?;
    tx.commit().await?;
    Ok(Some(video))
}

async fn finish_gc(store: &SqlStore, id: &Id, pending: bool) -> Result<()> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    sqlx::query("UPDATE videos SET gc_pending_ms = $1 WHERE id = $2 AND gc_pending_ms IS NOT NULL")
        .bind(pending.then_some(now))
        .bind(id.as_str())
        .execute(tx.connection())
        .await?;
    tx.commit().await
}
