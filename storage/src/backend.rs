//! `Backend`: the operations on one object in one kind of store; one file per kind.

pub(crate) mod bucket;
pub(crate) mod local;
pub(crate) mod web;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::{
    GetOptions, GetResult, ObjectMeta,
    path::{Path as Key, PathPart},
};

use crate::{
    clients::Client,
    error::Error,
    object::{Entry, PutOutcome, Version},
    object_kind::ObjectKind,
    pinning,
    presign::PartLink,
};

/// Mode of reading a source.
#[derive(Debug, Clone)]
pub(crate) enum ReadMode {
    /// A local file.
    File(PathBuf),
    /// Ranges of an object, each under a condition.
    Ranges { client: Arc<Client>, key: Key, condition: GetOptions },
    /// The whole object, from start to end.
    Whole,
}

/// A version of an object that was opened for reading.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) etag: String,
    pub(crate) bytes: u64,
    pub(crate) mode: ReadMode,
}

/// The operations on one object, or on the objects below a prefix. Defaults are those of a read-only store.
#[async_trait]
pub(crate) trait Backend: fmt::Debug + Send + Sync {
    /// Returns the URI for messages, without secrets.
    fn redacted(&self) -> &str;

    /// Returns the URI and the backend of a location below this one.
    fn child(&self, parts: Vec<PathPart<'_>>) -> (String, Arc<dyn Backend>);

    /// Returns the path of a local file.
    fn local_path(&self) -> Option<&Path> {
        None
    }

    /// Opens the current version of the object.
    async fn open(&self) -> Result<Opened, Error>;

    /// Starts a download of the whole object, for stores without ranges.
    async fn download(&self) -> Result<GetResult, Error> {
        Err(Error::NoRanges { uri: self.redacted().to_owned() })
    }

    /// Reads a small object; `None` without one.
    async fn read(&self, limit: u64) -> Result<Option<(Bytes, Version)>, Error>;

    /// Returns the length of the object; `None` without one.
    async fn size(&self) -> Result<Option<u64>, Error>;

    /// Writes an object, replacing any other.
    async fn put(&self, _bytes: Bytes, _kind: ObjectKind<'_>) -> Result<(), Error> {
        Err(self.read_only())
    }

    /// Writes a local file as an object, replacing any other.
    async fn put_file(&self, _file: &Path, _kind: ObjectKind<'_>) -> Result<(), Error> {
        Err(self.read_only())
    }

    /// Creates an object if there is none.
    async fn create(&self, _bytes: Bytes, _kind: ObjectKind<'_>) -> Result<PutOutcome, Error> {
        Err(self.read_only())
    }

    /// Replaces the expected version of an object; without one, creates it.
    async fn replace(
        &self,
        _bytes: Bytes,
        _kind: ObjectKind<'_>,
        _expected: Option<&Version>,
    ) -> Result<PutOutcome, Error> {
        Err(self.read_only())
    }

    /// Lists the objects below this location.
    fn list(&self) -> BoxStream<'static, Result<Entry, Error>>;

    /// Deletes the object; a missing one is fine.
    async fn delete(&self) -> Result<(), Error> {
        Err(self.read_only())
    }

    /// Removes temporary files of killed writers; returns their number.
    async fn remove_abandoned(&self, _age: Duration) -> Result<u64, Error> {
        Ok(0)
    }

    /// Creates a multipart upload; returns its id.
    async fn create_multipart(&self, _kind: ObjectKind<'_>) -> Result<String, Error> {
        Err(self.read_only())
    }

    /// Stores a part; returns its ETag.
    async fn put_part(
        &self,
        _upload: &str,
        _number: usize,
        _start: u64,
        _bytes: Bytes,
    ) -> Result<String, Error> {
        Err(self.read_only())
    }

    /// Completes a multipart upload.
    async fn complete_multipart(&self, _upload: &str, _parts: &[String]) -> Result<(), Error> {
        Err(self.read_only())
    }

    /// Aborts a multipart upload; a missing one is fine.
    async fn abort_multipart(&self, _upload: &str) -> Result<(), Error> {
        Err(self.read_only())
    }

    /// Returns whether parts can be uploaded by presigned links.
    fn has_part_links(&self) -> bool {
        false
    }

    /// Presigns links for parts, by their numbers from 0 and lengths; `None` without such links.
    async fn part_links(
        &self,
        _upload: &str,
        _parts: &[(usize, u64)],
        _valid_for: Duration,
    ) -> Result<Option<Vec<PartLink>>, Error> {
        Ok(None)
    }

    /// Describes a failure of the store.
    fn remote(&self, error: &object_store::Error) -> Error {
        Error::remote(self.redacted(), self.redacted(), error)
    }

    /// Describes a failure of the operating system.
    fn system(&self, error: io::Error) -> Error {
        Error::system(self.redacted(), error)
    }

    /// Returns the error of a write to a read-only store.
    fn read_only(&self) -> Error {
        Error::ReadOnly { uri: self.redacted().to_owned() }
    }
}

/// Pins the version that a store described.
fn pin(client: &Arc<Client>, key: &Key, meta: &ObjectMeta, has_ranges: bool) -> Opened {
    let tag = pinning::tag(meta);
    let mode = match &tag {
        Some(_) if has_ranges => ReadMode::Ranges {
            client: Arc::clone(client),
            key: key.clone(),
            condition: pinning::condition(meta),
        },
        _ => ReadMode::Whole,
    };
    Opened { etag: tag.unwrap_or_default(), bytes: meta.size, mode }
}
