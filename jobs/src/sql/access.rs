//! How is it kept who may ask?

use blake3::Hash;
use sqlx::{Row as _, any::AnyRow};
use uuid::Uuid;

use super::{
    Change, SqlStore,
    claims::milliseconds,
    jobs::{as_json, make_tenant},
    read::{json, text},
};
use crate::{ApiKey, Error, Id, NewKey, NewUploadToken, Policy, Result, Scope, Shown, Tenant, UploadToken};

/// What everything begins with that is shown: it can be found where it was left lying about.
const PREFIX: &str = "spool_";

/// How exactly it is known when a key was used last.
const USED_WITHIN_MS: i64 = 60_000;

/// The longest name of a tenant or a key.
const MAX_NAME: usize = 100;

/// 32 bytes that nobody can guess, of which 244 bits are drawn.
pub fn drawn() -> [u8; 32] {
    let halves = [Uuid::new_v4(), Uuid::new_v4()];
    // Mixed, so that what is fixed in each half is not seen.
    *blake3::hash(&halves.map(Uuid::into_bytes).concat()).as_bytes()
}

/// What is shown, and what is kept of it.
fn made(id: &Id) -> (String, String) {
    let secret = Hash::from_bytes(drawn()).to_hex();
    let name = id.as_str();
    (format!("{PREFIX}{name}_{secret}"), hash(&secret))
}

/// What is drawn has no need of a slow hash.
fn hash(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}

/// Who is it, and is it who it says?
fn parts(shown: &str) -> Option<(Id, &str)> {
    let (id, secret) = shown.strip_prefix(PREFIX)?.rsplit_once('_')?;
    Some((Id::from_text(id), secret))
}

/// Takes as long whatever is wrong.
fn same(secret: &str, kept: &str) -> bool {
    Hash::from_hex(kept).is_ok_and(|kept| blake3::hash(secret.as_bytes()) == kept)
}

/// Says what is wrong with the name of a tenant.
///
/// # Errors
/// [`Error::Request`] where there can be none of this name.
pub fn check_tenant(name: &str) -> Result<()> {
    check_name("tenant", name)
}

/// Names become parts of paths.
fn check_name(field: &'static str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('.') {
        return Ok(());
    }
    Err(Error::Request {
        field,
        message: format!(
            "{name:?}: it must be of 1 to {MAX_NAME} letters, digits, -, _ and dots, and begin with none of these"
        ),
    })
}

pub(super) async fn create_key(store: &SqlStore, new: &NewKey) -> Result<(ApiKey, String)> {
    check_tenant(&new.tenant)?;
    if new.name.len() > MAX_NAME || new.name.contains('\0') {
        return Err(Error::Request {
            field: "name",
            message: format!("it must be of at most {MAX_NAME} bytes"),
        });
    }
    if new.scopes.is_empty() {
        return Err(Error::Request {
            field: "scope",
            message: "a key that opens nothing is none: give read or write".to_owned(),
        });
    }
    let mut change = store.change().await?;
    let now = change.now_ms;
    make_tenant(&mut change, &new.tenant).await?;
    let id = Id::key();
    let (shown, hash) = made(&id);
    let row = sqlx::query(
        "INSERT INTO api_keys (id, tenant, name, hash, scopes, created_ms, expires_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *",
    )
    .bind(id.as_str())
    .bind(&new.tenant)
    .bind(&new.name)
    .bind(hash)
    .bind(new.scopes.iter().map(|scope| scope.word()).collect::<Vec<_>>().join(" "))
    .bind(now)
    .bind(new.valid_for.map(|time| now.saturating_add(milliseconds(time))))
    .fetch_one(change.connection())
    .await?;
    let key = key_of(&row)?;
    change.keep().await?;
    Ok((key, shown))
}

pub(super) async fn keys(store: &SqlStore, tenant: &str) -> Result<Vec<ApiKey>> {
    let found = sqlx::query("SELECT * FROM api_keys WHERE tenant = $1 ORDER BY id DESC").bind(tenant);
    found.fetch_all(&store.reader).await?.iter().map(key_of).collect()
}

pub(super) async fn revoke_key(store: &SqlStore, tenant: &str, id: &Id) -> Result<ApiKey> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    let revoked = sqlx::query(
        "UPDATE api_keys SET revoked_ms = COALESCE(revoked_ms, $1) WHERE id = $2 AND tenant = $3 RETURNING *",
    )
    .bind(now)
    .bind(id.as_str())
    .bind(tenant)
    .fetch_optional(change.connection())
    .await?;
    let key = key_of(&revoked.ok_or_else(|| Error::NotFound { what: "key", id: id.to_string() })?)?;
    change.keep().await?;
    Ok(key)
}

