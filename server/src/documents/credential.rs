//! API keys and upload tokens. The secret of each is in the response that creates the credential, and in no
//! other.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Request to create an API key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiKeyRequest {
    /// Name of the key, for people.
    #[serde(default)]
    pub(crate) name: String,
    /// Scopes that the key grants: `read`, `write`, `keys`. At least one is required.
    #[schema(example = json!(["read", "write"]))]
    pub(crate) scopes: Vec<String>,
    /// Lifetime of the key in seconds. Default: until the key is revoked.
    #[schema(minimum = 1, maximum = 315360000)]
    pub(crate) expires_seconds: Option<u64>,
}

/// API key of a tenant, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiKey {
    #[schema(example = "key_019aa1b2c3d47e5f8a9b0c1d2e3f4a5b")]
    id: String,
    name: String,
    /// Scopes that the key grants: `read`, `write`, `keys`.
    #[schema(value_type = Vec<String>)]
    scopes: Vec<spool_jobs::Scope>,
    /// Time of creation, in milliseconds since the Unix epoch.
    created_ms: i64,
    /// Time of expiry, in milliseconds since the Unix epoch.
    expires_ms: Option<i64>,
    /// Time of revocation, in milliseconds since the Unix epoch.
    revoked_ms: Option<i64>,
    /// Time of the last use, to the minute, in milliseconds since the Unix epoch.
    used_ms: Option<i64>,
}

impl From<spool_jobs::ApiKey> for ApiKey {
    fn from(key: spool_jobs::ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name,
            scopes: key.scopes,
            created_ms: key.created_ms,
            expires_ms: key.expires_ms,
            revoked_ms: key.revoked_ms,
            used_ms: key.used_ms,
        }
    }
}

/// API key that was just created, with its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedApiKey {
    #[serde(flatten)]
    pub(crate) key: ApiKey,
    /// Secret of the key, sent as `Authorization: Bearer TOKEN`. No other response contains the secret.
    pub(crate) token: String,
}

/// API keys of a tenant, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiKeyList {
    pub(crate) keys: Vec<ApiKey>,
}

/// Request to create an upload token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadTokenRequest {
    /// Length limit of the upload in bytes. Default: 10 GiB.
    #[schema(minimum = 1, example = 1073741824)]
    pub(crate) max_bytes: Option<u64>,
    /// Job to create from the upload, as for `POST /v1/jobs` but without a source. Default: a job with
    /// default options.
    #[schema(value_type = Option<Object>)]
    pub(crate) job: Option<serde_json::Value>,
    /// Lifetime of the token in seconds. Default: one hour.
    #[schema(minimum = 1, maximum = 604800)]
    pub(crate) expires_seconds: Option<u64>,
}

/// Upload token that was just created.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedUploadToken {
    /// Secret of the token, sent as `Authorization: Bearer TOKEN`. No other response contains the secret.
    pub(crate) token: String,
    /// Length limit of the upload in bytes.
    pub(crate) max_bytes: u64,
    /// Time of expiry, in milliseconds since the Unix epoch. An upload that was begun before may end later.
    pub(crate) expires_ms: i64,
}
