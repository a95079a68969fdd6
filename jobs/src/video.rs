//! Videos: source, destination and last published package of each.

use serde::Serialize;
use serde_json::Value;

use crate::Id;

/// A video, which jobs publish once or several times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Video {
    /// ID in the store.
    pub id: Id,
    /// Tenant that owns it.
    pub tenant: String,
    /// File name of its source, for display.
    pub name: String,
    /// URI of its source, without secrets.
    pub source: String,
    /// URI prefix that its package is published under.
    pub destination: String,
    /// Time of the first request for it, in milliseconds since 1970.
    pub created_ms: i64,
    /// Result of the last publication.
    pub published: Option<Value>,
    /// Time of the last publication, in milliseconds since 1970.
    pub published_ms: Option<i64>,
}
