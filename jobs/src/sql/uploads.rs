//! Uploads in SQL.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Row as _, any::AnyRow};

use super::{
    columns::{
        after, byte_count, bytes, fencing_token, from_json, id as id_column, json, named, optional_id,
        optional_json, text, to_json,
    },
    credentials, jobs,
    lease_table::{LeaseTable, commit_if_leased, lease_lost},
    pool::{SqlStore, WriteTransaction, with_deadline},
    tenants,
};
use crate::{
    Error, FencingToken, Id, JobSpec, NewUpload, Result, Upload, UploadLease, UploadState, UploadStore,
};

/// Open uploads of the tenant `$4`, for a request that writes.
const UPLOADS: LeaseTable = LeaseTable {
    table: "uploads",
    next: &[],
    until: "lease_until_ms",
    due: "tenant = $4 AND state = 'open' AND lease_until_ms <= $1",
    set: ", fencing_token = fencing_token + 1",
};

/// Open uploads that have expired, or that were complete 10 seconds ago and are not finished: a request that
/// stores the last part finishes the upload at once, so its server has died. `updated_ms` is set so that the
/// next call finds another one.
const ABANDONED: LeaseTable = LeaseTable {
    table: "uploads",
    next: &["SELECT id FROM uploads WHERE state = 'open' AND lease_until_ms <= $1 \
         AND (expires_ms <= $1 OR (received = bytes AND updated_ms <= $1 - 10000)) \
          ORDER BY updated_ms LIMIT 1"],
    until: "lease_until_ms",
    due: "state = 'open' AND lease_until_ms <= $1 \
          AND (expires_ms <= $1 OR (received = bytes AND updated_ms <= $1 - 10000))",
    set: ", fencing_token = fencing_token + 1, updated_ms = $1",
};

#[async_trait]
impl UploadStore for SqlStore {
    async fn create_upload(&self, new: &NewUpload, complete: bool) -> Result<Upload> {
        with_deadline(create(self, new, complete)).await
    }

    async fn upload(&self, tenant: &str, id: &Id) -> Result<Upload> {
        with_deadline(upload(self, tenant, id)).await
    }

    async fn lease_upload(&self, tenant: &str, id: &Id, lease_time: Duration) -> Result<UploadLease> {
        with_deadline(lease(self, tenant, id, lease_time)).await
    }

    async fn lease_abandoned_upload(&self, lease_time: Duration) -> Result<Option<UploadLease>> {
        with_deadline(lease_abandoned(self, lease_time)).await
    }

    async fn renew_upload(&self, lease: &UploadLease, lease_time: Duration) -> Result<()> {
        with_deadline(renew(self, lease, lease_time)).await
    }

    async fn advance_upload(
        &self,
        lease: &UploadLease,
        received: u64,
        parts: &[String],
        expires_after: Duration,
    ) -> Result<()> {
        with_deadline(advance(self, lease, received, parts, expires_after)).await
    }

    async fn finish_upload(&self, lease: &UploadLease) -> Result<Upload> {
        with_deadline(finish(self, lease)).await
    }

    async fn abort_upload(&self, lease: &UploadLease) -> Result<()> {
        with_deadline(abort(self, lease)).await
    }
}

async fn create(store: &SqlStore, new: &NewUpload, complete: bool) -> Result<Upload> {
    if let Some(spec) = &new.spec {
        spec.check()?;
    }
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    tenants::ensure(&mut tx, &new.tenant).await?;
    tenants::check_upload_quota(&mut tx, &new.tenant, new.bytes).await?;
    if let Some(token) = &new.upload_token {
        credentials::redeem(&mut tx, token, &new.id).await?;
    }
    let spec = new.spec.as_ref();
    let row = sqlx::query(
        "INSERT INTO uploads (id, tenant, state, name, metadata, location, token, bytes, received, parts, \
         fencing_token, lease_until_ms, request, priority, path_policy, created_ms, updated_ms, expires_ms) \
         VALUES ($1, $2, 'open', $3, $4, $5, $6, $7, $8, '[]', 0, 0, $9, $10, $11, $12, $12, $13) \
         RETURNING *",
    )
    .bind(new.id.as_str())
    .bind(&new.tenant)
    .bind(&new.name)
    .bind(to_json(&new.metadata))
    .bind(&new.location)
    .bind(&new.token)
    .bind(byte_count(new.bytes))
    .bind(if complete { byte_count(new.bytes) } else { 0 })
    .bind(spec.map(|spec| to_json(&spec.request)))
    .bind(spec.map_or(0, |spec| spec.priority))
    .bind(spec.and_then(|spec| spec.path_policy.as_ref()).map(to_json))
    .bind(now)
    .bind(after(now, new.expires_after))
    .fetch_one(tx.connection())
    .await?;
    let mut upload = upload_of(&row)?;
    if complete {
        upload = write_finished(&mut tx, &UploadLease { upload, fencing_token: FencingToken::NONE }).await?;
    }
    tx.commit().await?;
    Ok(upload)
}

async fn upload(store: &SqlStore, tenant: &str, id: &Id) -> Result<Upload> {
    let found =
        sqlx::query("SELECT * FROM uploads WHERE id = $1 AND tenant = $2").bind(id.as_str()).bind(tenant);
    upload_of(&found.fetch_optional(&store.reader).await?.ok_or_else(|| not_found(id))?)
}

