//! Writes and listings in buckets: multipart uploads with flat memory, conditional creation and replacement.

use std::{
    fs::File,
    iter::Take,
    os::unix::fs::FileExt,
    path::{Path as FilePath, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use backon::Retryable;
use bytes::Bytes;
use futures::{TryStreamExt, stream::FuturesUnordered};
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, UpdateVersion, path::Path,
};

use super::{
    backoff::Backoff,
    blocking::blocking,
    clients::Client,
    error::{Error, lacks_conditions, may_have_arrived},
    object::PutOutcome,
    object_kind::ObjectKind,
};

/// Largest upload in one request, and size of the parts of a larger one, unless there would be too many parts
/// (S3: at least 5 MiB, at most 10,000 parts).
const PART_BYTES: u64 = 8 * 1024 * 1024;
const PARTS_MAX: u64 = 10_000;

/// Parts that are sent at a time. An upload holds these and one more in memory.
const PARTS_AT_ONCE: usize = 4;

/// Largest part, and so, times [`PARTS_MAX`], the largest object: 625 GiB with 320 MiB of memory.
const PART_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Repeats of a conditional write whose response was lost. The client itself does not repeat it: such a write
/// may have arrived.
const REPEATS: usize = 2;

/// The shortest and the longest wait before such a repeat.
const REPEAT_WAIT: Duration = Duration::from_millis(500);
const REPEAT_WAIT_MAX: Duration = Duration::from_secs(4);

/// The bytes to upload.
pub(crate) enum Payload {
    Bytes(Bytes),
    File { path: PathBuf, file: Arc<File>, bytes: u64 },
}

impl Payload {
    fn bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }

    async fn part(&self, start: u64, end: u64) -> Result<Bytes, Error> {
        let (path, file) = match self {
            // Both lie within a length that is a usize.
            Self::Bytes(bytes) => return Ok(bytes.slice(start as usize..end as usize)),
            Self::File { path, file, .. } => (path, Arc::clone(file)),
        };
        let read = blocking(move || {
            let mut part = vec![0; (end - start) as usize];
            file.read_exact_at(&mut part, start).map(|()| Bytes::from(part))
        });
        read.await.map_err(|e| Error::file(path, e))
    }
}

impl Client {
    pub(crate) fn error(&self, uri: &str, error: &object_store::Error) -> Error {
        Error::remote(uri, &self.root, error)
    }

    /// Classifies a 404 response to HEAD, whose missing body cannot distinguish a missing bucket from a
    /// missing object, by a GET request.
    pub(crate) async fn missing(&self, uri: &str, key: &Path) -> Error {
        let first_byte = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
        match self.store.get_opts(key, first_byte).await {
            // The object was created in between; the earlier response is still valid.
            Ok(_) => Error::NotFound { uri: uri.to_owned() },
            Err(e) => self.error(uri, &e),
        }
    }

