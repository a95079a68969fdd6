//! How are jobs, videos, uploads and keys called? By a word for what they are, and a number that grows with time.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of a job, a video, an upload or a key, such as `job_01936b2f9c7e7d3aa5c1e2f4b6d8a0c2`. Newer ones sort behind older ones.
///
/// Source: RFC 9562, UUID version 7.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(String);

impl Id {
    /// A new job's.
    pub fn job() -> Self {
        Self::new("job")
    }

    /// A new video's.
    pub fn video() -> Self {
        Self::new("video")
    }

    /// A new upload's.
    pub fn upload() -> Self {
        Self::new("upload")
    }

    /// A new key's.
    pub fn key() -> Self {
        Self::new("key")
    }

    /// A new webhook's.
    pub fn webhook() -> Self {
        Self::new("webhook")
    }

    /// A new message's.
    pub fn message() -> Self {
        Self::new("msg")
    }

    /// A new watch's.
    pub fn watch() -> Self {
        Self::new("watch")
    }

    /// A new token's.
    pub fn token() -> Self {
        Self::new("once")
    }

    /// One that came from elsewhere; whether there is such a thing is the store's to say.
    pub fn from_text(text: impl Into<String>) -> Self {
        let text = text.into();
        // PostgreSQL takes no text with a NUL, and nothing is called so.
        Self(if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn new(of: &str) -> Self {
        Self(format!("{of}_{}", Uuid::now_v7().simple()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
