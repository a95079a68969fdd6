//! How is it kept what came of an upload, and who may add to it?

use std::time::Duration;

use sqlx::{
    Row as _,
    any::{AnyQueryResult, AnyRow},
};

use super::{
    Change, SqlStore, access,
    claims::milliseconds,
    jobs::{as_json, make_job, make_tenant},
    read::{json, optional_json, text},
};
use crate::{Error, Id, NewUpload, Order, Result, Upload, UploadHold, UploadState};

/// What is whole and not finished after so long was left by whoever was about to finish it.
const LEFT_AFTER_MS: i64 = 10_000;

pub(super) async fn begin(store: &SqlStore, new: &NewUpload, done: bool) -> Result<Upload> {
    if let Some(order) = &new.order {
        order.check()?;
    }
    let mut change = store.change().await?;
    let now = change.now_ms;
    make_tenant(&mut change, &new.tenant).await?;
    access::check_bytes(&mut change, &new.tenant, new.bytes).await?;
    if let Some(token) = &new.once {
        access::spend(&mut change, token, &new.id).await?;
    }
    let order = new.order.as_ref();
    let row = sqlx::query(
        "INSERT INTO uploads (id, tenant, state, name, metadata, location, token, bytes, received, pieces, fence, lease_until_ms, \
         request, priority, confines, created_ms, updated_ms, expires_ms) \
         VALUES ($1, $2, 'open', $3, $4, $5, $6, $7, $8, '[]', 0, 0, $9, $10, $11, $12, $12, $13) RETURNING *",
    )
    .bind(new.id.as_str())
    .bind(&new.tenant)
    .bind(&new.name)
    .bind(as_json(&new.metadata))
    .bind(&new.location)
    .bind(&new.token)
    .bind(count(new.bytes))
    .bind(if done { count(new.bytes) } else { 0 })
    .bind(order.map(|order| as_json(&order.request)))
    .bind(order.map_or(0, |order| order.priority))
    .bind(order.and_then(|order| order.confines.as_ref()).map(as_json))
    .bind(now)
    .bind(now.saturating_add(milliseconds(new.kept_for)))
    .fetch_one(change.connection())
    .await?;
    let mut upload = upload_of(&row)?;
    if done {
        upload = finish(&mut change, &UploadHold { upload, fence: 0 }).await?;
    }
    change.keep().await?;
    Ok(upload)
}

pub(super) async fn upload(store: &SqlStore, tenant: &str, id: &Id) -> Result<Upload> {
    let found =
        sqlx::query("SELECT * FROM uploads WHERE id = $1 AND tenant = $2").bind(id.as_str()).bind(tenant);
    upload_of(&found.fetch_optional(&store.reader).await?.ok_or_else(|| no_upload(id))?)
}

pub(super) async fn hold(store: &SqlStore, tenant: &str, id: &Id, lease: Duration) -> Result<UploadHold> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    let taken = sqlx::query(
        "UPDATE uploads SET fence = fence + 1, lease_until_ms = $1 \
         WHERE id = $2 AND tenant = $3 AND state = 'open' AND lease_until_ms <= $4 RETURNING *",
    )
    .bind(now.saturating_add(milliseconds(lease)))
    .bind(id.as_str())
    .bind(tenant)
    .bind(now);
    let Some(row) = taken.fetch_optional(change.connection()).await? else {
        drop(change);
        let open = upload(store, tenant, id).await?.state == UploadState::Open;
        return Err(if open { Error::Held { id: id.clone() } } else { no_upload(id) });
    };
    change.keep().await?;
    hold_of(&row)
}

pub(super) async fn hold_left(store: &SqlStore, lease: Duration) -> Result<Option<UploadHold>> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    // Touched, so that another server that looks meanwhile finds the next one.
    let taken = sqlx::query(
        "UPDATE uploads SET fence = fence + 1, updated_ms = $1, lease_until_ms = $2 \
         WHERE id = (SELECT id FROM uploads WHERE state = 'open' AND lease_until_ms <= $1 \
                     AND (expires_ms <= $1 OR (received = bytes AND updated_ms <= $3)) ORDER BY updated_ms LIMIT 1) \
         AND state = 'open' AND lease_until_ms <= $1 RETURNING *",
    )
    .bind(now)
    .bind(now.saturating_add(milliseconds(lease)))
    .bind(now.saturating_sub(LEFT_AFTER_MS));
    let row = taken.fetch_optional(change.connection()).await?;
    change.keep().await?;
    row.as_ref().map(hold_of).transpose()
}

