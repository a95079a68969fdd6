//! How is it kept who is told what?

use std::time::Duration;

use serde_json::Value;
use sqlx::{Row as _, any::AnyRow};

use super::{
    Change, SqlStore,
    claims::milliseconds,
    jobs::make_tenant,
    read::{json, text},
};
use crate::{Delivery, DeliveryHold, Error, Id, Kind, Result, Sent, Webhook};

/// Webhooks that a tenant may have: each is told of each job.
const MOST: i64 = 20;

pub(super) async fn create(store: &SqlStore, tenant: &str, url: &str, secret: &str) -> Result<Webhook> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    make_tenant(&mut change, tenant).await?;
    // Whoever makes another meanwhile waits for this one.
    sqlx::query("UPDATE tenants SET served_ms = served_ms WHERE id = $1")
        .bind(tenant)
        .execute(change.connection())
        .await?;
    let count = "SELECT count(*) FROM webhooks WHERE tenant = $1 AND disabled_ms IS NULL";
    let there: i64 = sqlx::query_scalar(count).bind(tenant).fetch_one(change.connection()).await?;
    if there >= MOST {
        return Err(Error::Quota { what: "webhooks", most: MOST.unsigned_abs() });
    }
    let row = sqlx::query(
        "INSERT INTO webhooks (id, tenant, url, secret, created_ms) VALUES ($1, $2, $3, $4, $5) RETURNING *",
    )
    .bind(Id::webhook().as_str())
    .bind(tenant)
    .bind(url)
    .bind(secret)
    .bind(now)
    .fetch_one(change.connection())
    .await?;
    let webhook = webhook_of(&row)?;
    change.keep().await?;
    Ok(webhook)
}

pub(super) async fn webhooks(store: &SqlStore, tenant: &str) -> Result<Vec<Webhook>> {
    let found = sqlx::query("SELECT * FROM webhooks WHERE tenant = $1 ORDER BY id DESC").bind(tenant);
    found.fetch_all(&store.reader).await?.iter().map(webhook_of).collect()
}

pub(super) async fn disable(store: &SqlStore, tenant: &str, id: &Id) -> Result<Webhook> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    let row = sqlx::query("UPDATE webhooks SET disabled_ms = COALESCE(disabled_ms, $1) WHERE id = $2 AND tenant = $3 RETURNING *")
        .bind(now)
        .bind(id.as_str())
        .bind(tenant)
        .fetch_optional(change.connection())
        .await?;
    let webhook = webhook_of(&row.ok_or_else(|| none(id))?)?;
    give_up_waiting(&mut change, id).await?;
    change.keep().await?;
    Ok(webhook)
}

async fn give_up_waiting(change: &mut Change, webhook: &Id) -> Result<()> {
    let now = change.now_ms;
    sqlx::query(
        "UPDATE deliveries SET state = 'failed', ended_ms = $1, fence = fence + 1, trouble = 'the webhook is disabled' \
         WHERE webhook = $2 AND state = 'waiting'",
    )
    .bind(now)
    .bind(webhook.as_str())
    .execute(change.connection())
    .await?;
    Ok(())
}

/// Has everybody told who wants to be.
pub(super) async fn tell(
    change: &mut Change,
    job: &Id,
    sequence: i64,
    kind: Kind,
    data: &Value,
) -> Result<()> {
    if !kind.is_told() {
        return Ok(());
    }
    let now = change.now_ms;
    let wanted = "SELECT w.id FROM webhooks w JOIN jobs j ON j.tenant = w.tenant WHERE j.id = $1 AND w.disabled_ms IS NULL";
    let webhooks: Vec<String> =
        sqlx::query_scalar(wanted).bind(job.as_str()).fetch_all(change.connection()).await?;
    for webhook in webhooks {
        sqlx::query(
            "INSERT INTO deliveries (id, webhook, job, sequence, at_ms, kind, data, state, due_ms, tries, fence, lease_until_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'waiting', $5, 0, 0, 0)",
        )
        .bind(Id::message().as_str())
        .bind(webhook)
        .bind(job.as_str())
        .bind(sequence)
        .bind(now)
        .bind(kind.word())
        .bind(data.to_string())
        .execute(change.connection())
        .await?;
    }
    Ok(())
}

pub(super) async fn deliveries(store: &SqlStore, tenant: &str, id: &Id, limit: u32) -> Result<Vec<Delivery>> {
    known(store, tenant, id).await?;
    let rows = sqlx::query("SELECT * FROM deliveries WHERE webhook = $1 ORDER BY id DESC LIMIT $2")
        .bind(id.as_str())
        .bind(i64::from(limit))
        .fetch_all(&store.reader)
        .await?;
    rows.iter().map(delivery_of).collect()
}

pub(super) async fn replay(store: &SqlStore, tenant: &str, id: &Id, since_ms: i64) -> Result<u64> {
    if known(store, tenant, id).await?.disabled_ms.is_some() {
        return Err(none(id));
    }
    let mut change = store.change().await?;
    let now = change.now_ms;
    let again = sqlx::query(
        "UPDATE deliveries SET state = 'waiting', due_ms = $1, tries = 0, ended_ms = NULL \
         WHERE webhook = $2 AND at_ms >= $3 AND state <> 'waiting'",
    )
    .bind(now)
    .bind(id.as_str())
    .bind(since_ms)
    .execute(change.connection())
    .await?;
    change.keep().await?;
    Ok(again.rows_affected())
}

