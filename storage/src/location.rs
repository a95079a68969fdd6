//! `Location`: an object or a folder of objects, with the operations on it.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::PathPart;

use crate::{
    address,
    backend::Backend,
    error::Error,
    object::{Entry, PutOutcome, SMALL_OBJECT_MAX_BYTES, Version},
    object_kind::ObjectKind,
    presign::PartLink,
    reader::{Source, SourceReader},
};

/// Location of an object or a folder of objects, with the client that reaches it.
#[derive(Clone)]
pub struct Location {
    uri: String,
    backend: Arc<dyn Backend>,
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Location").field(&self.backend.redacted()).finish()
    }
}

impl std::fmt::Display for Location {
    /// Writes the URI without credentials and without the query of a presigned link.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.backend.redacted())
    }
}

impl Location {
    pub(crate) fn new(uri: String, backend: Arc<dyn Backend>) -> Self {
        Self { uri, backend }
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Returns the absolute URI, for [`crate::Stores::locate`]. A presigned link is a secret: display the
    /// location itself instead.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Returns the last segment, decoded: the file's name. Empty for a whole bucket.
    pub fn name(&self) -> String {
        address::name(&self.uri)
    }

    /// Returns the path of a local file.
    pub fn local_path(&self) -> Option<&Path> {
        self.backend.local_path()
    }

    /// Returns a location below this one: segments with `/` between them, taken literally. A segment that is
    /// not a name (`..`, a control character) is percent-encoded, so that the result never lies outside this
    /// location.
    #[must_use]
    pub fn child(&self, relative: &str) -> Self {
        let segments = relative.split('/').filter(|segment| !segment.is_empty());
        let parts =
            segments.map(|segment| PathPart::parse(segment).unwrap_or_else(|_| PathPart::from(segment)));
        let (uri, backend) = self.backend.child(parts.collect());
        Self { uri, backend }
    }

    /// Opens the current version of an object, for reading in ranges.
    ///
    /// # Errors
    /// Returns an error such as [`Error::NotFound`], [`Error::NoBucket`], [`Error::NotAFile`],
    /// [`Error::NotAllowed`] or [`Error::Unreachable`].
    pub async fn open(&self) -> Result<SourceReader, Error> {
        SourceReader::open(self.clone()).await
    }

    /// Opens an object in exactly the pinned version.
    ///
    /// # Errors
    /// Returns [`Error::SourceChanged`] if the object has another version now; otherwise the errors of
    /// [`Location::open`].
    pub async fn open_pinned(&self, source: &Source) -> Result<SourceReader, Error> {
        let reader = self.open().await?;
        if (&reader.source().etag, reader.source().bytes) == (&source.etag, source.bytes) {
            Ok(reader)
        } else {
            Err(Error::SourceChanged { uri: self.to_string() })
        }
    }

    /// Reads a small object; `None` without one.
    ///
    /// # Errors
    /// Returns [`Error::TooLarge`] above [`SMALL_OBJECT_MAX_BYTES`], or the store's error.
    pub async fn read(&self) -> Result<Option<(Bytes, Version)>, Error> {
        self.backend.read(SMALL_OBJECT_MAX_BYTES).await
    }

    /// Returns the length of the object; `None` without one.
    ///
    /// # Errors
    /// Returns [`Error::NoBucket`] if the whole bucket is missing, or the store's error.
    pub async fn size(&self) -> Result<Option<u64>, Error> {
        self.backend.size().await
    }

    /// Writes an object, replacing any other. It appears as a whole; directories are created.
    ///
    /// # Errors
    /// Returns an error such as [`Error::NotAllowed`], [`Error::DiskFull`], [`Error::NoBucket`] or
    /// [`Error::ReadOnly`].
    pub async fn put(&self, bytes: Bytes, kind: ObjectKind<'_>) -> Result<(), Error> {
        self.backend.put(bytes, kind).await
    }

    /// Writes a local file as an object, replacing any other; memory stays flat.
    ///
    /// # Errors
    /// Returns the errors of [`Location::put`], and [`Error::LocalFile`] for the local file.
    pub async fn put_file(&self, file: &Path, kind: ObjectKind<'_>) -> Result<(), Error> {
        self.backend.put_file(file, kind).await
    }

    /// Creates an object if there is none; of many concurrent calls, one succeeds.
    ///
    /// # Errors
    /// Returns the errors of [`Location::put`].
    pub async fn create(&self, bytes: Bytes, kind: ObjectKind<'_>) -> Result<PutOutcome, Error> {
        self.backend.create(bytes, kind).await
    }

    /// Replaces an object if it still has the expected version (`None`: if there is none); of many concurrent
    /// calls, one succeeds.
    ///
    /// # Errors
    /// Returns the errors of [`Location::put`]. After [`Error::Unreachable`] the object may have been
    /// replaced or not: read it.
    pub async fn replace(
        &self,
        bytes: Bytes,
        kind: ObjectKind<'_>,
        expected: Option<&Version>,
    ) -> Result<PutOutcome, Error> {
        self.backend.replace(bytes, kind, expected).await
    }

    /// Lists the objects below this location, at any depth, in no particular order.
    pub fn list(&self) -> BoxStream<'static, Result<Entry, Error>> {
        self.backend.list()
    }

