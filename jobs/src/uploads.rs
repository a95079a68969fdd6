//! `UploadStore`: uploads in parts, over many requests and through any server.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use serde::Serialize;
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::{FencingToken, Id, JobSpec, Result};

/// State of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Display, EnumString, IntoStaticStr, EnumIter)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum UploadState {
    /// Bytes are missing.
    Open,
    /// The object is stored.
    Finished,
    /// Aborted, expired, or deleted after its job was published.
    Gone,
}

/// An upload.
#[derive(Debug, Clone, PartialEq)]
pub struct Upload {
    /// ID in the store.
    pub id: Id,
    /// Tenant that owns it.
    pub tenant: String,
    /// State.
    pub state: UploadState,
    /// File name, for display.
    pub name: String,
    /// Metadata from the client.
    pub metadata: BTreeMap<String, String>,
    /// URI of the finished object.
    pub location: String,
    /// Object store's ID of the multipart upload.
    pub token: String,
    /// Size of the object.
    pub bytes: u64,
    /// Bytes stored so far.
    pub received: u64,
    /// Object store's ETag of each stored part, in order.
    pub parts: Vec<String>,
    /// Job that was created from it.
    pub job: Option<Id>,
    /// Time of creation, in milliseconds since 1970.
    pub created_ms: i64,
    /// Time at which it is aborted unless more bytes arrive, in milliseconds since 1970.
    pub expires_ms: i64,
}

/// An upload to create.
#[derive(Debug, Clone, PartialEq)]
pub struct NewUpload {
    /// ID in the store.
    pub id: Id,
    /// Tenant that owns it.
    pub tenant: String,
    /// File name, for display.
    pub name: String,
    /// Metadata from the client.
    pub metadata: BTreeMap<String, String>,
    /// URI of the finished object.
    pub location: String,
    /// Object store's ID of the multipart upload.
    pub token: String,
    /// Size of the object.
    pub bytes: u64,
    /// Job to create once the object is stored.
    pub spec: Option<JobSpec>,
    /// Upload token to redeem: a token creates one upload.
    pub upload_token: Option<Id>,
    /// Time without new bytes after which the upload expires.
    pub expires_after: Duration,
}

/// A request's time-limited right to an upload: until it ends, no other request writes to the upload.
#[derive(Debug, Clone, PartialEq)]
pub struct UploadLease {
    /// The upload, as it was when the lease was taken.
    pub upload: Upload,
    /// Token under which the holder writes.
    pub fencing_token: FencingToken,
}

/// A durable store of uploads.
#[async_trait]
pub trait UploadStore: Send + Sync + 'static {
    /// Creates an upload. With `complete`, the object is stored already: the upload is finished at once, and
    /// its job is created.
    ///
    /// # Errors
    /// Returns [`Error::Quota`](crate::Error::Quota) if the tenant's quota of bytes is used up;
    /// [`Error::TokenUsed`](crate::Error::TokenUsed) if the upload token is redeemed or expired.
    async fn create_upload(&self, new: &NewUpload, complete: bool) -> Result<Upload>;

    /// Returns a tenant's upload.
    ///
    /// # Errors
    /// Returns [`Error::NotFound`](crate::Error::NotFound), also if another tenant owns the upload.
    async fn upload(&self, tenant: &str, id: &Id) -> Result<Upload>;

    /// Leases an open upload for `lease_time`.
    ///
    /// # Errors
    /// Returns [`Error::NotFound`](crate::Error::NotFound) if no such upload is open;
    /// [`Error::Locked`](crate::Error::Locked) if another request holds its lease.
    async fn lease_upload(&self, tenant: &str, id: &Id, lease_time: Duration) -> Result<UploadLease>;

    /// Leases an open upload that has expired, or that has all bytes and was not finished.
    async fn lease_abandoned_upload(&self, lease_time: Duration) -> Result<Option<UploadLease>>;

    /// Extends a lease to `lease_time` from now; a `lease_time` of zero releases it.
    ///
    /// # Errors
    /// Returns [`Error::LeaseLost`](crate::Error::LeaseLost) if the upload has a newer lease, or is not open.
    async fn renew_upload(&self, lease: &UploadLease, lease_time: Duration) -> Result<()>;

    /// Records the stored bytes and parts; the upload expires `expires_after` from now.
    ///
    /// # Errors
    /// Returns [`Error::LeaseLost`](crate::Error::LeaseLost) if the upload has a newer lease, or is not open:
    /// then nothing is written.
    async fn advance_upload(
        &self,
        lease: &UploadLease,
        received: u64,
        parts: &[String],
        expires_after: Duration,
    ) -> Result<()>;

    /// Finishes an upload and creates its job, in one change. Of several calls one succeeds.
    ///
    /// # Errors
    /// Returns [`Error::LeaseLost`](crate::Error::LeaseLost) as for [`UploadStore::advance_upload`].
    async fn finish_upload(&self, lease: &UploadLease) -> Result<Upload>;

    /// Aborts an upload.
    ///
    /// # Errors
    /// Returns [`Error::LeaseLost`](crate::Error::LeaseLost) as for [`UploadStore::advance_upload`].
    async fn abort_upload(&self, lease: &UploadLease) -> Result<()>;
}
