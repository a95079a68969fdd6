//! Objects as callers see them: versions, entries of listings, outcomes of conditional writes.

use std::time::SystemTime;

use object_store::UpdateVersion;

/// Largest object that [`Location::read`](crate::Location::read) takes into memory: records and playlists
/// have some kilobytes, of a day's video some megabytes.
pub const SMALL_OBJECT_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A state of a small object, as [`Location::read`](crate::Location::read) saw it; what
/// [`Location::replace`](crate::Location::replace) expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub(crate) UpdateVersion);

/// The outcome of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is the one that was given.
    Written,
    /// An object was there already and is untouched. It may be this caller's own, if an answer was lost.
    AlreadyExists,
    /// Another writer replaced the expected version first; its object is untouched. Read again, decide again.
    PreconditionFailed,
}

/// What a listing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is under the listed location: `1080p/0-ab12.m4s`, good for
    /// [`Location::child`](crate::Location::child).
    pub relative: String,
    /// Length.
    pub bytes: u64,
    /// When it was written.
    pub modified: SystemTime,
    /// The ETag of this version, as of a [`Source`](crate::Source).
    pub etag: String,
}