    /// Deletes the object; a missing one is fine.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn delete(&self) -> Result<(), Error> {
        self.backend.delete().await
    }

    /// Removes temporary files of killed writers below this location that are at least this old, and returns
    /// their number. Listings omit them. Buckets have none: their own lifecycle rule
    /// (`AbortIncompleteMultipartUpload`) handles unfinished uploads.
    ///
    /// # Errors
    /// Returns the file system's error.
    pub async fn remove_abandoned(&self, age: Duration) -> Result<u64, Error> {
        self.backend.remove_abandoned(age).await
    }

    /// Creates a multipart upload of an object of this kind; returns its id, which the other calls take.
    ///
    /// Azure has no such ids, and takes no media type with the parts: there the object gets the store's
    /// default, `application/octet-stream`.
    ///
    /// # Errors
    /// Returns the errors of [`Location::put`].
    pub async fn create_multipart(&self, kind: ObjectKind<'_>) -> Result<String, Error> {
        self.backend.create_multipart(kind).await
    }

    /// Stores a part of `upload`, by its number from 0 and its first byte; returns the part's ETag, which
    /// completion needs. Repeating a number replaces the part.
    ///
    /// # Errors
    /// Returns the errors of [`Location::put`], and [`Error::NotFound`] if the upload is complete or aborted.
    pub async fn put_part(
        &self,
        upload: &str,
        number: usize,
        start: u64,
        bytes: Bytes,
    ) -> Result<String, Error> {
        self.backend.put_part(upload, number, start, bytes).await
    }

    /// Completes the object of `bytes` bytes from its parts. Completing it twice is fine.
    ///
    /// # Errors
    /// Returns the errors of [`Location::put`].
    pub async fn complete_multipart(&self, upload: &str, parts: &[String], bytes: u64) -> Result<(), Error> {
        match self.backend.complete_multipart(upload, parts).await {
            // The response was lost, or the caller died before it could record it.
            Err(_) if self.size().await? == Some(bytes) => Ok(()),
            completed => completed,
        }
    }

    /// Aborts a multipart upload; a missing one is fine.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn abort_multipart(&self, upload: &str) -> Result<(), Error> {
        self.backend.abort_multipart(upload).await
    }

    /// Returns whether parts can be uploaded by presigned links.
    pub fn has_part_links(&self) -> bool {
        self.backend.has_part_links()
    }

    /// Presigns links for parts of `upload`, by their numbers from 0 and lengths. They are valid for a
    /// limited time and for that length only. `None` if the store has no such links.
    ///
    /// # Errors
    /// Returns [`Error::Configuration`] if there are no credentials to sign with.
    pub async fn part_links(
        &self,
        upload: &str,
        parts: &[(usize, u64)],
        valid_for: Duration,
    ) -> Result<Option<Vec<PartLink>>, Error> {
        self.backend.part_links(upload, parts, valid_for).await
    }
}
