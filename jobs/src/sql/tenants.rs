//! Tenants in SQL: their rows, names, policies and quotas.

use sqlx::any::AnyRow;

use super::{
    columns::{optional_json, text, to_json},
    pool::{SqlStore, WriteTransaction},
};
use crate::{Error, Result, Tenant, TenantPolicy};

/// Longest name of a tenant or an API key, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 100;

/// Validates the name of a tenant, which is used in paths.
///
/// # Errors
/// Returns [`Error::Request`] if the name is invalid.
pub fn check_tenant_name(name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.chars().all(is_plain) && !name.starts_with('.') {
        return Ok(());
    }
    let message = format!(
        "invalid name {name:?}; use 1 to {MAX_NAME_BYTES} of a-z, A-Z, 0-9, -, _ and ., not a . first"
    );
    Err(Error::Request { field: "tenant", message })
}

/// Creates a tenant unless it exists.
pub(super) async fn ensure(tx: &mut WriteTransaction, tenant: &str) -> Result<()> {
    sqlx::query("INSERT INTO tenants (id, served_ms) VALUES ($1, 0) ON CONFLICT (id) DO NOTHING")
        .bind(tenant)
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// Locks a tenant until the transaction ends, so that two transactions do not count its objects at the same
/// time.
pub(super) async fn lock(tx: &mut WriteTransaction, tenant: &str) -> Result<()> {
    sqlx::query("UPDATE tenants SET served_ms = served_ms WHERE id = $1")
        .bind(tenant)
        .execute(tx.connection())
        .await?;
    Ok(())
}

pub(super) async fn policy(store: &SqlStore, tenant: &str) -> Result<TenantPolicy> {
    let found = sqlx::query("SELECT policy FROM tenants WHERE id = $1")
        .bind(tenant)
        .fetch_optional(&store.reader)
        .await?;
    found.as_ref().map_or_else(|| Ok(TenantPolicy::default()), policy_of)
}

pub(super) async fn set_policy(store: &SqlStore, tenant: &str, policy: &TenantPolicy) -> Result<()> {
    check_tenant_name(tenant)?;
    let mut tx = store.begin().await?;
    ensure(&mut tx, tenant).await?;
    sqlx::query("UPDATE tenants SET policy = $1 WHERE id = $2")
        .bind(to_json(policy))
        .bind(tenant)
        .execute(tx.connection())
        .await?;
    tx.commit().await
}

pub(super) async fn tenants(store: &SqlStore) -> Result<Vec<Tenant>> {
    let rows = sqlx::query("SELECT * FROM tenants ORDER BY id").fetch_all(&store.reader).await?;
    rows.iter().map(|row| Ok(Tenant { id: text(row, "id")?, policy: policy_of(row)? })).collect()
}

/// Returns an error if a further job exceeds the tenant's quota. Concurrent requests of the tenant wait for
/// this transaction.
pub(super) async fn check_job_quota(tx: &mut WriteTransaction, tenant: &str) -> Result<()> {
    let Some(max) = locked_policy(tx, tenant).await?.jobs else { return Ok(()) };
    let query = "SELECT count(*) FROM jobs WHERE tenant = $1 AND state IN ('pending', 'processing')";
    let count: i64 = sqlx::query_scalar(query).bind(tenant).fetch_one(tx.connection()).await?;
    if count.unsigned_abs() < max {
        Ok(())
    } else {
        Err(Error::Quota { what: "pending and running jobs", max })
    }
}

/// Returns an error if an upload exceeds the tenant's quota of stored bytes.
pub(super) async fn check_upload_quota(tx: &mut WriteTransaction, tenant: &str, bytes: u64) -> Result<()> {
    let Some(max) = locked_policy(tx, tenant).await?.upload_bytes else { return Ok(()) };
    let query =
        "SELECT CAST(COALESCE(sum(bytes), 0) AS BIGINT) FROM uploads WHERE tenant = $1 AND state <> 'gone'";
    let stored: i64 = sqlx::query_scalar(query).bind(tenant).fetch_one(tx.connection()).await?;
    if stored.unsigned_abs().saturating_add(bytes) <= max {
        Ok(())
    } else {
        Err(Error::Quota { what: "bytes of uploads", max })
    }
}

/// Returns a tenant's policy. If it sets a quota, the tenant is locked until the transaction ends.
async fn locked_policy(tx: &mut WriteTransaction, tenant: &str) -> Result<TenantPolicy> {
    let found = sqlx::query("SELECT policy FROM tenants WHERE id = $1")
        .bind(tenant)
        .fetch_optional(tx.connection())
        .await?;
    let policy = found.as_ref().map_or_else(|| Ok(TenantPolicy::default()), policy_of)?;
    if policy.jobs.is_some() || policy.upload_bytes.is_some() {
        lock(tx, tenant).await?;
    }
    Ok(policy)
}

fn policy_of(row: &AnyRow) -> Result<TenantPolicy> {
    Ok(optional_json(row, "policy")?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_name_is_safe_in_a_path() {
        assert!(["acme", "acme-2", "a.b_c", "0"].iter().all(|name| check_tenant_name(name).is_ok()));
        for name in ["", "..", ".hidden", "a/b", "a b", "a\0b", "é", &"x".repeat(101)] {
            assert!(check_tenant_name(name).is_err(), "{name:?}");
        }
    }
}
