//! Webhooks, and the outbox of their deliveries, in SQL.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::{Row as _, any::AnyRow};

use super::{
    columns::{after, fencing_token, id as id_column, json, name, named, text},
    lease_table::{LeaseTable, require_lease},
    pool::{SqlStore, WriteTransaction, with_deadline},
    tenants,
};
use crate::{
    Delivery, DeliveryLease, DeliveryOutcome, DeliveryState, Error, EventKind, Id, Result, Webhook,
    WebhookStore,
};

/// Most enabled webhooks per tenant: each receives the events of every job.
const MAX_WEBHOOKS: i64 = 20;

/// Waiting deliveries that are due, the longest-waiting first. A tenant with four leased deliveries is
/// skipped, so that receivers that do not answer delay no other tenant.
const DELIVERIES: LeaseTable = LeaseTable {
    table: "deliveries",
    next: &["SELECT d.id FROM deliveries d JOIN webhooks w ON w.id = d.webhook \
         WHERE d.state = 'waiting' AND d.due_ms <= $1 AND d.lease_until_ms <= $1 AND w.tenant NOT IN ( \
             SELECT busy.tenant FROM deliveries leased JOIN webhooks busy ON busy.id = leased.webhook \
             WHERE leased.lease_until_ms > $1 GROUP BY busy.tenant HAVING count(*) >= 4) \
         ORDER BY d.due_ms LIMIT 1"],
    until: "lease_until_ms",
    due: "state = 'waiting' AND due_ms <= $1 AND lease_until_ms <= $1",
    set: ", fencing_token = fencing_token + 1, tries = tries + 1",
};

#[async_trait]
impl WebhookStore for SqlStore {
    async fn create_webhook(&self, tenant: &str, url: &str, secret: &str) -> Result<Webhook> {
        with_deadline(create(self, tenant, url, secret)).await
    }

    async fn webhooks(&self, tenant: &str) -> Result<Vec<Webhook>> {
        with_deadline(webhooks(self, tenant)).await
    }

    async fn disable_webhook(&self, tenant: &str, id: &Id) -> Result<Webhook> {
        with_deadline(disable(self, tenant, id)).await
    }

    async fn deliveries(&self, tenant: &str, id: &Id, limit: u32) -> Result<Vec<Delivery>> {
        with_deadline(deliveries(self, tenant, id, limit)).await
    }

    async fn replay(&self, tenant: &str, id: &Id, since_ms: i64) -> Result<u64> {
        with_deadline(replay(self, tenant, id, since_ms)).await
    }

    async fn lease_delivery(&self, lease_time: Duration) -> Result<Option<DeliveryLease>> {
        with_deadline(lease(self, lease_time)).await
    }

    async fn finish_delivery(&self, lease: &DeliveryLease, outcome: &DeliveryOutcome) -> Result<()> {
        with_deadline(finish(self, lease, outcome)).await
    }
}

async fn create(store: &SqlStore, tenant: &str, url: &str, secret: &str) -> Result<Webhook> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    tenants::ensure(&mut tx, tenant).await?;
    tenants::lock(&mut tx, tenant).await?;
    let query = "SELECT count(*) FROM webhooks WHERE tenant = $1 AND disabled_ms IS NULL";
    let count: i64 = sqlx::query_scalar(query).bind(tenant).fetch_one(tx.connection()).await?;
    if count >= MAX_WEBHOOKS {
        return Err(Error::Quota { what: "webhooks", max: MAX_WEBHOOKS.unsigned_abs() });
    }
    let row = sqlx::query(
        "INSERT INTO webhooks (id, tenant, url, secret, created_ms) VALUES ($1, $2, $3, $4, $5) RETURNING *",
    )
    .bind(Id::webhook().as_str())
    .bind(tenant)
    .bind(url)
    .bind(secret)
    .bind(now)
    .fetch_one(tx.connection())
    .await?;
    let webhook = webhook_of(&row)?;
    tx.commit().await?;
    Ok(webhook)
}

