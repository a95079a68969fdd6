//! Events of jobs in SQL, and their deliveries to webhooks.

use serde_json::Value;

use super::{columns::name, pool::WriteTransaction, webhooks};
use crate::{EventKind, Id, Job, Result};

/// Inserts an event whose time is not before that of the previous one: a transaction that waited for the
/// job's lock began earlier than its event.
const APPEND: &str = "INSERT INTO events (job, sequence, at_ms, kind, data) \
     SELECT $1, $2, CASE WHEN last.at_ms > $3 THEN last.at_ms ELSE $3 END, $4, $5 \
     FROM (SELECT COALESCE((SELECT at_ms FROM events WHERE job = $1 ORDER BY sequence DESC LIMIT 1), 0) \
     AS at_ms) AS last";

/// Appends the event under the job's last event number.
pub(super) async fn append_last(
    tx: &mut WriteTransaction,
    job: &Job,
    kind: EventKind,
    data: &Value,
) -> Result<()> {
    append(tx, &job.id, job.events, kind, data).await
}

/// Appends an event under its sequence number, and its deliveries.
pub(super) async fn append(
    tx: &mut WriteTransaction,
    job: &Id,
    sequence: i64,
    kind: EventKind,
    data: &Value,
) -> Result<()> {
    let now = tx.now_ms;
    sqlx::query(APPEND)
        .bind(job.as_str())
        .bind(sequence)
        .bind(now)
        .bind(name(kind))
        .bind(data.to_string())
        .execute(tx.connection())
        .await?;
    webhooks::enqueue(tx, job, sequence, kind, data).await
}