async fn known(store: &SqlStore, tenant: &str, id: &Id) -> Result<Webhook> {
    let found =
        sqlx::query("SELECT * FROM webhooks WHERE id = $1 AND tenant = $2").bind(id.as_str()).bind(tenant);
    webhook_of(&found.fetch_optional(&store.reader).await?.ok_or_else(|| none(id))?)
}

/// A message that is due and in nobody's hand, the one that waits for longest; but of a tenant that has few in hand, so that one whose webhooks
/// do not answer keeps nobody else waiting.
const DUE: &str = "SELECT d.id FROM deliveries d JOIN webhooks w ON w.id = d.webhook \
     WHERE d.state = 'waiting' AND d.due_ms <= $1 AND d.lease_until_ms <= $1 AND w.tenant NOT IN ( \
         SELECT busy.tenant FROM deliveries held JOIN webhooks busy ON busy.id = held.webhook \
         WHERE held.lease_until_ms > $1 GROUP BY busy.tenant HAVING count(*) >= 4) \
     ORDER BY d.due_ms LIMIT 1";

pub(super) async fn hold(store: &SqlStore, lease: Duration) -> Result<Option<DeliveryHold>> {
    let Some(due) = store.due(DUE).await? else { return Ok(None) };
    let mut change = store.change().await?;
    let now = change.now_ms;
    let taken = sqlx::query(
        "UPDATE deliveries SET fence = fence + 1, lease_until_ms = $1, tries = tries + 1 \
         WHERE id = $2 AND state = 'waiting' AND due_ms <= $3 AND lease_until_ms <= $3 RETURNING *",
    )
    .bind(now.saturating_add(milliseconds(lease)))
    .bind(due)
    .bind(now);
    let Some(row) = taken.fetch_optional(change.connection()).await? else { return Ok(None) };
    let delivery = delivery_of(&row)?;
    let webhook = sqlx::query("SELECT url, secret, disabled_ms FROM webhooks WHERE id = $1")
        .bind(delivery.webhook.as_str());
    let webhook = webhook.fetch_one(change.connection()).await?;
    if webhook.try_get::<Option<i64>, _>("disabled_ms")?.is_some() {
        // Written by a change that began before it was disabled.
        give_up_waiting(&mut change, &delivery.webhook).await?;
        change.keep().await?;
        return Ok(None);
    }
    let hold = DeliveryHold {
        url: text(&webhook, "url")?,
        secret: text(&webhook, "secret")?,
        fence: row.try_get("fence")?,
        delivery,
    };
    change.keep().await?;
    Ok(Some(hold))
}

pub(super) async fn end(store: &SqlStore, hold: &DeliveryHold, sent: &Sent) -> Result<()> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    let (state, due, trouble) = match sent {
        Sent::Delivered => ("delivered", now, None),
        Sent::Again { after, trouble } => {
            ("waiting", now.saturating_add(milliseconds(*after)), Some(trouble.clone()))
        }
        Sent::Failed { trouble } => ("failed", now, Some(trouble.clone())),
        Sent::Gone => ("failed", now, Some("nobody wants to be told there any more".to_owned())),
    };
    let ended = sqlx::query(
        "UPDATE deliveries SET state = $1, due_ms = $2, lease_until_ms = 0, trouble = $3, \
         ended_ms = CASE WHEN $1 = 'waiting' THEN NULL ELSE $4 END WHERE id = $5 AND fence = $6 AND state = 'waiting'",
    )
    .bind(state)
    .bind(due)
    .bind(trouble)
    .bind(now)
    .bind(hold.delivery.id.as_str())
    .bind(hold.fence)
    .execute(change.connection())
    .await?;
    if ended.rows_affected() == 0 {
        return Err(Error::Lost { what: "message", id: hold.delivery.id.clone(), fence: hold.fence });
    }
    if *sent == Sent::Gone {
        sqlx::query("UPDATE webhooks SET disabled_ms = COALESCE(disabled_ms, $1) WHERE id = $2")
            .bind(now)
            .bind(hold.delivery.webhook.as_str())
            .execute(change.connection())
            .await?;
        give_up_waiting(&mut change, &hold.delivery.webhook).await?;
    }
    change.keep().await
}

fn none(id: &Id) -> Error {
    Error::NotFound { what: "webhook", id: id.to_string() }
}

fn webhook_of(row: &AnyRow) -> Result<Webhook> {
    Ok(Webhook {
        id: Id::from_text(text(row, "id")?),
        tenant: text(row, "tenant")?,
        url: text(row, "url")?,
        created_ms: row.try_get("created_ms")?,
        disabled_ms: row.try_get("disabled_ms")?,
    })
}

fn delivery_of(row: &AnyRow) -> Result<Delivery> {
    Ok(Delivery {
        id: Id::from_text(text(row, "id")?),
        webhook: Id::from_text(text(row, "webhook")?),
        job: Id::from_text(text(row, "job")?),
        sequence: row.try_get("sequence")?,
        at_ms: row.try_get("at_ms")?,
        kind: text(row, "kind")?.parse()?,
        data: json("message", &text(row, "data")?)?,
        state: text(row, "state")?.parse()?,
        due_ms: row.try_get("due_ms")?,
        tries: row.try_get("tries")?,
        trouble: row.try_get("trouble")?,
    })
}
