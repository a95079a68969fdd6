//! The backend of local files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{UpdateVersion, path::PathPart};

use super::{Backend, Opened, ReadMode};
use crate::{
    address::file_uri,
    blocking::blocking,
    error::Error,
    files,
    object::{Entry, PutOutcome, SMALL_OBJECT_MAX_BYTES, Version},
    object_kind::ObjectKind,
};

/// Entries of a local listing that are read ahead.
const LISTED_AHEAD: usize = 256;

/// A local file, or a folder of them.
#[derive(Debug, Clone)]
pub(crate) struct LocalBackend {
    path: PathBuf,
    redacted: String,
}

impl LocalBackend {
    pub(crate) fn new(path: PathBuf, redacted: String) -> Self {
        Self { path, redacted }
    }

    /// Runs blocking work on the path.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let path = self.path.clone();
        blocking(move || work(&path)).await.map_err(|e| self.system(e))
    }
}

#[async_trait]
impl Backend for LocalBackend {
    fn redacted(&self) -> &str {
        &self.redacted
    }

    fn child(&self, parts: Vec<PathPart<'_>>) -> (String, Arc<dyn Backend>) {
        let path = parts.iter().fold(self.path.clone(), |path, part| path.join(part.as_ref()));
        let uri = file_uri(&path);
        (uri.clone(), Arc::new(Self::new(path, uri)))
    }

    fn local_path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    async fn open(&self) -> Result<Opened, Error> {
        let stat = self.run(files::stat).await?;
        Ok(Opened { etag: stat.tag(), bytes: stat.bytes, mode: ReadMode::File(self.path.clone()) })
    }

    async fn read(&self, limit: u64) -> Result<Option<(Bytes, Version)>, Error> {
        let read = self.run(move |path| files::read_small(path, limit)).await?;
        let bytes =
            read.transpose().map_err(|bytes| Error::TooLarge { uri: self.redacted.clone(), bytes, limit })?;
        Ok(bytes.map(|bytes| {
            let version = UpdateVersion { e_tag: Some(files::version(&bytes)), version: None };
            (Bytes::from(bytes), Version(version))
        }))
    }

    async fn size(&self) -> Result<Option<u64>, Error> {
        self.run(files::size).await
    }

    async fn put(&self, bytes: Bytes, _kind: ObjectKind<'_>) -> Result<(), Error> {
        self.run(move |path| files::put(path, files::From::Bytes(&bytes))).await
    }

    async fn put_file(&self, file: &Path, _kind: ObjectKind<'_>) -> Result<(), Error> {
        let from = file.to_owned();
        let opened = blocking(move || std::fs::File::open(&from)).await.map_err(|e| Error::file(file, e))?;
        self.run(move |path| files::put(path, files::From::File(opened))).await
    }

    async fn create(&self, bytes: Bytes, _kind: ObjectKind<'_>) -> Result<PutOutcome, Error> {
        let created = self.run(move |path| files::create(path, &bytes)).await?;
        Ok(if created { PutOutcome::Written } else { PutOutcome::AlreadyExists })
    }

    async fn replace(
        &self,
        bytes: Bytes,
        _kind: ObjectKind<'_>,
        expected: Option<&Version>,
    ) -> Result<PutOutcome, Error> {
        let expected = expected.map(|version| version.0.e_tag.clone().unwrap_or_default());
        let replace =
            move |path: &Path| files::replace(path, &bytes, expected.as_deref(), SMALL_OBJECT_MAX_BYTES);
        let replaced = self.run(replace).await?;
        Ok(if replaced { PutOutcome::Written } else { PutOutcome::PreconditionFailed })
    }

    fn list(&self) -> BoxStream<'static, Result<Entry, Error>> {
        let backend = self.clone();
        // The walk begins with the first poll, so that a listing can be created outside a runtime.
        stream::once(async move { walk(backend) }).flatten().boxed()
    }

    async fn delete(&self) -> Result<(), Error> {
        self.run(files::delete).await
    }

    async fn remove_abandoned(&self, age: Duration) -> Result<u64, Error> {
        self.run(move |path| files::remove_abandoned(path, age)).await
    }

    async fn create_multipart(&self, _kind: ObjectKind<'_>) -> Result<String, Error> {
        self.run(files::create_multipart).await
    }

    async fn put_part(
        &self,
        upload: &str,
        _number: usize,
        start: u64,
        bytes: Bytes,
    ) -> Result<String, Error> {
        let upload = upload.to_owned();
        self.run(move |path| files::put_part(path, &upload, start, &bytes)).await?;
        Ok(String::new())
    }

    async fn complete_multipart(&self, upload: &str, _parts: &[String]) -> Result<(), Error> {
        let upload = upload.to_owned();
        self.run(move |path| files::complete_multipart(path, &upload)).await
    }

    async fn abort_multipart(&self, upload: &str) -> Result<(), Error> {
        let upload = upload.to_owned();
        self.run(move |path| files::abort_multipart(path, &upload)).await
    }
}

fn walk(backend: LocalBackend) -> BoxStream<'static, Result<Entry, Error>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(LISTED_AHEAD);
    // Ends with the walk, or once the receiver is dropped.
    tokio::task::spawn_blocking(move || {
        let root = &backend.path;
        let walked = files::walk(root, files::Kind::Object, &mut |found| {
            let relative =
                found.path.strip_prefix(root).unwrap_or(&found.path).to_string_lossy().into_owned();
            let files::Found { bytes, modified, tag: etag, .. } = found;
            sender.blocking_send(Ok(Entry { relative, bytes, modified, etag })).is_ok()
        });
        if let Err(e) = walked {
            // Fails only if the receiver is gone: the listing was abandoned.
            let _ = sender.blocking_send(Err(backend.system(e)));
        }
    });
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|entry| (entry, receiver)) })
        .boxed()
}
