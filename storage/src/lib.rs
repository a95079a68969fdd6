//! Storage: reads and writes objects at local paths, in buckets and on the web. The one place that talks to
//! an object store.
//!
//! [`Stores`] finds a [`Location`] for a path or a URI; a location reads, writes, lists and deletes; a
//! [`SourceReader`] reads a large object of which no byte may change meanwhile. Local files and buckets
//! behave alike: an object appears as a whole, what was acknowledged survives, and [`Location::create`] and
//! [`Location::replace`] have one winner.

mod address;
mod backoff;
mod clients;
mod concurrency;
mod error;
mod kind;
mod local;
pub mod net;
mod object_kind;
pub mod path_policy;
mod presign;
mod profile;
pub mod read_cache;
mod reader;
mod remote;
mod upload;
mod wire;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{UpdateVersion, path::PathPart};
use url::Url;

use self::{
    address::{file_uri, key_uri},
    clients::Client,
    remote::{Payload, open_payload},
};
pub use self::{
    address::{is_within, name, redact, redact_in},
    backoff::Backoff,
    clients::Stores,
    concurrency::{ConcurrencyLimit, ConcurrencyPermit},
    error::{AddressProblem, Denial, Error},
    kind::ErrorKind,
    object_kind::ObjectKind,
    presign::{Amazon, PartLink},
    reader::{ReadAt, Source, SourceReader, bytes_read},
    upload::part_bytes,
    wire::Answer,
};

/// Largest object that [`Location::read`] takes into memory: records and playlists have some kilobytes, of a
/// day's video some megabytes.
pub const SMALL_OBJECT_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Entries of a local listing that are read ahead.
const LISTED_AHEAD: usize = 256;

/// Where an object (or a folder of them) is, and the means to reach it.
#[derive(Clone)]
pub struct Location {
    uri: String,
    shown: String,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Local(PathBuf),
    Bucket { client: Arc<Client>, key: object_store::path::Path },
    Web { stores: Stores, url: Url },
}

/// A state of a small object, as [`Location::read`] saw it; what [`Location::replace`] expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(UpdateVersion);

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
    /// Where it is under the listed location: `1080p/0-ab12.m4s`, good for [`Location::child`].
    pub relative: String,
    /// Length.
    pub bytes: u64,
    /// When it was written.
    pub modified: SystemTime,
    /// The ETag of this version, as of a [`Source`].
    pub etag: String,
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Location").field(&self.shown).finish()
    }
}

impl std::fmt::Display for Location {
    /// The URI as it may be shown: without credentials and without the query of a presigned link.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Location {
    /// Absolute URI, good for [`Stores::locate`]. A presigned link is a secret: show the location itself
    /// instead.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The last segment, decoded: the file's name. Empty for a whole bucket.
    pub fn name(&self) -> String {
        address::name(&self.uri)
    }