pub(super) async fn create_upload_token(
    store: &SqlStore,
    new: &NewUploadToken,
) -> Result<(UploadToken, String)> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    make_tenant(&mut change, &new.tenant).await?;
    let id = Id::token();
    let (shown, hash) = made(&id);
    let row = sqlx::query(
        "INSERT INTO upload_tokens (id, tenant, hash, most_bytes, job, created_ms, expires_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         RETURNING *",
    )
    .bind(id.as_str())
    .bind(&new.tenant)
    .bind(hash)
    .bind(i64::try_from(new.most_bytes).unwrap_or(i64::MAX))
    .bind(&new.job)
    .bind(now)
    .bind(now.saturating_add(milliseconds(new.valid_for)))
    .fetch_one(change.connection())
    .await?;
    let token = token_of(&row)?;
    change.keep().await?;
    Ok((token, shown))
}

pub(super) async fn shown(store: &SqlStore, shown: &str) -> Result<Option<Shown>> {
    let Some((id, secret)) = parts(shown) else { return Ok(None) };
    let mut connection = store.reader.acquire().await?;
    let now = store.now(&mut connection).await?;
    let key =
        sqlx::query("SELECT * FROM api_keys WHERE id = $1 AND revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $2)")
            .bind(id.as_str())
            .bind(now);
    if let Some(row) = key.fetch_optional(&mut *connection).await? {
        if !same(secret, &text(&row, "hash")?) {
            return Ok(None);
        }
        let key = key_of(&row)?;
        drop(connection);
        if key.used_ms.is_none_or(|used| used + USED_WITHIN_MS < now) {
            used(store, &key.id).await?;
        }
        return Ok(Some(Shown::Key(key)));
    }
    let token = sqlx::query(
        "SELECT * FROM upload_tokens t WHERE t.id = $1 AND ((t.upload IS NULL AND t.expires_ms > $2) \
         OR EXISTS (SELECT 1 FROM uploads u WHERE u.id = t.upload AND (u.state = 'open' OR t.expires_ms > $2)))",
    )
    .bind(id.as_str())
    .bind(now);
    let Some(row) = token.fetch_optional(&mut *connection).await? else { return Ok(None) };
    if same(secret, &text(&row, "hash")?) { Ok(Some(Shown::Token(token_of(&row)?))) } else { Ok(None) }
}

async fn used(store: &SqlStore, id: &Id) -> Result<()> {
    let mut change = store.change().await?;
    let now = change.now_ms;
    sqlx::query("UPDATE api_keys SET used_ms = $1 WHERE id = $2")
        .bind(now)
        .bind(id.as_str())
        .execute(change.connection())
        .await?;
    change.keep().await
}

/// Has a token stand for the upload that is begun with it: for one, whoever asks.
pub(super) async fn spend(change: &mut Change, token: &Id, upload: &Id) -> Result<()> {
    let now = change.now_ms;
    let spent = sqlx::query(
        "UPDATE upload_tokens SET upload = $1 WHERE id = $2 AND upload IS NULL AND expires_ms > $3",
    )
    .bind(upload.as_str())
    .bind(token.as_str())
    .bind(now)
    .execute(change.connection())
    .await?;
    if spent.rows_affected() > 0 { Ok(()) } else { Err(Error::Spent { token: token.clone() }) }
}

pub(super) async fn policy(store: &SqlStore, tenant: &str) -> Result<Policy> {
    let found = sqlx::query("SELECT policy FROM tenants WHERE id = $1")
        .bind(tenant)
        .fetch_optional(&store.reader)
        .await?;
    found.as_ref().map_or_else(|| Ok(Policy::default()), policy_of)
}

pub(super) async fn set_policy(store: &SqlStore, tenant: &str, policy: &Policy) -> Result<()> {
    check_tenant(tenant)?;
    let mut change = store.change().await?;
    make_tenant(&mut change, tenant).await?;
    sqlx::query("UPDATE tenants SET policy = $1 WHERE id = $2")
        .bind(as_json(policy))
        .bind(tenant)
        .execute(change.connection())
        .await?;
    change.keep().await
}

pub(super) async fn tenants(store: &SqlStore) -> Result<Vec<Tenant>> {
    let rows = sqlx::query("SELECT * FROM tenants ORDER BY id").fetch_all(&store.reader).await?;
    rows.iter().map(|row| Ok(Tenant { id: text(row, "id")?, policy: policy_of(row)? })).collect()
}

/// Refuses a job more than a tenant may have at a time. Whoever asks meanwhile waits for this change.
pub(super) async fn check_jobs(change: &mut Change, tenant: &str) -> Result<()> {
    let Some(most) = limits(change, tenant).await?.jobs else { return Ok(()) };
    let count = "SELECT count(*) FROM jobs WHERE tenant = $1 AND state IN ('pending', 'processing')";
    let there: i64 = sqlx::query_scalar(count).bind(tenant).fetch_one(change.connection()).await?;
    if there.unsigned_abs() < most {
        Ok(())
    } else {
        Err(Error::Quota { what: "jobs that wait or run", most })
    }
}

