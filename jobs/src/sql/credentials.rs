//! API keys, upload tokens and signing keys in SQL.

use async_trait::async_trait;
use blake3::Hash;
use sqlx::{Row as _, any::AnyRow};

use super::{
    columns::{after, byte_count, bytes, id as id_column, name, optional_id, text},
    pool::{SqlStore, WriteTransaction, with_deadline},
    tenants::{self, MAX_NAME_BYTES, check_tenant_name},
};
use crate::{
    ApiKey, Credential, CredentialStore, Error, Id, NewApiKey, NewUploadToken, Result, Scope, Tenant,
    TenantPolicy, UploadToken, random_secret, secret,
};

/// Accuracy of `used_ms`: a key that was used this recently is not written again.
const USED_ACCURACY_MS: i64 = 60_000;

#[async_trait]
impl CredentialStore for SqlStore {
    async fn create_key(&self, new: &NewApiKey) -> Result<(ApiKey, String)> {
        with_deadline(create_key(self, new)).await
    }

    async fn keys(&self, tenant: &str) -> Result<Vec<ApiKey>> {
        with_deadline(keys(self, tenant)).await
    }

    async fn revoke_key(&self, tenant: &str, id: &Id) -> Result<ApiKey> {
        with_deadline(revoke_key(self, tenant, id)).await
    }

    async fn create_upload_token(&self, new: &NewUploadToken) -> Result<(UploadToken, String)> {
        with_deadline(create_upload_token(self, new)).await
    }

    async fn authenticate(&self, secret_text: &str) -> Result<Option<Credential>> {
        with_deadline(authenticate(self, secret_text)).await
    }

    async fn policy(&self, tenant: &str) -> Result<TenantPolicy> {
        with_deadline(tenants::policy(self, tenant)).await
    }

    async fn set_policy(&self, tenant: &str, policy: &TenantPolicy) -> Result<()> {
        with_deadline(tenants::set_policy(self, tenant, policy)).await
    }

    async fn tenants(&self) -> Result<Vec<Tenant>> {
        with_deadline(tenants::tenants(self)).await
    }

    async fn signing_key(&self, name: &str) -> Result<[u8; 32]> {
        with_deadline(signing_key(self, name)).await
    }
}

async fn create_key(store: &SqlStore, new: &NewApiKey) -> Result<(ApiKey, String)> {
    check_tenant_name(&new.tenant)?;
    if new.name.len() > MAX_NAME_BYTES || new.name.contains('\0') {
        return Err(Error::Request {
            field: "name",
            message: format!("use at most {MAX_NAME_BYTES} bytes without a NUL character"),
        });
    }
    if new.scopes.is_empty() {
        return Err(Error::Request {
            field: "scope",
            message: "a key needs at least one scope; use read or write".to_owned(),
        });
    }
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    tenants::ensure(&mut tx, &new.tenant).await?;
    let id = Id::api_key();
    let generated = secret::generate(&id)?;
    let row = sqlx::query(
        "INSERT INTO api_keys (id, tenant, name, hash, scopes, created_ms, expires_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *",
    )
    .bind(id.as_str())
    .bind(&new.tenant)
    .bind(&new.name)
    .bind(generated.hash)
    .bind(new.scopes.iter().map(|scope| name(*scope)).collect::<Vec<_>>().join(" "))
    .bind(now)
    .bind(new.valid_for.map(|validity| after(now, validity)))
    .fetch_one(tx.connection())
    .await?;
    let key = key_of(&row)?;
    tx.commit().await?;
    Ok((key, generated.text))
}

async fn keys(store: &SqlStore, tenant: &str) -> Result<Vec<ApiKey>> {
    let found = sqlx::query("SELECT * FROM api_keys WHERE tenant = $1 ORDER BY id DESC").bind(tenant);
    found.fetch_all(&store.reader).await?.iter().map(key_of).collect()
}

async fn revoke_key(store: &SqlStore, tenant: &str, id: &Id) -> Result<ApiKey> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    let revoked = sqlx::query(
        "UPDATE api_keys SET revoked_ms = COALESCE(revoked_ms, $1) WHERE id = $2 AND tenant = $3 RETURNING *",
    )
    .bind(now)
    .bind(id.as_str())
    .bind(tenant)
    .fetch_optional(tx.connection())
    .await?;
    let key = key_of(&revoked.ok_or_else(|| Error::NotFound { what: "key", id: id.to_string() })?)?;
    tx.commit().await?;
    Ok(key)
}

