//! Videos and the signed links that play them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Video: the published result of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Video {
    #[schema(example = "video_019aa1b2c3d47e5f8a9b0c1d2e3f4a5b")]
    id: String,
    name: String,
    /// URI of the source, without secrets.
    source: String,
    /// Folder or URI prefix that the video is published to.
    destination: String,
    /// Time of creation, in milliseconds since the Unix epoch.
    created_ms: i64,
    /// Time of the last publication, in milliseconds since the Unix epoch.
    published_ms: Option<i64>,
    /// Result of the last publication.
    #[schema(value_type = Option<Object>)]
    published: Option<Value>,
    /// Path of the multivariant playlist on this server; null before publication.
    play: Option<String>,
}

impl From<spool_jobs::Video> for Video {
    fn from(video: spool_jobs::Video) -> Self {
        let play = video.published.is_some().then(|| format!("/v1/videos/{}/play/master.m3u8", video.id));
        Self {
            id: video.id.to_string(),
            name: video.name,
            source: video.source,
            destination: video.destination,
            created_ms: video.created_ms,
            published_ms: video.published_ms,
            published: video.published,
            play,
        }
    }
}

/// Page of videos, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VideoList {
    videos: Vec<Video>,
    /// Cursor of the next page; null on the last page.
    next: Option<String>,
}

impl From<spool_jobs::Page<spool_jobs::Video>> for VideoList {
    fn from(page: spool_jobs::Page<spool_jobs::Video>) -> Self {
        Self {
            videos: page.items.into_iter().map(Video::from).collect(),
            next: page.next.map(|id| id.to_string()),
        }
    }
}

/// Request to create a signed link.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaybackLinkRequest {
    /// Lifetime of the link in seconds. Default: one hour.
    #[schema(minimum = 1, maximum = 604800)]
    pub(crate) expires_seconds: Option<u64>,
}

/// Signed link, which plays one video without another credential until the link expires.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaybackLink {
    /// Path of the multivariant playlist. All files of the video lie below the same path.
    pub(crate) play: String,
    /// Time of expiry, in milliseconds since the Unix epoch.
    pub(crate) expires_ms: i64,
}
