//! Versions of objects, entries of listings, and outcomes of conditional writes.

use std::time::SystemTime;

use object_store::UpdateVersion;

/// Largest object that [`Location::read`](crate::Location::read) reads into memory, in bytes: records and
/// playlists have some kilobytes, and some megabytes for a day's video.
pub const SMALL_OBJECT_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A version of a small object: returned by [`Location::read`](crate::Location::read), and expected by
/// [`Location::replace`](crate::Location::replace).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub(crate) UpdateVersion);

/// The outcome of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object was written.
    Written,
    /// The object existed already and is untouched. It may be this caller's own, if a response was lost.
    AlreadyExists,
    /// Another writer replaced the expected version first; its object is untouched. The caller reads it again
    /// and decides.
    PreconditionFailed,
}

/// An entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the listed location, such as `1080p/0-ab12.m4s`, for
    /// [`Location::child`](crate::Location::child).
    pub relative: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Time of the last write.
    pub modified: SystemTime,
    /// ETag of this version, as of a [`Source`](crate::Source).
    pub etag: String,
}
