//! Who may ask, and for what? Keys of tenants, tokens that are good for one upload, and the limits of each tenant.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Error, Id, Result};

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See jobs, videos and uploads, and play.
    Read,
    /// Upload, and ask for jobs.
    Write,
    /// Make and revoke keys of the same tenant.
    Keys,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Keys];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Keys => "keys",
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::word).join(", ");
        let unknown =
            || Error::Request { field: "scope", message: format!("{text:?} is none: there are {}", known()) };
        Self::ALL.into_iter().find(|scope| scope.word() == text).ok_or_else(unknown)
    }
}

/// A key, as the store knows it. What opens is nowhere but with whoever has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name in the store, which is a part of what its owner shows.
    pub id: Id,
    /// Whose jobs it opens.
    pub tenant: String,
    /// Its name for people.
    pub name: String,
    /// What it opens.
    pub scopes: Vec<Scope>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it ends.
    pub expires_ms: Option<i64>,
    /// When it was revoked.
    pub revoked_ms: Option<i64>,
    /// When it was used last, to the minute.
    pub used_ms: Option<i64>,
}

/// A key to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Whose jobs it opens.
    pub tenant: String,
    /// Its name for people.
    pub name: String,
    /// What it opens.
    pub scopes: Vec<Scope>,
    /// How long it is good.
    pub valid_for: Option<Duration>,
}

/// What a tenant may do. What is not said is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Prefixes of what may be read, beside the tenant's own uploads.
    pub sources: Vec<String>,
    /// Prefixes of where may be published, beside where the server keeps its videos.
    pub destinations: Vec<String>,
    /// Jobs at a time that wait or run.
    pub jobs: Option<u64>,
    /// Bytes of uploads that are kept.
    pub upload_bytes: Option<u64>,
    /// Requests a minute, of each server.
    pub requests_per_minute: Option<u32>,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub id: String,
    /// What it may do.
    pub policy: Policy,
}

/// A token for one upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadToken {
    /// Its name in the store.
    pub id: Id,
    /// Whose upload it will be.
    pub tenant: String,
    /// How long the upload may be, in bytes.
    pub most_bytes: u64,
    /// The document of the job that is made of it.
    pub job: Option<String>,
    /// When it ends, in milliseconds since 1970. An upload that was begun may end later.
    pub expires_ms: i64,
    /// The upload that was begun with it.
    pub upload: Option<Id>,
}

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUploadToken {
    /// Whose upload it will be.
    pub tenant: String,
    /// How long the upload may be, in bytes.
    pub most_bytes: u64,
    /// The document of the job that is made of it.
    pub job: Option<String>,
    /// How long it is good for.
    pub valid_for: Duration,
}

/// Who has shown what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A key.
    Key(ApiKey),
    /// A token for one upload.
    Token(UploadToken),
}

/// A durable store of who may ask.
#[async_trait]
pub trait Access: Send + Sync + 'static {
    /// Makes a key, and the tenant where there is none of this name. What is returned beside it is what its owner shows, and is nowhere else.
    async fn create_key(&self, new: &NewKey) -> Result<(ApiKey, String)>;

    /// A tenant's keys, the newest first: those that ended as well.
    async fn keys(&self, tenant: &str) -> Result<Vec<ApiKey>>;

    /// Has a tenant's key open nothing from now on. One that was revoked before is no error.
    ///
    /// # Errors
    /// [`Error::NotFound`] also where it is another tenant's.
    async fn revoke_key(&self, tenant: &str, id: &Id) -> Result<ApiKey>;

    /// Makes a token for one upload; beside it what its owner shows.
    async fn create_upload_token(&self, new: &NewUploadToken) -> Result<(UploadToken, String)>;

    /// The key or token that somebody shows, if it is good now. A token is as long as its upload is open.
    async fn shown(&self, text: &str) -> Result<Option<Shown>>;

    /// What a tenant may do; nothing is limited where nobody has said so.
    async fn policy(&self, tenant: &str) -> Result<Policy>;

    /// Says what a tenant may do, and makes it where there is none of this name.
    async fn set_policy(&self, tenant: &str, policy: &Policy) -> Result<()>;

    /// Every tenant, by name.
    async fn tenants(&self) -> Result<Vec<Tenant>>;

    /// What all servers sign with under this name: made by whoever asks first, 32 bytes.
    async fn secret(&self, name: &str) -> Result<[u8; 32]>;
}
