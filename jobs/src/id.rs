//! IDs: a prefix for the type of the object, and a number that grows with time.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// ID of a job, a video, an upload or a credential, such as `job_01936b2f9c7e7d3aa5c1e2f4b6d8a0c2`. A newer
/// ID sorts after an older one.
///
/// Source: RFC 9562, UUID version 7.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(String);

impl Id {
    /// Generates the ID of a job.
    pub fn job() -> Self {
        Self::generate("job")
    }

    /// Generates the ID of a video.
    pub fn video() -> Self {
        Self::generate("video")
    }

    /// Generates the ID of an upload.
    pub fn upload() -> Self {
        Self::generate("upload")
    }

    /// Generates the ID of an API key.
    pub fn api_key() -> Self {
        Self::generate("key")
    }

    /// Generates the ID of a webhook.
    pub fn webhook() -> Self {
        Self::generate("webhook")
    }

    /// Generates the ID of a webhook's delivery.
    pub fn delivery() -> Self {
        Self::generate("msg")
    }

    /// Generates the ID of a watch.
    pub fn watch() -> Self {
        Self::generate("watch")
    }

    /// Generates the ID of an upload token.
    pub fn upload_token() -> Self {
        Self::generate("once")
    }

    /// Wraps an ID from a request or from the database. The store decides whether such an object exists.
    pub fn from_text(text: impl Into<String>) -> Self {
        let text = text.into();
        // PostgreSQL accepts no text with a NUL, and no ID has one.
        Self(if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text })
    }

    /// Returns the ID's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn generate(object: &str) -> Self {
        Self(format!("{object}_{}", Uuid::now_v7().simple()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
