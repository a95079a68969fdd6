//! Pinning: the identity of an object's version, and the request conditions for reads of that version.

use object_store::{GetOptions, GetRange, ObjectMeta};

use crate::{clients::Client, error::lacks_ranges};

/// Returns the identity of an object's version: its ETag, else size and date, else `None`.
pub(crate) fn tag(meta: &ObjectMeta) -> Option<String> {
    let dated =
        || is_dated(meta).then(|| format!("{:x}-{:x}", meta.size, meta.last_modified.timestamp_millis()));
    meta.e_tag.clone().or_else(dated)
}

/// Returns whether the object has a date. A missing Last-Modified is represented as the epoch.
fn is_dated(meta: &ObjectMeta) -> bool {
    meta.last_modified.timestamp() != 0
}

/// Returns the conditions for ranged reads of the same version.
///
/// A weak ETag never satisfies If-Match (RFC 9110 section 13.1.1), so for it the condition uses the date, and
/// the response's ETag is compared.
pub(crate) fn condition(meta: &ObjectMeta) -> GetOptions {
    let strong = meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
    let date = (strong.is_none() && is_dated(meta)).then_some(meta.last_modified);
    GetOptions { if_match: strong, if_unmodified_since: date, ..GetOptions::default() }
}

/// Probes an HTTP source by requesting its first byte: finds its length and whether ranges are supported. It
/// works with presigned links, which forbid HEAD.
pub(crate) async fn probe(client: &Client) -> object_store::Result<(ObjectMeta, bool)> {
    let page = object_store::path::Path::default();
    let first_byte = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
    match client.store.get_opts(&page, first_byte).await {
        Ok(result) => Ok((result.meta, true)),
        // An empty object has no first byte.
        Err(e) if lacks_ranges(&e) => {
            Ok((client.store.get_opts(&page, GetOptions::default()).await?.meta, false))
        }
        Err(e) => Err(e),
    }
}