    /// Returns the length of an object; `None` if it does not exist. A missing bucket is an error.
    pub(crate) async fn size(&self, uri: &str, key: &Path) -> Result<Option<u64>, Error> {
        match self.store.head(key).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => match self.missing(uri, key).await {
                Error::NotFound { .. } => Ok(None),
                error => Err(error),
            },
            Err(e) => Err(self.error(uri, &e)),
        }
    }

    /// Uploads an object, replacing any other; in parts if it is large.
    pub(crate) async fn put(
        &self,
        uri: &str,
        key: &Path,
        payload: Payload,
        content: ObjectKind<'_>,
    ) -> Result<(), Error> {
        let bytes = payload.bytes();
        if bytes <= PART_BYTES {
            let payload = payload.part(0, bytes).await?;
            let result = self.put_opts(key, payload, content, PutMode::Overwrite).await;
            return result.map(|_| ()).map_err(|e| self.error(uri, &e));
        }
        let part_bytes = bytes.div_ceil(PARTS_MAX).max(PART_BYTES);
        if part_bytes > PART_MAX_BYTES {
            return Err(Error::TooLarge { uri: uri.to_owned(), bytes, limit: PART_MAX_BYTES * PARTS_MAX });
        }
        let options =
            PutMultipartOptions { attributes: content.attributes(), ..PutMultipartOptions::default() };
        let upload = self.store.put_multipart_opts(key, options).await.map_err(|e| self.error(uri, &e))?;
        let mut upload = Upload(Some(upload));
        let mut on_their_way = FuturesUnordered::new();
        let mut start = 0;
        while start < bytes {
            if on_their_way.len() == PARTS_AT_ONCE {
                on_their_way.try_next().await.map_err(|e| self.error(uri, &e))?;
            }
            let end = bytes.min(start + part_bytes);
            let part = payload.part(start, end).await?;
            if let Upload(Some(upload)) = &mut upload {
                on_their_way.push(upload.put_part(PutPayload::from_bytes(part)));
            }
            start = end;
        }
        while on_their_way.try_next().await.map_err(|e| self.error(uri, &e))?.is_some() {}
        upload.complete().await.map_err(|e| self.error(uri, &e))
    }

    /// Creates an object if there is none.
    ///
    /// A creation whose response was lost is repeated, and may then find its own object. It returns
    /// [`PutOutcome::AlreadyExists`], and the caller that reads the object reads the same bytes.
    pub(crate) async fn create(
        &self,
        uri: &str,
        key: &Path,
        bytes: Bytes,
        content: ObjectKind<'_>,
    ) -> Result<PutOutcome, Error> {
        let put = || self.put_opts(key, bytes.clone(), content, PutMode::Create);
        let no_winner = |e: &object_store::Error| matches!(e, object_store::Error::AlreadyExists { .. });
        for _ in 0..=REPEATS {
            match put.retry(repeats()).when(may_have_arrived).await {
                Ok(_) => return Ok(PutOutcome::Written),
                // 412, or S3's 409 while another creation is in progress, which may still fail.
                Err(e) if no_winner(&e) => {
                    if self.size(uri, key).await?.is_some() {
                        return Ok(PutOutcome::AlreadyExists);
                    }
                }
                Err(e) if lacks_conditions(&e) => {
                    return self.check_then_create(uri, key, bytes, content).await;
                }
                Err(e) => return Err(self.error(uri, &e)),
            }
        }
        Err(Error::Unavailable {
            uri: uri.to_owned(),
            detail: "others create and delete it at the same time".to_owned(),
        })
    }

    /// Replaces an object if it is still the expected version (`None`: if it does not exist).
    pub(crate) async fn replace(
        &self,
        uri: &str,
        key: &Path,
        bytes: Bytes,
        content: ObjectKind<'_>,
        expected: Option<&UpdateVersion>,
    ) -> Result<PutOutcome, Error> {
        let mode = || expected.map_or(PutMode::Create, |version| PutMode::Update(version.clone()));
        let put = || self.put_opts(key, bytes.clone(), content, mode());
        match put.retry(repeats()).when(may_have_arrived).await {
            Ok(_) => Ok(PutOutcome::Written),
            // A repeated write may find its own first attempt, which is no conflict: the object has the same
            // bytes.
            Err(object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. }) => {
                let present = self.read(uri, key, bytes.len() as u64).await;
                Ok(if matches!(present, Ok(Some((present, _))) if present == bytes) {
                    PutOutcome::Written
                } else {
                    PutOutcome::PreconditionFailed
                })
            }
            Err(e) if lacks_conditions(&e) => {
                self.check_then_replace(uri, key, bytes, content, expected).await
            }
            Err(e) => Err(self.error(uri, &e)),
        }
    }

    /// Reads a whole small object with its version; `None` if it does not exist.
    pub(crate) async fn read(
        &self,
        uri: &str,
        key: &Path,
        limit: u64,
    ) -> Result<Option<(Bytes, UpdateVersion)>, Error> {
        let result = match self.store.get_opts(key, GetOptions::default()).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            result => result.map_err(|e| self.error(uri, &e))?,
        };
        if result.meta.size > limit {
            return Err(Error::TooLarge { uri: uri.to_owned(), bytes: result.meta.size, limit });
        }
        let version =
            UpdateVersion { e_tag: result.meta.e_tag.clone(), version: result.meta.version.clone() };
        let bytes = result.bytes().await.map_err(|e| self.error(uri, &e))?;
        Ok(Some((bytes, version)))
    }

    /// Fallback of [`Self::create`] for stores without conditional writes: of two concurrent calls both may
    /// succeed.
    async fn check_then_create(
        &self,
        uri: &str,
        key: &Path,
        bytes: Bytes,
        content: ObjectKind<'_>,
    ) -> Result<PutOutcome, Error> {
        self.warn_check_then_put();
        if self.size(uri, key).await?.is_some() {
            return Ok(PutOutcome::AlreadyExists);
        }
        let result = self.put_opts(key, bytes, content, PutMode::Overwrite).await;
        result.map(|_| PutOutcome::Written).map_err(|e| self.error(uri, &e))
    }

    /// Fallback of [`Self::replace`]: of two concurrent calls the later one wins, and neither detects a
    /// conflict.
    async fn check_then_replace(
        &self,
        uri: &str,
        key: &Path,
        bytes: Bytes,
        content: ObjectKind<'_>,
        expected: Option<&UpdateVersion>,
    ) -> Result<PutOutcome, Error> {
        self.warn_check_then_put();
        let present = match self.store.head(key).await {
            Ok(meta) => Some(meta.e_tag),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(e) => return Err(self.error(uri, &e)),
        };
        if present != expected.map(|version| version.e_tag.clone()) {
            return Ok(PutOutcome::PreconditionFailed);
        }
        let result = self.put_opts(key, bytes, content, PutMode::Overwrite).await;
        result.map(|_| PutOutcome::Written).map_err(|e| self.error(uri, &e))
    }

    fn warn_check_then_put(&self) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                store = %self.root,
                "this store has no conditional writes: two publishers at the same moment may overwrite each other, \
                 and a row that runs twice may leave a second set of objects; run one job per destination at a time"
            );
        }
    }

    async fn put_opts(
        &self,
        key: &Path,
        bytes: Bytes,
        content: ObjectKind<'_>,
        mode: PutMode,
    ) -> object_store::Result<PutResult> {
        let options = PutOptions { mode, attributes: content.attributes(), ..PutOptions::default() };
        self.store.put_opts(key, PutPayload::from_bytes(bytes), options).await
    }
}

