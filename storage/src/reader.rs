//! `SourceReader`: ranged reads of exactly the version that was opened.

use std::{
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta};

use super::{
    Location,
    backend::{Opened, ReadMode},
    blocking::blocking,
    error::Error,
    files,
    pinning::tag,
};

/// Largest range of one request: large enough that latency does not matter, small enough that a broken
/// request costs little and that a slow connection finishes it within the time limit.
const FETCH_BYTES: u64 = 8 * 1024 * 1024;

/// Concurrent requests of one read or one save. One connection to S3 has about 50 to 90 MB/s; four fill a
/// gigabit line.
const FETCHES_AT_ONCE: usize = 4;

/// Longest time without a byte in the download of a whole object.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Bytes of sources that this process has read from stores.
static BYTES_READ: AtomicU64 = AtomicU64::new(0);

/// Returns the bytes of sources that this process has read from stores so far: a counter for metrics.
pub fn bytes_read() -> u64 {
    BYTES_READ.load(Ordering::Relaxed)
}

/// A pinned version of a source: every read during a job returns the same bytes.
#[derive(Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Source {
    /// Absolute URI: `file:///…`, `s3://…`, `gs://…`, `az://…`, `http(s)://…`. A presigned link is a secret:
    /// display [`Source::redacted_uri`].
    pub uri: String,
    /// The store's ETag, or size and modification time if it has none.
    pub etag: String,
    /// Length in bytes.
    pub bytes: u64,
}

impl Source {
    /// Returns the URI for display: without credentials and without the query of a presigned link.
    pub fn redacted_uri(&self) -> String {
        super::address::redact(&self.uri)
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("uri", &self.redacted_uri())
            .field("etag", &self.etag)
            .field("bytes", &self.bytes)
            .finish()
    }
}

/// A source that is opened for reading. Every read is conditional on the ETag at the time of opening.
#[derive(Debug, Clone)]
pub struct SourceReader {
    location: Location,
    source: Source,
    mode: ReadMode,
    bytes_read: Arc<AtomicU64>,
}

impl SourceReader {
    pub(crate) async fn open(location: Location) -> Result<Self, Error> {
        let Opened { etag, bytes, mode } = location.backend().open().await?;
        let source = Source { uri: location.uri().to_owned(), etag, bytes };
        Ok(Self { location, source, mode, bytes_read: Arc::default() })
    }

    /// Returns the version that was opened.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Returns the location of the source.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Returns the path of a local source, which need not be copied.
    pub fn local_path(&self) -> Option<&Path> {
        match &self.mode {
            ReadMode::File(path) => Some(path),
            _ => None,
        }
    }

    /// Returns whether the source can only be read as a whole: on web servers without ranges, or with neither
    /// ETag nor Last-Modified, where two reads may return different versions. The caller calls [`Self::save`]
    /// once, and works on the copy.
    pub fn must_download(&self) -> bool {
        matches!(self.mode, ReadMode::Whole)
    }

