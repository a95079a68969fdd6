//! How is it kept where files arrive?

use std::time::Duration;

use sqlx::{Row as _, any::AnyRow};

use super::{SqlStore, access::check_tenant, claims::milliseconds, jobs::make_tenant, read::text};
use crate::{Error, Id, NewWatch, Result, Watch};

/// Watches in all: each server reads the queue of each.
const MOST: i64 = 1000;

/// Values of a statement at most: SQLite and PostgreSQL take many more.
const VALUES: usize = 500;

pub(super) async fn create(store: &SqlStore, new: &NewWatch) -> Result<Watch> {
    check_tenant(&new.tenant)?;
    let mut change = store.change().await?;
    let now = change.now_ms;
    make_tenant(&mut change, &new.tenant).await?;
    let there: i64 =
        sqlx::query_scalar("SELECT count(*) FROM watches").fetch_one(change.connection()).await?;
    if there >= MOST {
        return Err(Error::Quota { what: "watches", most: MOST.unsigned_abs() });
    }
    let row = sqlx::query(
        "INSERT INTO watches (id, tenant, prefix, job, queue, list_every_ms, list_due_ms, created_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
         RETURNING *",
    )
    .bind(Id::watch().as_str())
    .bind(&new.tenant)
    .bind(&new.prefix)
    .bind(&new.job)
    .bind(&new.queue)
    .bind(new.list_every.map(milliseconds))
    .bind(new.list_every.map(|_| now))
    .bind(now)
    .fetch_one(change.connection())
    .await?;
    let watch = watch_of(&row)?;
    change.keep().await?;
    Ok(watch)
}

pub(super) async fn watches(store: &SqlStore, tenant: Option<&str>) -> Result<Vec<Watch>> {
    let rows = match tenant {
        Some(tenant) => {
            sqlx::query("SELECT * FROM watches WHERE tenant = $1 ORDER BY id")
                .bind(tenant)
                .fetch_all(&store.reader)
                .await
        }
        None => sqlx::query("SELECT * FROM watches ORDER BY id").fetch_all(&store.reader).await,
    };
    rows?.iter().map(watch_of).collect()
}

pub(super) async fn remove(store: &SqlStore, id: &Id) -> Result<Watch> {
    let mut change = store.change().await?;
    let removed = sqlx::query("DELETE FROM watches WHERE id = $1 RETURNING *").bind(id.as_str());
    let row = removed.fetch_optional(change.connection()).await?;
    let watch = watch_of(&row.ok_or_else(|| Error::NotFound { what: "watch", id: id.to_string() })?)?;
    change.keep().await?;
    Ok(watch)
}

const DUE: &str = "SELECT id FROM watches WHERE list_due_ms <= $1 ORDER BY list_due_ms LIMIT 1";

pub(super) async fn hold(store: &SqlStore, lease: Duration) -> Result<Option<Watch>> {
    let Some(due) = store.due(DUE).await? else { return Ok(None) };
    let mut change = store.change().await?;
    let now = change.now_ms;
    let taken =
        sqlx::query("UPDATE watches SET list_due_ms = $1 WHERE id = $2 AND list_due_ms <= $3 RETURNING *")
            .bind(now.saturating_add(milliseconds(lease)))
            .bind(due)
            .bind(now);
    let Some(row) = taken.fetch_optional(change.connection()).await? else { return Ok(None) };
    let watch = watch_of(&row)?;
    change.keep().await?;
    Ok(Some(watch))
}

pub(super) async fn looked(store: &SqlStore, id: &Id, trouble: Option<&str>) -> Result<()> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    sqlx::query(
        "UPDATE watches SET looked_ms = $1, list_due_ms = $1 + list_every_ms, trouble = $2 WHERE id = $3",
    )
    .bind(now)
    .bind(trouble.map(str::to_owned))
    .bind(id.as_str())
    .execute(change.connection())
    .await?;
    change.keep().await
}

pub(super) async fn used_keys(store: &SqlStore, tenant: &str, keys: &[String]) -> Result<Vec<String>> {
    let mut used = Vec::new();
    for keys in keys.chunks(VALUES) {
        let statement =
            format!("SELECT key FROM idempotency WHERE tenant = $1 AND key IN ({})", values(2, keys.len()));
        let query = keys
            .iter()
            .fold(sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).bind(tenant), |query, key| {
                query.bind(key)
            });
        used.extend(query.fetch_all(&store.reader).await?);
    }
    Ok(used)
}

/// `$2, $3, $4`.
fn values(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

fn watch_of(row: &AnyRow) -> Result<Watch> {
    let every: Option<i64> = row.try_get("list_every_ms")?;
    Ok(Watch {
        id: Id::from_text(text(row, "id")?),
        tenant: text(row, "tenant")?,
        prefix: text(row, "prefix")?,
        job: text(row, "job")?,
        queue: row.try_get("queue")?,
        list_every: every.map(|every| Duration::from_millis(every.unsigned_abs())),
        created_ms: row.try_get("created_ms")?,
        looked_ms: row.try_get("looked_ms")?,
        trouble: row.try_get("trouble")?,
    })
}