/// Keeps a hold for so long from now on; for no time, it is let go.
pub(super) async fn renew(store: &SqlStore, hold: &UploadHold, lease: Duration) -> Result<()> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    let kept =
        sqlx::query("UPDATE uploads SET lease_until_ms = $1 WHERE id = $2 AND fence = $3 AND state = 'open'")
            .bind(now.saturating_add(milliseconds(lease)))
            .bind(hold.upload.id.as_str())
            .bind(hold.fence)
            .execute(change.connection())
            .await?;
    keep_if_held(change, hold, &kept).await
}

pub(super) async fn advance(
    store: &SqlStore,
    hold: &UploadHold,
    received: u64,
    pieces: &[String],
    kept_for: Duration,
) -> Result<()> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    let kept = sqlx::query(
        "UPDATE uploads SET received = $1, pieces = $2, updated_ms = $3, expires_ms = $4 WHERE id = $5 AND fence = $6 AND state = 'open'",
    )
    .bind(count(received))
    .bind(as_json(&pieces))
    .bind(now)
    .bind(now.saturating_add(milliseconds(kept_for)))
    .bind(hold.upload.id.as_str())
    .bind(hold.fence)
    .execute(change.connection())
    .await?;
    keep_if_held(change, hold, &kept).await
}

pub(super) async fn finished(store: &SqlStore, hold: &UploadHold) -> Result<Upload> {
    let mut change = store.change().await?;
    let upload = finish(&mut change, hold).await?;
    change.keep().await?;
    Ok(upload)
}

/// Finishes it and makes its job: one change, so that there is never one without the other.
async fn finish(change: &mut Change, hold: &UploadHold) -> Result<Upload> {
    let now = change.now_ms;
    let done = sqlx::query(
        "UPDATE uploads SET state = 'finished', received = bytes, updated_ms = $1 WHERE id = $2 AND fence = $3 AND state = 'open' RETURNING *",
    )
    .bind(now)
    .bind(hold.upload.id.as_str())
    .bind(hold.fence);
    let row = done.fetch_optional(change.connection()).await?.ok_or_else(|| lost(hold))?;
    let mut upload = upload_of(&row)?;
    if let Some(request) = row.try_get::<Option<String>, _>("request")? {
        let order = Order {
            request: json("request", &request)?,
            priority: row.try_get("priority")?,
            confines: optional_json(&row, "confines")?,
        };
        let job = make_job(change, &upload.tenant, &order, Id::job()).await?;
        sqlx::query("UPDATE uploads SET job = $1 WHERE id = $2")
            .bind(job.id.as_str())
            .bind(upload.id.as_str())
            .execute(change.connection())
            .await?;
        upload.job = Some(job.id);
    }
    Ok(upload)
}

pub(super) async fn give_up(store: &SqlStore, hold: &UploadHold) -> Result<()> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    let gone = sqlx::query(
        "UPDATE uploads SET state = 'gone', updated_ms = $1 WHERE id = $2 AND fence = $3 AND state = 'open'",
    )
    .bind(now)
    .bind(hold.upload.id.as_str())
    .bind(hold.fence)
    .execute(change.connection())
    .await?;
    keep_if_held(change, hold, &gone).await
}

/// Keeps a change that was made under the condition of a hold's number, if it was made.
async fn keep_if_held(change: Change, hold: &UploadHold, made: &AnyQueryResult) -> Result<()> {
    if made.rows_affected() == 0 {
        return Err(lost(hold));
    }
    change.keep().await
}

fn hold_of(row: &AnyRow) -> Result<UploadHold> {
    Ok(UploadHold { upload: upload_of(row)?, fence: row.try_get("fence")? })
}

fn upload_of(row: &AnyRow) -> Result<Upload> {
    let bytes = |column| Ok::<_, Error>(row.try_get::<i64, _>(column)?.unsigned_abs());
    Ok(Upload {
        id: Id::from_text(text(row, "id")?),
        tenant: text(row, "tenant")?,
        state: text(row, "state")?.parse::<UploadState>()?,
        name: text(row, "name")?,
        metadata: json("metadata", &text(row, "metadata")?)?,
        location: text(row, "location")?,
        token: text(row, "token")?,
        bytes: bytes("bytes")?,
        received: bytes("received")?,
        pieces: json("pieces", &text(row, "pieces")?)?,
        job: row.try_get::<Option<String>, _>("job")?.map(Id::from_text),
        created_ms: row.try_get("created_ms")?,
        expires_ms: row.try_get("expires_ms")?,
    })
}

fn no_upload(id: &Id) -> Error {
    Error::NotFound { what: "upload", id: id.to_string() }
}

fn lost(hold: &UploadHold) -> Error {
    Error::Lost { what: "upload", id: hold.upload.id.clone(), fence: hold.fence }
}

fn count(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