async fn lease(store: &SqlStore, tenant: &str, id: &Id, lease_time: Duration) -> Result<UploadLease> {
    let mut tx = store.begin().await?;
    let Some(row) = UPLOADS.take(&mut tx, id, lease_time, &[tenant]).await? else {
        drop(tx);
        let is_open = upload(store, tenant, id).await?.state == UploadState::Open;
        return Err(if is_open { Error::Locked { id: id.clone() } } else { not_found(id) });
    };
    tx.commit().await?;
    lease_of(&row)
}

async fn lease_abandoned(store: &SqlStore, lease_time: Duration) -> Result<Option<UploadLease>> {
    let Some((tx, row)) = ABANDONED.lease(store, lease_time).await? else { return Ok(None) };
    tx.commit().await?;
    lease_of(&row).map(Some)
}

async fn renew(store: &SqlStore, lease: &UploadLease, lease_time: Duration) -> Result<()> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    let written = sqlx::query(
        "UPDATE uploads SET lease_until_ms = $1 WHERE id = $2 AND fencing_token = $3 AND state = 'open'",
    )
    .bind(after(now, lease_time))
    .bind(lease.upload.id.as_str())
    .bind(lease.fencing_token.get())
    .execute(tx.connection())
    .await?;
    commit_if_leased(tx, &written, "upload", &lease.upload.id, lease.fencing_token).await
}

async fn advance(
    store: &SqlStore,
    lease: &UploadLease,
    received: u64,
    parts: &[String],
    expires_after: Duration,
) -> Result<()> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    let written = sqlx::query(
        "UPDATE uploads SET received = $1, parts = $2, updated_ms = $3, expires_ms = $4 \
         WHERE id = $5 AND fencing_token = $6 AND state = 'open'",
    )
    .bind(byte_count(received))
    .bind(to_json(&parts))
    .bind(now)
    .bind(after(now, expires_after))
    .bind(lease.upload.id.as_str())
    .bind(lease.fencing_token.get())
    .execute(tx.connection())
    .await?;
    commit_if_leased(tx, &written, "upload", &lease.upload.id, lease.fencing_token).await
}

async fn finish(store: &SqlStore, lease: &UploadLease) -> Result<Upload> {
    let mut tx = store.begin().await?;
    let upload = write_finished(&mut tx, lease).await?;
    tx.commit().await?;
    Ok(upload)
}

/// Finishes an upload and creates its job in one transaction: neither exists without the other.
async fn write_finished(tx: &mut WriteTransaction, lease: &UploadLease) -> Result<Upload> {
    let now = tx.now_ms;
    let finished = sqlx::query(
        "UPDATE uploads SET state = 'finished', received = bytes, updated_ms = $1 \
         WHERE id = $2 AND fencing_token = $3 AND state = 'open' RETURNING *",
    )
    .bind(now)
    .bind(lease.upload.id.as_str())
    .bind(lease.fencing_token.get());
    let row = finished
        .fetch_optional(tx.connection())
        .await?
        .ok_or_else(|| lease_lost("upload", &lease.upload.id, lease.fencing_token))?;
    let mut upload = upload_of(&row)?;
    if let Some(request) = row.try_get::<Option<String>, _>("request")? {
        let spec = JobSpec {
            request: from_json("request", &request)?,
            priority: row.try_get("priority")?,
            path_policy: optional_json(&row, "path_policy")?,
        };
        let job = jobs::insert(tx, &upload.tenant, &spec, Id::job()).await?;
        sqlx::query("UPDATE uploads SET job = $1 WHERE id = $2")
            .bind(job.id.as_str())
            .bind(upload.id.as_str())
            .execute(tx.connection())
            .await?;
        upload.job = Some(job.id);
    }
    Ok(upload)
}

async fn abort(store: &SqlStore, lease: &UploadLease) -> Result<()> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    let written = sqlx::query(
        "UPDATE uploads SET state = 'gone', updated_ms = $1 \
         WHERE id = $2 AND fencing_token = $3 AND state = 'open'",
    )
    .bind(now)
    .bind(lease.upload.id.as_str())
    .bind(lease.fencing_token.get())
    .execute(tx.connection())
    .await?;
    commit_if_leased(tx, &written, "upload", &lease.upload.id, lease.fencing_token).await
}

fn lease_of(row: &AnyRow) -> Result<UploadLease> {
    Ok(UploadLease { upload: upload_of(row)?, fencing_token: fencing_token(row)? })
}

fn upload_of(row: &AnyRow) -> Result<Upload> {
    Ok(Upload {
        id: id_column(row, "id")?,
        tenant: text(row, "tenant")?,
        state: named("state of an upload", row, "state")?,
        name: text(row, "name")?,
        metadata: json(row, "metadata")?,
        location: text(row, "location")?,
        token: text(row, "token")?,
        bytes: bytes(row, "bytes")?,
        received: bytes(row, "received")?,
        parts: json(row, "parts")?,
        job: optional_id(row, "job")?,
        created_ms: row.try_get("created_ms")?,
        expires_ms: row.try_get("expires_ms")?,
    })
}

fn not_found(id: &Id) -> Error {
    Error::NotFound { what: "upload", id: id.to_string() }
}
