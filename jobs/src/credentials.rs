//! `CredentialStore`: API keys, upload tokens, tenants and the policy of each.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};

use crate::{Error, Id, Result};

/// Scope of an API key: a set of operations that it allows.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", parse_err_ty = Error, parse_err_fn = unknown_scope)]
pub enum Scope {
    /// Lists jobs, videos and uploads, and plays videos.
    Read,
    /// Uploads files and creates jobs.
    Write,
    /// Creates and revokes API keys of the tenant.
    Keys,
}

fn unknown_scope(name: &str) -> Error {
    let known: Vec<&str> = Scope::VARIANTS.iter().map(|scope| (*scope).into()).collect();
    Error::Request {
        field: "scope",
        message: format!("unknown scope {name:?}; use one of {}", known.join(", ")),
    }
}

/// An API key without its secret, which only its owner has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// ID in the store, which is a part of the secret text.
    pub id: Id,
    /// Tenant that it acts for.
    pub tenant: String,
    /// Name, for display.
    pub name: String,
    /// Operations that it allows.
    pub scopes: Vec<Scope>,
    /// Time of creation, in milliseconds since 1970.
    pub created_ms: i64,
    /// Time of expiry, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// Time of revocation, in milliseconds since 1970.
    pub revoked_ms: Option<i64>,
    /// Time of the last use, in milliseconds since 1970, exact to a minute.
    pub used_ms: Option<i64>,
}

/// An API key to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiKey {
    /// Tenant that it acts for.
    pub tenant: String,
    /// Name, for display.
    pub name: String,
    /// Operations that it allows.
    pub scopes: Vec<Scope>,
    /// Validity; unlimited if absent.
    pub valid_for: Option<Duration>,
}

/// Limits of a tenant. An absent field sets no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantPolicy {
    /// Prefixes that jobs may read, beside the tenant's uploads.
    pub sources: Vec<String>,
    /// Prefixes that jobs may publish under, beside the server's own.
    pub destinations: Vec<String>,
    /// Pending and running jobs at a time.
    pub jobs: Option<u64>,
    /// Bytes of stored uploads.
    pub upload_bytes: Option<u64>,
    /// Requests per minute to each server.
    pub requests_per_minute: Option<u32>,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Name.
    pub id: String,
    /// Limits.
    pub policy: TenantPolicy,
}

/// An upload token: a credential for one upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadToken {
    /// ID in the store.
    pub id: Id,
    /// Tenant that will own the upload.
    pub tenant: String,
    /// Largest size of the upload.
    pub max_bytes: u64,
    /// Document of the job that the upload creates.
    pub job: Option<String>,
    /// Time of expiry, in milliseconds since 1970. An open upload outlives it.
    pub expires_ms: i64,
    /// Upload that the token created.
    pub upload: Option<Id>,
}

/// An upload token to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUploadToken {
    /// Tenant that will own the upload.
    pub tenant: String,
    /// Largest size of the upload.
    pub max_bytes: u64,
    /// Document of the job that the upload creates.
    pub job: Option<String>,
    /// Validity.
    pub valid_for: Duration,
}

/// A valid credential of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// An API key.
    ApiKey(ApiKey),
    /// An upload token.
    UploadToken(UploadToken),
}

/// A durable store of tenants and credentials.
#[async_trait]
pub trait CredentialStore: Send + Sync + 'static {
    /// Creates an API key, and its tenant if new. Returns the key and the secret text for its owner, which is
    /// stored nowhere.
    async fn create_key(&self, new: &NewApiKey) -> Result<(ApiKey, String)>;

    /// Returns a tenant's API keys, newest first, also expired and revoked ones.
    async fn keys(&self, tenant: &str) -> Result<Vec<ApiKey>>;

    /// Revokes a tenant's API key. A revoked key stays revoked, without an error.
    ///
    /// # Errors
    /// Returns [`Error::NotFound`], also if another tenant owns the key.
    async fn revoke_key(&self, tenant: &str, id: &Id) -> Result<ApiKey>;

    /// Creates an upload token. Returns the token and the secret text for its owner, which is stored nowhere.
    async fn create_upload_token(&self, new: &NewUploadToken) -> Result<(UploadToken, String)>;

    /// Returns the valid credential that a secret text belongs to. An upload token is valid until it expires,
    /// and beyond that as long as its upload is open.
    async fn authenticate(&self, secret_text: &str) -> Result<Option<Credential>>;

    /// Returns a tenant's policy: without limits unless one was set.
    async fn policy(&self, tenant: &str) -> Result<TenantPolicy>;

    /// Sets a tenant's policy, and creates the tenant if new.
    async fn set_policy(&self, tenant: &str, policy: &TenantPolicy) -> Result<()>;

    /// Returns every tenant, by name.
    async fn tenants(&self) -> Result<Vec<Tenant>>;

    /// Returns the 32-byte key with which all servers sign under this name. The first call generates it.
    async fn signing_key(&self, name: &str) -> Result<[u8; 32]>;
}
