//! Uploads, and the links that send their parts straight to the object store.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Upload: a file on its way to the server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Upload {
    #[schema(example = "upload_019aa1b2c3d47e5f8a9b0c1d2e3f4a5b")]
    id: String,
    /// State of the upload: `open`, `finished` or `gone`.
    #[schema(value_type = String)]
    state: spool_jobs::UploadState,
    name: String,
    /// Length of the file in bytes.
    bytes: u64,
    /// Number of bytes that have been received.
    received: u64,
    /// Id of the job that was created from the upload.
    job: Option<String>,
    /// Time of creation, in milliseconds since the Unix epoch.
    created_ms: i64,
    /// Time at which the upload is aborted unless more bytes arrive, in milliseconds since the Unix epoch.
    expires_ms: i64,
}

impl From<spool_jobs::Upload> for Upload {
    fn from(upload: spool_jobs::Upload) -> Self {
        Self {
            id: upload.id.to_string(),
            state: upload.state,
            name: upload.name,
            bytes: upload.bytes,
            received: upload.received,
            job: upload.job.map(|job| job.to_string()),
            created_ms: upload.created_ms,
            expires_ms: upload.expires_ms,
        }
    }
}

/// Request to begin an upload whose parts go straight to the object store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MultipartUploadRequest {
    /// Name of the file, without its folder.
    #[schema(example = "talk.mp4")]
    #[serde(default)]
    pub(crate) name: String,
    /// Length of the file in bytes.
    #[schema(minimum = 1, example = 1_073_741_824)]
    pub(crate) bytes: u64,
    /// Job to create once the upload is finished, as for `POST /v1/jobs` but without a source. Default: no
    /// job.
    #[schema(value_type = Option<Object>)]
    pub(crate) job: Option<serde_json::Value>,
}

/// Upload in parts, which has just begun.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MultipartUpload {
    pub(crate) upload: Upload,
    /// Length in bytes of every part but the last.
    pub(crate) part_bytes: u64,
    /// Number of parts of the upload.
    pub(crate) parts: u64,
}

/// Request for links to send parts to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartLinksRequest {
    /// Number of the first part. Default: 1.
    #[schema(minimum = 1)]
    pub(crate) from: Option<u64>,
    /// Number of links. Default: 100.
    #[schema(minimum = 1, maximum = 1000)]
    pub(crate) count: Option<u64>,
}

/// Links to send parts to, one `PUT` request each.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartLinkList {
    pub(crate) links: Vec<PartLink>,
    /// Lifetime of the links in seconds.
    pub(crate) expires_seconds: u64,
}

/// Link to send one part to. The link is a credential: anyone with the link can send the part.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartLink {
    /// Number of the part, from 1.
    pub(crate) part: u64,
    /// Length of the part in bytes.
    pub(crate) bytes: u64,
    pub(crate) url: String,
}

/// Request to complete an upload whose parts are at the object store.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompleteUploadRequest {
    /// `ETag` of the object store's response to each part, in the order of the parts.
    pub(crate) etags: Vec<String>,
}
