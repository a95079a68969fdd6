//! What is known of a video: where it came from, where it is published, and what it offers.

use serde::Serialize;
use serde_json::Value;

use crate::Id;

/// A video, which jobs make and make again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Video {
    /// Its name in the store.
    pub id: Id,
    /// Whose it is.
    pub tenant: String,
    /// Its name for people.
    pub name: String,
    /// What it is made of, without secrets.
    pub source: String,
    /// Where it is published.
    pub destination: String,
    /// When it was first asked for, in milliseconds since 1970.
    pub created_ms: i64,
    /// What publishing returned, the last time that it was.
    pub published: Option<Value>,
    /// When that was, in milliseconds since 1970.
    pub published_ms: Option<i64>,
}