async fn create_upload_token(store: &SqlStore, new: &NewUploadToken) -> Result<(UploadToken, String)> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    tenants::ensure(&mut tx, &new.tenant).await?;
    let id = Id::upload_token();
    let generated = secret::generate(&id)?;
    let row = sqlx::query(
        "INSERT INTO upload_tokens (id, tenant, hash, max_bytes, job, created_ms, expires_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *",
    )
    .bind(id.as_str())
    .bind(&new.tenant)
    .bind(generated.hash)
    .bind(byte_count(new.max_bytes))
    .bind(&new.job)
    .bind(now)
    .bind(after(now, new.valid_for))
    .fetch_one(tx.connection())
    .await?;
    let token = token_of(&row)?;
    tx.commit().await?;
    Ok((token, generated.text))
}

async fn authenticate(store: &SqlStore, secret_text: &str) -> Result<Option<Credential>> {
    let Some((id, secret)) = secret::parse(secret_text) else { return Ok(None) };
    let mut connection = store.reader.acquire().await?;
    let now = store.now(&mut connection).await?;
    let key = sqlx::query(
        "SELECT * FROM api_keys \
         WHERE id = $1 AND revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $2)",
    )
    .bind(id.as_str())
    .bind(now);
    if let Some(row) = key.fetch_optional(&mut *connection).await? {
        if !secret::verify(secret, &text(&row, "hash")?) {
            return Ok(None);
        }
        let key = key_of(&row)?;
        drop(connection);
        if key.used_ms.is_none_or(|used| used + USED_ACCURACY_MS < now) {
            record_use(store, &key.id).await?;
        }
        return Ok(Some(Credential::ApiKey(key)));
    }
    let token = sqlx::query(
        "SELECT * FROM upload_tokens t WHERE t.id = $1 AND ((t.upload IS NULL AND t.expires_ms > $2) \
         OR EXISTS (SELECT 1 FROM uploads u \
         WHERE u.id = t.upload AND (u.state = 'open' OR t.expires_ms > $2)))",
    )
    .bind(id.as_str())
    .bind(now);
    let Some(row) = token.fetch_optional(&mut *connection).await? else { return Ok(None) };
    if secret::verify(secret, &text(&row, "hash")?) {
        Ok(Some(Credential::UploadToken(token_of(&row)?)))
    } else {
        Ok(None)
    }
}

async fn record_use(store: &SqlStore, id: &Id) -> Result<()> {
    let mut tx = store.begin().await?;
    let now = tx.now_ms;
    sqlx::query("UPDATE api_keys SET used_ms = $1 WHERE id = $2")
        .bind(now)
        .bind(id.as_str())
        .execute(tx.connection())
        .await?;
    tx.commit().await
}

/// Redeems an upload token for an upload. Of concurrent calls one succeeds.
pub(super) async fn redeem(tx: &mut WriteTransaction, token: &Id, upload: &Id) -> Result<()> {
    let now = tx.now_ms;
    let redeemed = sqlx::query(
        "UPDATE upload_tokens SET upload = $1 WHERE id = $2 AND upload IS NULL AND expires_ms > $3",
    )
    .bind(upload.as_str())
    .bind(token.as_str())
    .bind(now)
    .execute(tx.connection())
    .await?;
    if redeemed.rows_affected() > 0 { Ok(()) } else { Err(Error::TokenUsed { token: token.clone() }) }
}

async fn signing_key(store: &SqlStore, name: &str) -> Result<[u8; 32]> {
    let mut tx = store.begin().await?;
    sqlx::query("INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
        .bind(name)
        .bind(Hash::from_bytes(random_secret()?).to_hex().to_string())
        .execute(tx.connection())
        .await?;
    let stored: String = sqlx::query_scalar("SELECT value FROM secrets WHERE name = $1")
        .bind(name)
        .fetch_one(tx.connection())
        .await?;
    tx.commit().await?;
    let unknown = |_| Error::UnknownValue { what: "signing key", value: name.to_owned() };
    Hash::from_hex(stored).map(|value| *value.as_bytes()).map_err(unknown)
}

fn key_of(row: &AnyRow) -> Result<ApiKey> {
    let scopes = text(row, "scopes")?;
    let unknown = |name: &str| Error::UnknownValue { what: "scope", value: name.to_owned() };
    Ok(ApiKey {
        id: id_column(row, "id")?,
        tenant: text(row, "tenant")?,
        name: text(row, "name")?,
        scopes: scopes
            .split(' ')
            .map(|name| name.parse::<Scope>().map_err(|_| unknown(name)))
            .collect::<Result<_>>()?,
        created_ms: row.try_get("created_ms")?,
        expires_ms: row.try_get("expires_ms")?,
        revoked_ms: row.try_get("revoked_ms")?,
        used_ms: row.try_get("used_ms")?,
    })
}

fn token_of(row: &AnyRow) -> Result<UploadToken> {
    Ok(UploadToken {
        id: id_column(row, "id")?,
        tenant: text(row, "tenant")?,
        max_bytes: bytes(row, "max_bytes")?,
        job: row.try_get("job")?,
        expires_ms: row.try_get("expires_ms")?,
        upload: optional_id(row, "upload")?,
    })
}