/// Opens a file for an upload.
pub(crate) async fn open_payload(path: &FilePath) -> Result<Payload, Error> {
    let owned = path.to_owned();
    let opened = blocking(move || {
        let file = File::open(&owned)?;
        let bytes = file.metadata()?.len();
        Ok(Payload::File { path: owned, file: Arc::new(file), bytes })
    });
    opened.await.map_err(|e| Error::file(path, e))
}

/// An upload in parts. If it is dropped before it is complete, it is aborted: invisible parts cost money
/// until they are aborted.
struct Upload(Option<Box<dyn MultipartUpload>>);

impl Upload {
    async fn complete(mut self) -> object_store::Result<()> {
        if let Some(upload) = &mut self.0 {
            upload.complete().await?;
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut upload) = self.0.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Err(error) = upload.abort().await {
                tracing::debug!(%error, "an upload in parts could not be aborted");
            }
        });
    }
}

fn repeats() -> Take<Backoff> {
    Backoff::new(REPEAT_WAIT, REPEAT_WAIT_MAX).take(REPEATS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_upload_has_as_many_parts_as_there_may_be() {
        let largest = PART_MAX_BYTES * PARTS_MAX;
        assert_eq!(largest.div_ceil(PARTS_MAX), PART_MAX_BYTES);
        assert_eq!(largest.div_ceil(largest.div_ceil(PARTS_MAX)), PARTS_MAX);
    }
}