    /// The path, if it is one of this machine.
    pub fn local_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Local(path) => Some(path),
            _ => None,
        }
    }

    /// A location below this one: segments with `/` between them, taken literally. What is not a name (`..`,
    /// a control character) is percent-encoded, so that nothing leads out of the location.
    pub fn child(&self, relative: &str) -> Self {
        let segments = relative.split('/').filter(|segment| !segment.is_empty());
        let mut parts =
            segments.map(|segment| PathPart::parse(segment).unwrap_or_else(|_| PathPart::from(segment)));
        match &self.place {
            Place::Local(path) => {
                let path = parts.fold(path.clone(), |path, part| path.join(part.as_ref()));
                let uri = file_uri(&path);
                Self { shown: uri.clone(), uri, place: Place::Local(path) }
            }
            Place::Bucket { client, key } => {
                let key = key.parts().chain(parts).collect();
                let uri = key_uri(&client.root, &key);
                Self { shown: redact(&uri), uri, place: Place::Bucket { client: Arc::clone(client), key } }
            }
            Place::Web { stores, url } => {
                let mut url = url.clone();
                url.set_query(None);
                url.set_fragment(None);
                if let Ok(mut path) = url.path_segments_mut() {
                    path.pop_if_empty();
                    parts.by_ref().for_each(|part| {
                        path.push(part.as_ref());
                    });
                }
                Self {
                    shown: redact(url.as_str()),
                    uri: url.to_string(),
                    place: Place::Web { stores: stores.clone(), url },
                }
            }
        }
    }

    /// Opens an object to be read in ranges, and pins what it is now.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NoBucket`], [`Error::NotAFile`], [`Error::NotAllowed`],
    /// [`Error::Unreachable`], …
    pub async fn open(&self) -> Result<SourceReader, Error> {
        SourceReader::open(self.clone()).await
    }

    /// Opens an object that was pinned elsewhere: the row's side of [`Location::open`].
    ///
    /// # Errors
    /// [`Error::SourceChanged`] if it is no longer that one; otherwise as [`Location::open`].
    pub async fn open_pinned(&self, source: &Source) -> Result<SourceReader, Error> {
        let reader = self.open().await?;
        if (&reader.source().etag, reader.source().bytes) == (&source.etag, source.bytes) {
            Ok(reader)
        } else {
            Err(Error::SourceChanged { uri: self.shown.clone() })
        }
    }

    /// Reads a small object; nothing where there is none.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`SMALL_OBJECT_MAX_BYTES`]; what the store says otherwise.
    pub async fn read(&self) -> Result<Option<(Bytes, Version)>, Error> {
        let limit = SMALL_OBJECT_MAX_BYTES;
        match &self.place {
            Place::Local(path) => {
                let path = path.clone();
                let read =
                    blocking(move || local::read_small(&path, limit)).await.map_err(|e| self.system(e))?;
                let bytes = read.transpose().map_err(|bytes| Error::TooLarge {
                    uri: self.shown.clone(),
                    bytes,
                    limit,
                })?;
                Ok(bytes.map(|bytes| {
                    let version = UpdateVersion { e_tag: Some(local::version(&bytes)), version: None };
                    (Bytes::from(bytes), Version(version))
                }))
            }
            Place::Bucket { .. } | Place::Web { .. } => {
                let read = self.client()?.read(&self.shown, &self.key(), limit).await?;
                Ok(read.map(|(bytes, version)| (bytes, Version(version))))
            }
        }
    }

    /// Length of the object, nothing where there is none.
    ///
    /// # Errors
    /// What the store says; [`Error::NoBucket`] where the whole bucket is missing.
    pub async fn size(&self) -> Result<Option<u64>, Error> {
        match &self.place {
            Place::Local(path) => {
                let path = path.clone();
                blocking(move || local::size(&path)).await.map_err(|e| self.system(e))
            }
            Place::Bucket { client, key } => client.size(&self.shown, key).await,
            Place::Web { .. } => match reader::probe(&*self.client()?).await {
                Ok((meta, _)) => Ok(Some(meta.size)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(e) => Err(self.remote(&e)),
            },
        }
    }

    /// Writes an object, replacing what is there. It appears as a whole; directories are made.
    ///
    /// # Errors
    /// [`Error::NotAllowed`], [`Error::DiskFull`], [`Error::NoBucket`], [`Error::ReadOnly`], …
    pub async fn put(&self, bytes: Bytes, content: ObjectKind<'_>) -> Result<(), Error> {
        match &self.place {
            Place::Local(path) => {
                let path = path.clone();
                blocking(move || local::put(&path, local::From::Bytes(&bytes)))
                    .await
                    .map_err(|e| self.system(e))
            }
            Place::Bucket { client, key } => {
                client.put(&self.shown, key, Payload::Bytes(bytes), content).await
            }
            Place::Web { .. } => Err(self.read_only()),
        }
    }

    /// Writes a file of this machine as an object, replacing what is there; memory stays flat.
    ///
    /// # Errors
    /// As [`Location::put`]; [`Error::LocalFile`] for the file.
    pub async fn put_file(&self, file: &Path, content: ObjectKind<'_>) -> Result<(), Error> {
        match &self.place {
            Place::Local(path) => {
                let (from, to) = (file.to_owned(), path.clone());
                let opened =
                    blocking(move || std::fs::File::open(&from)).await.map_err(|e| Error::file(file, e))?;
                blocking(move || local::put(&to, local::From::File(opened))).await.map_err(|e| self.system(e))
            }
            Place::Bucket { client, key } => {
                client.put(&self.shown, key, open_payload(file).await?, content).await
            }
            Place::Web { .. } => Err(self.read_only()),
        }
    }

    /// Creates an object if there is none; of many who try, one succeeds.
    ///
    /// # Errors
    /// As [`Location::put`].
    pub async fn create(&self, bytes: Bytes, content: ObjectKind<'_>) -> Result<PutOutcome, Error> {
        match &self.place {
            Place::Local(path) => {
                let path = path.clone();
                let created =
                    blocking(move || local::create(&path, &bytes)).await.map_err(|e| self.system(e))?;
                Ok(if created { PutOutcome::Written } else { PutOutcome::AlreadyExists })
            }
            Place::Bucket { client, key } => client.create(&self.shown, key, bytes, content).await,
            Place::Web { .. } => Err(self.read_only()),
        }
    }

    /// Replaces an object if it still is the expected version (nothing: if there is none); of many who try,
    /// one succeeds.
    ///
    /// # Errors
    /// As [`Location::put`]. After [`Error::Unreachable`] the object may be either: read it.
    pub async fn replace(
        &self,
        bytes: Bytes,
        content: ObjectKind<'_>,
        expected: Option<&Version>,
    ) -> Result<PutOutcome, Error> {
        match &self.place {
            Place::Local(path) => {
                let (path, expected) =
                    (path.clone(), expected.map(|version| version.0.e_tag.clone().unwrap_or_default()));
                let write =
                    move || local::replace(&path, &bytes, expected.as_deref(), SMALL_OBJECT_MAX_BYTES);
                let replaced = blocking(write).await.map_err(|e| self.system(e))?;
                Ok(if replaced { PutOutcome::Written } else { PutOutcome::PreconditionFailed })
            }
            Place::Bucket { client, key } => {
                client.replace(&self.shown, key, bytes, content, expected.map(|version| &version.0)).await
            }
            Place::Web { .. } => Err(self.read_only()),
        }
    }

    /// Everything below this location, at any depth, in no particular order.
    pub fn list(&self) -> BoxStream<'static, Result<Entry, Error>> {
        let location = self.clone();
        match &self.place {
            // The walk begins with the first poll, so that a listing can be created outside a runtime.
            Place::Local(path) => {
                let path = path.clone();
                stream::once(async move { list_local(location, path) }).flatten().boxed()
            }
            Place::Bucket { client, key } => {
                let (client, prefix) = (Arc::clone(client), key.clone());
                let listed = client.store.list((!prefix.is_root()).then_some(&prefix));
                let entries = listed.map(move |meta| {
                    let meta = meta.map_err(|e| client.error(&location.shown, &e))?;
                    let below = meta.location.prefix_match(&prefix).into_iter().flatten();
                    let relative = below.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
                    let etag = reader::tag(&meta).unwrap_or_default();
                    Ok(Entry { relative, bytes: meta.size, modified: meta.last_modified.into(), etag })
                });
                entries.boxed()
            }
            Place::Web { .. } => stream::iter([Err(self.read_only())]).boxed(),
        }
    }

    /// Deletes the object; a missing one is fine.
    ///
    /// # Errors
    /// What the store says.
    pub async fn delete(&self) -> Result<(), Error> {
        match &self.place {
            Place::Local(path) => {
                let path = path.clone();
                blocking(move || local::delete(&path)).await.map_err(|e| self.system(e))
            }
            Place::Bucket { client, key } => {
                match object_store::ObjectStoreExt::delete(&client.store, key).await {
                    Ok(()) => Ok(()),
                    Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(e) => Err(self.remote(&e)),
                }
            }
            Place::Web { .. } => Err(self.read_only()),
        }
    }

    /// Removes temporary files of killed writers below this location that are at least this old, and returns
    /// how many files that were. Listings don't show them. In buckets there is nothing to find: an unfinished
    /// upload is for the bucket's own lifecycle rule (`AbortIncompleteMultipartUpload`).
    ///
    /// # Errors
    /// What the file system says.
    pub async fn remove_abandoned(&self, age: Duration) -> Result<u64, Error> {
        match &self.place {
            Place::Local(path) => {
                let path = path.clone();
                blocking(move || local::remove_abandoned(&path, age)).await.map_err(|e| self.system(e))
            }
            Place::Bucket { .. } | Place::Web { .. } => Ok(0),
        }
    }

    /// The key within its store; of a page of the web, whose client is the page's own, the empty one.
    fn key(&self) -> object_store::path::Path {
        match &self.place {
            Place::Bucket { key, .. } => key.clone(),
            _ => object_store::path::Path::default(),
        }
    }

    /// The client of this location; a local file has none.
    fn client(&self) -> Result<Arc<Client>, Error> {
        match &self.place {
            Place::Local(_) => Err(self.system(io::ErrorKind::Unsupported.into())),
            Place::Bucket { client, .. } => Ok(Arc::clone(client)),
            Place::Web { stores, url } => stores.web(url),
        }
    }

    fn system(&self, error: io::Error) -> Error {
        Error::system(&self.shown, error)
    }

    fn remote(&self, error: &object_store::Error) -> Error {
        let root = match &self.place {
            Place::Bucket { client, .. } => &client.root,
            Place::Web { .. } | Place::Local(_) => &self.shown,
        };
        Error::remote(&self.shown, root, error)
    }

    fn unreachable(&self, detail: &str) -> Error {
        Error::Unreachable { uri: self.shown.clone(), detail: detail.to_owned() }
    }

    fn read_only(&self) -> Error {
        Error::ReadOnly { uri: self.shown.clone() }
    }
}

fn list_local(location: Location, root: PathBuf) -> BoxStream<'static, Result<Entry, Error>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(LISTED_AHEAD);
    // Ends with the walk, or once the receiver is dropped.
    tokio::task::spawn_blocking(move || {
        let walked = local::walk(&root, local::Kind::Object, &mut |found| {
            let relative =
                found.path.strip_prefix(&root).unwrap_or(&found.path).to_string_lossy().into_owned();
            let local::Found { bytes, modified, tag: etag, .. } = found;
            sender.blocking_send(Ok(Entry { relative, bytes, modified, etag })).is_ok()
        });
        if let Err(e) = walked {
            // The receiver is gone: the listing was abandoned.
            let _ = sender.blocking_send(Err(location.system(e)));
        }
    });
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|entry| (entry, receiver)) })
        .boxed()
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}
