//! Watches in SQL.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Row as _, any::AnyRow};

use super::{
    columns::{id as id_column, milliseconds, text},
    lease_table::LeaseTable,
    pool::{SqlStore, with_deadline},
    tenants::{self, check_tenant_name},
};
use crate::{Error, Id, NewWatch, Result, Watch, WatchStore};

/// Most watches of all tenants: every server reads the queue of every watch.
const MAX_WATCHES: i64 = 1000;

/// Most values per statement. SQLite and PostgreSQL accept many more.
const MAX_VALUES: usize = 500;

/// Watches whose scan is due. The next scan's time is the lease's end, until the scan is recorded.
const WATCHES: LeaseTable = LeaseTable {
    table: "watches",
    next: &["SELECT id FROM watches WHERE scan_due_ms <= $1 ORDER BY scan_due_ms LIMIT 1"],
    until: "scan_due_ms",
    due: "scan_due_ms <= $1",
    set: "",
};

#[async_trait]
impl WatchStore for SqlStore {
    async fn create_watch(&self, new: &NewWatch) -> Result<Watch> {
        with_deadline(create(self, new)).await
    }

    async fn watches(&self, tenant: Option<&str>) -> Result<Vec<Watch>> {
        with_deadline(watches(self, tenant)).await
    }

    async fn delete_watch(&self, id: &Id) -> Result<Watch> {
        with_deadline(delete(self, id)).await
    }

    async fn lease_watch(&self, lease_time: Duration) -> Result<Option<Watch>> {
        with_deadline(lease(self, lease_time)).await
    }

    async fn record_scan(&self, id: &Id, error: Option<&str>) -> Result<()> {
        with_deadline(record_scan(self, id, error)).await
    }

    async fn used_keys(&self, tenant: &str, keys: &[String]) -> Result<Vec<String>> {
        with_deadline(used_keys(self, tenant, keys)).await
    }
}

async fn create(store: &SqlStore, new: &NewWatch) -> Result<Watch> {
    check_tenant_name(&new.tenant)?;
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    tenants::ensure(&mut tx, &new.tenant).await?;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM watches").fetch_one(tx.connection()).await?;
    if count >= MAX_WATCHES {
        return Err(Error::Quota { what: "watches", max: MAX_WATCHES.unsigned_abs() });
    }
    let row = sqlx::query(
        "INSERT INTO watches (id, tenant, prefix, job, queue, scan_interval_ms, scan_due_ms, created_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING *",
    )
    .bind(Id::watch().as_str())
    .bind(&new.tenant)
    .bind(&new.prefix)
    .bind(&new.job)
    .bind(&new.queue)
    .bind(new.scan_interval.map(milliseconds))
    .bind(new.scan_interval.map(|_| now))
    .bind(now)
    .fetch_one(tx.connection())
    .await?;
    let watch = watch_of(&row)?;
    tx.commit().await?;
    Ok(watch)
}

async fn watches(store: &SqlStore, tenant: Option<&str>) -> Result<Vec<Watch>> {
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

async fn delete(store: &SqlStore, id: &Id) -> Result<Watch> {
    let mut tx = store.begin().await?;
    let deleted = sqlx::query("DELETE FROM watches WHERE id = $1 RETURNING *").bind(id.as_str());
    let row = deleted.fetch_optional(tx.connection()).await?;
    let watch = watch_of(&row.ok_or_else(|| Error::NotFound { what: "watch", id: id.to_string() })?)?;
    tx.commit().await?;
    Ok(watch)
}

async fn lease(store: &SqlStore, lease_time: Duration) -> Result<Option<Watch>> {
    let Some((tx, row)) = WATCHES.lease(store, lease_time).await? else { return Ok(None) };
    let watch = watch_of(&row)?;
    tx.commit().await?;
    Ok(Some(watch))
}

async fn record_scan(store: &SqlStore, id: &Id, error: Option<&str>) -> Result<()> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    sqlx::query(
        "UPDATE watches SET scanned_ms = $1, scan_due_ms = $1 + scan_interval_ms, last_error = $2 \
         WHERE id = $3",
    )
    .bind(now)
    .bind(error.map(str::to_owned))
    .bind(id.as_str())
    .execute(tx.connection())
    .await?;
    tx.commit().await
}

async fn used_keys(store: &SqlStore, tenant: &str, keys: &[String]) -> Result<Vec<String>> {
    let mut used = Vec::new();
    for keys in keys.chunks(MAX_VALUES) {
        let placeholders = placeholders(2, keys.len());
        let statement = format!("SELECT key FROM idempotency WHERE tenant = $1 AND key IN ({placeholders})");
        let query = keys
            .iter()
            .fold(sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).bind(tenant), |query, key| {
                query.bind(key)
            });
        used.extend(query.fetch_all(&store.reader).await?);
    }
    Ok(used)
}

/// Returns placeholders such as `$2, $3, $4`.
fn placeholders(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

fn watch_of(row: &AnyRow) -> Result<Watch> {
    let interval_ms: Option<i64> = row.try_get("scan_interval_ms")?;
    Ok(Watch {
        id: id_column(row, "id")?,
        tenant: text(row, "tenant")?,
        prefix: text(row, "prefix")?,
        job: text(row, "job")?,
        queue: row.try_get("queue")?,
        scan_interval: interval_ms.map(|interval| Duration::from_millis(interval.unsigned_abs())),
        created_ms: row.try_get("created_ms")?,
        scanned_ms: row.try_get("scanned_ms")?,
        last_error: row.try_get("last_error")?,
    })
}
