//! The backend of buckets: S3, Google Cloud Storage, Azure.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    ObjectStoreExt, PutMultipartOptions, PutPayload,
    multipart::{MultipartStore, PartId},
    path::{Path as Key, PathPart},
};

use super::{Backend, Opened, pin};
use crate::{
    address::{key_uri, redact},
    bucket_client::{Payload, open_payload},
    clients::Client,
    error::Error,
    object::{Entry, PutOutcome, Version},
    object_kind::ObjectKind,
    pinning,
    presign::{self, PartLink},
    wire::UploadIdSlot,
};

/// An object in a bucket, or a prefix.
#[derive(Debug, Clone)]
pub(crate) struct BucketBackend {
    client: Arc<Client>,
    key: Key,
    redacted: String,
}

impl BucketBackend {
    pub(crate) fn new(client: Arc<Client>, key: Key, redacted: String) -> Self {
        Self { client, key, redacted }
    }

    fn multipart(&self) -> Result<&Arc<dyn MultipartStore>, Error> {
        self.client.pieces.as_ref().ok_or_else(|| self.read_only())
    }
}

#[async_trait]
impl Backend for BucketBackend {
    fn redacted(&self) -> &str {
        &self.redacted
    }

    fn child(&self, parts: Vec<PathPart<'_>>) -> (String, Arc<dyn Backend>) {
        let key = self.key.parts().chain(parts).collect();
        let uri = key_uri(&self.client.root, &key);
        let backend = Self::new(Arc::clone(&self.client), key, redact(&uri));
        (uri, Arc::new(backend))
    }

    async fn open(&self) -> Result<Opened, Error> {
        match self.client.store.head(&self.key).await {
            Ok(meta) => Ok(pin(&self.client, &self.key, &meta, true)),
            Err(object_store::Error::NotFound { .. }) => {
                Err(self.client.missing(&self.redacted, &self.key).await)
            }
            Err(e) => Err(self.remote(&e)),
        }
    }

    async fn read(&self, limit: u64) -> Result<Option<(Bytes, Version)>, Error> {
        let read = self.client.read(&self.redacted, &self.key, limit).await?;
        Ok(read.map(|(bytes, version)| (bytes, Version(version))))
    }

    async fn size(&self) -> Result<Option<u64>, Error> {
        self.client.size(&self.redacted, &self.key).await
    }

    async fn put(&self, bytes: Bytes, kind: ObjectKind<'_>) -> Result<(), Error> {
        self.client.put(&self.redacted, &self.key, Payload::Bytes(bytes), kind).await
    }

    async fn put_file(&self, file: &Path, kind: ObjectKind<'_>) -> Result<(), Error> {
        self.client.put(&self.redacted, &self.key, open_payload(file).await?, kind).await
    }

    async fn create(&self, bytes: Bytes, kind: ObjectKind<'_>) -> Result<PutOutcome, Error> {
        self.client.create(&self.redacted, &self.key, bytes, kind).await
    }

    async fn replace(
        &self,
        bytes: Bytes,
        kind: ObjectKind<'_>,
        expected: Option<&Version>,
    ) -> Result<PutOutcome, Error> {
        let expected = expected.map(|version| &version.0);
        self.client.replace(&self.redacted, &self.key, bytes, kind, expected).await
    }

    fn list(&self) -> BoxStream<'static, Result<Entry, Error>> {
        let (backend, prefix) = (self.clone(), self.key.clone());
        let listed = self.client.store.list((!prefix.is_root()).then_some(&prefix));
        let entries = listed.map(move |meta| {
            let meta = meta.map_err(|e| backend.remote(&e))?;
            let below = meta.location.prefix_match(&prefix).into_iter().flatten();
            let relative = below.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            let etag = pinning::tag(&meta).unwrap_or_default();
            Ok(Entry { relative, bytes: meta.size, modified: meta.last_modified.into(), etag })
        });
        entries.boxed()
    }

    async fn delete(&self) -> Result<(), Error> {
        match self.client.store.delete(&self.key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.remote(&e)),
        }
    }

    async fn create_multipart(&self, kind: ObjectKind<'_>) -> Result<String, Error> {
        self.multipart()?;
        // `MultipartStore::create_multipart` takes no attributes, and `put_multipart_opts` does not return
        // the id: it is read from the HTTP response.
        let (slot, mut options) = (UploadIdSlot::default(), PutMultipartOptions::default());
        options.attributes = kind.attributes();
        options.extensions.insert(slot.clone());
        let created = self.client.store.put_multipart_opts(&self.key, options).await;
        created.map_err(|e| self.remote(&e))?;
        Ok(slot.take())
    }

    async fn put_part(
        &self,
        upload: &str,
        number: usize,
        _start: u64,
        bytes: Bytes,
    ) -> Result<String, Error> {
        let payload = PutPayload::from_bytes(bytes);
        let put = self.multipart()?.put_part(&self.key, &upload.to_owned(), number, payload).await;
        put.map(|part| part.content_id).map_err(|e| self.remote(&e))
    }

    async fn complete_multipart(&self, upload: &str, parts: &[String]) -> Result<(), Error> {
        let parts = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        let completed = self.multipart()?.complete_multipart(&self.key, &upload.to_owned(), parts).await;
        completed.map(drop).map_err(|e| self.remote(&e))
    }

    async fn abort_multipart(&self, upload: &str) -> Result<(), Error> {
        match self.multipart()?.abort_multipart(&self.key, &upload.to_owned()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.remote(&e)),
        }
    }

    fn has_part_links(&self) -> bool {
        self.client.amazon.is_some()
    }

    async fn part_links(
        &self,
        upload: &str,
        parts: &[(usize, u64)],
        valid_for: Duration,
    ) -> Result<Option<Vec<PartLink>>, Error> {
        presign::part_links(&self.client, &self.key, &self.redacted, upload, parts, valid_for).await
    }

    fn remote(&self, error: &object_store::Error) -> Error {
        self.client.error(&self.redacted, error)
    }
}
