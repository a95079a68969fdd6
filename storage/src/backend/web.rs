//! The backend of `http` and `https` sources, which are read-only.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    GetOptions, GetResult,
    path::{Path as Key, PathPart},
};
use url::Url;

use super::{Backend, Opened, pin};
use crate::{
    address::redact,
    clients::Clients,
    error::Error,
    object::{Entry, Version},
    pinning,
};

/// One URL. It has its own client: the URL is the client's base, so that its query is kept, and the key is
/// empty.
#[derive(Debug, Clone)]
pub(crate) struct WebBackend {
    clients: Clients,
    url: Url,
    redacted: String,
}

impl WebBackend {
    pub(crate) fn new(clients: Clients, url: Url, redacted: String) -> Self {
        Self { clients, url, redacted }
    }
}

#[async_trait]
impl Backend for WebBackend {
    fn redacted(&self) -> &str {
        &self.redacted
    }

    fn child(&self, parts: Vec<PathPart<'_>>) -> (String, Arc<dyn Backend>) {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
            for part in &parts {
                path.push(part.as_ref());
            }
        }
        let (uri, redacted) = (url.to_string(), redact(url.as_str()));
        (uri, Arc::new(Self::new(self.clients.clone(), url, redacted)))
    }

    async fn open(&self) -> Result<Opened, Error> {
        let client = &self.clients.web(&self.url)?;
        let (meta, has_ranges) =
            pinning::probe(client).await.map_err(|e| client.error(&self.redacted, &e))?;
        Ok(pin(client, &Key::default(), &meta, has_ranges))
    }

    async fn download(&self) -> Result<GetResult, Error> {
        let client = self.clients.web_unlimited(&self.url)?;
        let result = client.store.get_opts(&Key::default(), GetOptions::default()).await;
        result.map_err(|e| self.remote(&e))
    }

    async fn read(&self, limit: u64) -> Result<Option<(Bytes, Version)>, Error> {
        let read = self.clients.web(&self.url)?.read(&self.redacted, &Key::default(), limit).await?;
        Ok(read.map(|(bytes, version)| (bytes, Version(version))))
    }

    async fn size(&self) -> Result<Option<u64>, Error> {
        match pinning::probe(&*self.clients.web(&self.url)?).await {
            Ok((meta, _)) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.remote(&e)),
        }
    }

    fn list(&self) -> BoxStream<'static, Result<Entry, Error>> {
        stream::iter([Err(self.read_only())]).boxed()
    }
}