    /// Returns the bytes read through this reader and its clones.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Reads a range, with concurrent requests if it is long. The whole range is held in memory: the caller
    /// limits it.
    ///
    /// # Errors
    /// Returns [`Error::SourceChanged`] if the object has changed since it was opened, [`Error::OutOfRange`]
    /// if the range does not lie in it, [`Error::NoRanges`] if [`Self::must_download`], or the store's error.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let Range { start, end } = range;
        if start > end || end > self.source.bytes {
            return Err(Error::OutOfRange {
                uri: self.location.to_string(),
                start,
                end,
                bytes: self.source.bytes,
            });
        }
        if end - start <= FETCH_BYTES {
            return self.fetch(start..end).await;
        }
        let mut whole = BytesMut::new();
        let mut pieces =
            stream::iter(pieces(start..end)).map(|piece| self.fetch(piece)).buffered(FETCHES_AT_ONCE);
        while let Some(piece) = pieces.try_next().await? {
            // Grown by the received bytes, not by the requested ones.
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Writes the whole source to a file, which appears when it is complete; memory stays flat.
    ///
    /// # Errors
    /// Returns the errors of [`Self::read`], and [`Error::LocalFile`] and [`Error::DiskFull`] for the file.
    pub async fn save(&self, path: &Path) -> Result<(), Error> {
        let directory = path.parent().unwrap_or(path).to_owned();
        let staged =
            blocking(move || tempfile::Builder::new().prefix(files::HIDDEN_PREFIX).tempfile_in(directory));
        let staged = staged.await.map_err(|e| Error::file(path, e))?;
        let file = Arc::new(staged.as_file().try_clone().map_err(|e| Error::file(path, e))?);
        let write = async |at: u64, bytes: Bytes| {
            let file = Arc::clone(&file);
            blocking(move || file.write_all_at(&bytes, at)).await.map_err(|e| Error::file(path, e))
        };
        match &self.mode {
            ReadMode::File(from) => self.copy(from, path, &staged).await?,
            ReadMode::Ranges { .. } => {
                let saved = stream::iter(pieces(0..self.source.bytes)).map(|piece| async {
                    let at = piece.start;
                    write(at, self.fetch(piece).await?).await
                });
                saved.buffer_unordered(FETCHES_AT_ONCE).try_collect::<()>().await?;
            }
            ReadMode::Whole => {
                let result = self.download().await?;
                let mut chunks = result.into_stream();
                let mut at = 0;
                loop {
                    let next = tokio::time::timeout(IDLE_MAX, chunks.try_next()).await;
                    let next = next.map_err(|_| Error::Unreachable {
                        uri: self.location.to_string(),
                        detail: "the download stalled".to_owned(),
                    })?;
                    let Some(chunk) = next.map_err(|e| self.location.backend().remote(&e))? else { break };
                    self.count(chunk.len() as u64);
                    let length = chunk.len() as u64;
                    // A server that sends more than the declared length must not fill the disk.
                    if at + length > self.source.bytes {
                        return Err(self.changed());
                    }
                    write(at, chunk).await?;
                    at += length;
                }
                if at != self.source.bytes {
                    return Err(self.changed());
                }
            }
        }
        staged.persist(path).map(|_| ()).map_err(|e| Error::file(path, e.error))
    }

    /// Sends one request, for at most [`FETCH_BYTES`], except from a file.
    async fn fetch(&self, range: Range<u64>) -> Result<Bytes, Error> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let bytes = match &self.mode {
            ReadMode::File(path) => {
                let (path, pinned, range) = (path.clone(), self.source.etag.clone(), range.clone());
                let read = blocking(move || files::read_range(&path, &pinned, range)).await;
                Bytes::from(
                    read.map_err(|e| self.location.backend().system(e))?.ok_or_else(|| self.changed())?,
                )
            }
            ReadMode::Ranges { client, key, condition } => {
                let options =
                    GetOptions { range: Some(GetRange::Bounded(range.clone())), ..condition.clone() };
                let result = client
                    .store
                    .get_opts(key, options)
                    .await
                    .map_err(|e| self.location.backend().remote(&e))?;
                self.check(&result.meta)?;
                result.bytes().await.map_err(|e| self.location.backend().remote(&e))?
            }
            ReadMode::Whole => return Err(Error::NoRanges { uri: self.location.to_string() }),
        };
        self.count(bytes.len() as u64);
        Ok(bytes)
    }

    async fn copy(&self, from: &Path, path: &Path, staged: &tempfile::NamedTempFile) -> Result<(), Error> {
        let mut file = staged.as_file().try_clone().map_err(|e| Error::file(path, e))?;
        let (from, pinned) = (from.to_owned(), self.source.etag.clone());
        let same = blocking(move || files::copy_pinned(&from, &pinned, &mut file))
            .await
            .map_err(|e| Error::file(path, e))?;
        if !same {
            return Err(self.changed());
        }
        self.count(self.source.bytes);
        Ok(())
    }

    async fn download(&self) -> Result<GetResult, Error> {
        let result = self.location.backend().download().await?;
        self.check(&result.meta)?;
        Ok(result)
    }

    /// Checks that a response is of the opened version. Detects servers that ignore the condition.
    fn check(&self, meta: &ObjectMeta) -> Result<(), Error> {
        if tag(meta).unwrap_or_default() == self.source.etag && meta.size == self.source.bytes {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    fn changed(&self) -> Error {
        Error::SourceChanged { uri: self.location.to_string() }
    }

    fn count(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        BYTES_READ.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Splits a range into pieces of at most [`FETCH_BYTES`].
fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = range;
    let count = (end - start).div_ceil(FETCH_BYTES);
    (0..count).map(move |i| start + i * FETCH_BYTES..end.min(start + (i + 1) * FETCH_BYTES))
}

/// Ranged reads of one pinned source.
pub trait ReadAt: Send + Sync {
    /// Returns the length of the source in bytes.
    fn len(&self) -> u64;

    /// Returns whether the source is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads exactly the bytes of `range`, which lies within the source.
    fn read_at(&self, range: Range<u64>) -> impl Future<Output = Result<Bytes, Error>> + Send;
}

impl ReadAt for SourceReader {
    fn len(&self) -> u64 {
        self.source().bytes
    }

    async fn read_at(&self, range: Range<u64>) -> Result<Bytes, Error> {
        self.read(range).await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_cover_a_range_once_and_are_bounded(start in 0..1_u64 << 40, length in 0..1_u64 << 30) {
            let mut at = start;
            for piece in pieces(start..start + length) {
                prop_assert_eq!(piece.start, at);
                prop_assert!(!piece.is_empty() && piece.end - piece.start <= FETCH_BYTES);
                at = piece.end;
            }
            prop_assert_eq!(at, start + length);
        }
    }

    #[test]
    fn a_source_is_shown_without_its_signature() {
        let source =
            Source { uri: "https://host/a.mp4?X-Amz-Signature=abc".into(), etag: "e".into(), bytes: 1 };
        assert!(!format!("{source:?}").contains("abc"));
    }
}