/// Refuses an upload beyond the bytes that a tenant may keep.
pub(super) async fn check_bytes(change: &mut Change, tenant: &str, bytes: u64) -> Result<()> {
    let Some(most) = limits(change, tenant).await?.upload_bytes else { return Ok(()) };
    let sum =
        "SELECT CAST(COALESCE(sum(bytes), 0) AS BIGINT) FROM uploads WHERE tenant = $1 AND state <> 'gone'";
    let there: i64 = sqlx::query_scalar(sum).bind(tenant).fetch_one(change.connection()).await?;
    if there.unsigned_abs().saturating_add(bytes) <= most {
        Ok(())
    } else {
        Err(Error::Quota { what: "bytes of uploads", most })
    }
}

/// A tenant's limits; where there are any, the tenant is this change's until its end.
async fn limits(change: &mut Change, tenant: &str) -> Result<Policy> {
    let found = sqlx::query("SELECT policy FROM tenants WHERE id = $1")
        .bind(tenant)
        .fetch_optional(change.connection())
        .await?;
    let policy = found.as_ref().map_or_else(|| Ok(Policy::default()), policy_of)?;
    if policy.jobs.is_some() || policy.upload_bytes.is_some() {
        sqlx::query("UPDATE tenants SET served_ms = served_ms WHERE id = $1")
            .bind(tenant)
            .execute(change.connection())
            .await?;
    }
    Ok(policy)
}

pub(super) async fn secret(store: &SqlStore, name: &str) -> Result<[u8; 32]> {
    let mut change = store.change().await?;
    sqlx::query("INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
        .bind(name)
        .bind(Hash::from_bytes(drawn()).to_hex().to_string())
        .execute(change.connection())
        .await?;
    let kept: String = sqlx::query_scalar("SELECT value FROM secrets WHERE name = $1")
        .bind(name)
        .fetch_one(change.connection())
        .await?;
    change.keep().await?;
    let unknown = |_| Error::Unknown { what: "secret", value: name.to_owned() };
    Hash::from_hex(kept).map(|value| *value.as_bytes()).map_err(unknown)
}

fn policy_of(row: &AnyRow) -> Result<Policy> {
    row.try_get::<Option<String>, _>("policy")?
        .map_or_else(|| Ok(Policy::default()), |policy| json("policy", &policy))
}

fn key_of(row: &AnyRow) -> Result<ApiKey> {
    let scopes = text(row, "scopes")?;
    let unknown = |word: &str| Error::Unknown { what: "scope", value: word.to_owned() };
    Ok(ApiKey {
        id: Id::from_text(text(row, "id")?),
        tenant: text(row, "tenant")?,
        name: text(row, "name")?,
        scopes: scopes
            .split(' ')
            .map(|word| word.parse::<Scope>().map_err(|_| unknown(word)))
            .collect::<Result<_>>()?,
        created_ms: row.try_get("created_ms")?,
        expires_ms: row.try_get("expires_ms")?,
        revoked_ms: row.try_get("revoked_ms")?,
        used_ms: row.try_get("used_ms")?,
    })
}

fn token_of(row: &AnyRow) -> Result<UploadToken> {
    Ok(UploadToken {
        id: Id::from_text(text(row, "id")?),
        tenant: text(row, "tenant")?,
        most_bytes: row.try_get::<i64, _>("most_bytes")?.unsigned_abs(),
        job: row.try_get("job")?,
        expires_ms: row.try_get("expires_ms")?,
        upload: row.try_get::<Option<String>, _>("upload")?.map(Id::from_text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_known_again_and_nothing_else_is() {
        let id = Id::key();
        let (shown, kept) = made(&id);
        let (named, secret) = parts(&shown).unwrap();
        assert!(named == id && same(secret, &kept) && shown.starts_with("spool_key_"), "{shown}");
        assert!(!kept.contains(secret) && secret.len() == 64);
        assert!(!same(&secret[1..], &kept) && !same("", &kept) && !same(secret, ""));
        assert!(
            ["", "spool_", "spool_key", "Bearer spool_key_1_2", "key_1_2"]
                .iter()
                .all(|text| { parts(text).is_none_or(|(id, _)| !id.as_str().starts_with("key_")) })
        );
        assert_ne!(made(&id).0, shown);
    }

    #[test]
    fn a_tenants_name_is_fit_for_a_path() {
        assert!(["acme", "acme-2", "a.b_c", "0"].iter().all(|name| check_name("tenant", name).is_ok()));
        for name in ["", "..", ".hidden", "a/b", "a b", "a\0b", "é", &"x".repeat(101)] {
            assert!(check_name("tenant", name).is_err(), "{name:?}");
        }
    }
}