async fn webhooks(store: &SqlStore, tenant: &str) -> Result<Vec<Webhook>> {
    let found = sqlx::query("SELECT * FROM webhooks WHERE tenant = $1 ORDER BY id DESC").bind(tenant);
    found.fetch_all(&store.reader).await?.iter().map(webhook_of).collect()
}

async fn disable(store: &SqlStore, tenant: &str, id: &Id) -> Result<Webhook> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    let row = sqlx::query(
        "UPDATE webhooks SET disabled_ms = COALESCE(disabled_ms, $1) \
         WHERE id = $2 AND tenant = $3 RETURNING *",
    )
    .bind(now)
    .bind(id.as_str())
    .bind(tenant)
    .fetch_optional(tx.connection())
    .await?;
    let webhook = webhook_of(&row.ok_or_else(|| not_found(id))?)?;
    fail_waiting(&mut tx, id).await?;
    tx.commit().await?;
    Ok(webhook)
}

/// Fails the waiting deliveries of a disabled webhook. Their leases end.
async fn fail_waiting(tx: &mut WriteTransaction, webhook: &Id) -> Result<()> {
    let now = tx.now_ms;
    sqlx::query(
        "UPDATE deliveries SET state = 'failed', ended_ms = $1, fencing_token = fencing_token + 1, \
         last_error = 'the webhook is disabled' WHERE webhook = $2 AND state = 'waiting'",
    )
    .bind(now)
    .bind(webhook.as_str())
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Inserts a delivery of an event for each enabled webhook of the job's tenant.
pub(super) async fn enqueue(
    tx: &mut WriteTransaction,
    job: &Id,
    sequence: i64,
    kind: EventKind,
    data: &Value,
) -> Result<()> {
    if !kind.is_delivered() {
        return Ok(());
    }
    let now = tx.now_ms;
    let query = "SELECT w.id FROM webhooks w JOIN jobs j ON j.tenant = w.tenant \
                 WHERE j.id = $1 AND w.disabled_ms IS NULL";
    let webhooks: Vec<String> =
        sqlx::query_scalar(query).bind(job.as_str()).fetch_all(tx.connection()).await?;
    for webhook in webhooks {
        sqlx::query(
            "INSERT INTO deliveries (id, webhook, job, sequence, at_ms, kind, data, state, due_ms, tries, \
             fencing_token, lease_until_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, 'waiting', $5, 0, 0, 0)",
        )
        .bind(Id::delivery().as_str())
        .bind(webhook)
        .bind(job.as_str())
        .bind(sequence)
        .bind(now)
        .bind(name(kind))
        .bind(data.to_string())
        .execute(tx.connection())
        .await?;
    }
    Ok(())
}

async fn deliveries(store: &SqlStore, tenant: &str, id: &Id, limit: u32) -> Result<Vec<Delivery>> {
    webhook(store, tenant, id).await?;
    let rows = sqlx::query("SELECT * FROM deliveries WHERE webhook = $1 ORDER BY id DESC LIMIT $2")
        .bind(id.as_str())
        .bind(i64::from(limit))
        .fetch_all(&store.reader)
        .await?;
    rows.iter().map(delivery_of).collect()
}

async fn replay(store: &SqlStore, tenant: &str, id: &Id, since_ms: i64) -> Result<u64> {
    if webhook(store, tenant, id).await?.disabled_ms.is_some() {
        return Err(not_found(id));
    }
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    let replayed = sqlx::query(
        "UPDATE deliveries SET state = 'waiting', due_ms = $1, tries = 0, ended_ms = NULL \
         WHERE webhook = $2 AND at_ms >= $3 AND state <> 'waiting'",
    )
    .bind(now)
    .bind(id.as_str())
    .bind(since_ms)
    .execute(tx.connection())
    .await?;
    tx.commit().await?;
    Ok(replayed.rows_affected())
}

async fn webhook(store: &SqlStore, tenant: &str, id: &Id) -> Result<Webhook> {
    let found =
        sqlx::query("SELECT * FROM webhooks WHERE id = $1 AND tenant = $2").bind(id.as_str()).bind(tenant);
    webhook_of(&found.fetch_optional(&store.reader).await?.ok_or_else(|| not_found(id))?)
}

async fn lease(store: &SqlStore, lease_time: Duration) -> Result<Option<DeliveryLease>> {
    let Some((mut tx, row)) = DELIVERIES.lease(store, lease_time).await? else { return Ok(None) };
    let delivery = delivery_of(&row)?;
    let webhook = sqlx::query("SELECT url, secret, disabled_ms FROM webhooks WHERE id = $1")
        .bind(delivery.webhook.as_str())
        .fetch_one(tx.connection())
        .await?;
    if webhook.try_get::<Option<i64>, _>("disabled_ms")?.is_some() {
        // Its transaction began before the webhook was disabled.
        fail_waiting(&mut tx, &delivery.webhook).await?;
        tx.commit().await?;
        return Ok(None);
    }
    let lease = DeliveryLease {
        url: text(&webhook, "url")?,
        secret: text(&webhook, "secret")?,
        fencing_token: fencing_token(&row)?,
        delivery,
    };
    tx.commit().await?;
    Ok(Some(lease))
}

async fn finish(store: &SqlStore, lease: &DeliveryLease, outcome: &DeliveryOutcome) -> Result<()> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    let (state, due, error) = match outcome {
        DeliveryOutcome::Delivered => (DeliveryState::Delivered, now, None),
        DeliveryOutcome::Retry { delay, error } => {
            (DeliveryState::Waiting, after(now, *delay), Some(error.clone()))
        }
        DeliveryOutcome::Failed { error } => (DeliveryState::Failed, now, Some(error.clone())),
        DeliveryOutcome::Gone => (
            DeliveryState::Failed,
            now,
            Some("the receiver answered 410 Gone; the webhook is disabled".to_owned()),
        ),
    };
    let written = sqlx::query(
        "UPDATE deliveries SET state = $1, due_ms = $2, lease_until_ms = 0, last_error = $3, \
         ended_ms = CASE WHEN $1 = 'waiting' THEN NULL ELSE $4 END \
         WHERE id = $5 AND fencing_token = $6 AND state = 'waiting'",
    )
    .bind(name(state))
    .bind(due)
    .bind(error)
    .bind(now)
    .bind(lease.delivery.id.as_str())
    .bind(lease.fencing_token.get())
    .execute(tx.connection())
    .await?;
    require_lease(&written, "delivery", &lease.delivery.id, lease.fencing_token)?;
    if *outcome == DeliveryOutcome::Gone {
        sqlx::query("UPDATE webhooks SET disabled_ms = COALESCE(disabled_ms, $1) WHERE id = $2")
            .bind(now)
            .bind(lease.delivery.webhook.as_str())
            .execute(tx.connection())
            .await?;
        fail_waiting(&mut tx, &lease.delivery.webhook).await?;
    }
    tx.commit().await
}

fn not_found(id: &Id) -> Error {
    Error::NotFound { what: "webhook", id: id.to_string() }
}

fn webhook_of(row: &AnyRow) -> Result<Webhook> {
    Ok(Webhook {
        id: id_column(row, "id")?,
        tenant: text(row, "tenant")?,
        url: text(row, "url")?,
        created_ms: row.try_get("created_ms")?,
        disabled_ms: row.try_get("disabled_ms")?,
    })
}

fn delivery_of(row: &AnyRow) -> Result<Delivery> {
    Ok(Delivery {
        id: id_column(row, "id")?,
        webhook: id_column(row, "webhook")?,
        job: id_column(row, "job")?,
        sequence: row.try_get("sequence")?,
        at_ms: row.try_get("at_ms")?,
        kind: named("kind of event", row, "kind")?,
        data: json(row, "data")?,
        state: named("state of a delivery", row, "state")?,
        due_ms: row.try_get("due_ms")?,
        tries: row.try_get("tries")?,
        last_error: row.try_get("last_error")?,
    })
}
