//! How is the server started and stopped?

use std::{net::SocketAddr, sync::Arc, time::Duration};

use spool_jobs::{Access, Sources, Store, Uploads, Watches, Webhooks};
use spool_storage::Stores;
use tokio::{sync::Semaphore, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    app_state::{AppState, MAX_EVENT_STREAMS},
    auth::{
        authenticate::{AuthMode, Authenticator},
        oidc::{Oidc, Provider},
        signed_links::Links,
    },
    background::{
        cleanup::Cleanup,
        webhook_delivery::{WebhookDelivery, WebhookTargets},
    },
    connections,
    ingest::{sqs, watcher::Watcher},
    query::service::QueryService,
    routes,
    uploads::service::UploadService,
};

/// How long answers under way may take once the server leaves.
const LEAVE: Duration = Duration::from_secs(10);

/// How the server is reached, and what it serves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Folder or URI prefix for videos that come without a destination.
    pub media: Option<String>,
    /// Folder or URI prefix for what is uploaded.
    pub uploads: String,
    /// Who has to show what.
    pub auth: AuthMode,
    /// An identity provider whose tokens are taken beside keys.
    pub oidc: Option<Oidc>,
    /// Whom webhooks reach.
    pub webhook_targets: WebhookTargets,
    /// After how long parts that nothing refers to are retired, where the server keeps videos, and go after as long again; never unless given.
    /// Longer than the longest job.
    pub gc_grace: Option<Duration>,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Whoever reaches it could ask for anything.
    #[error(
        "{address} can be reached by others, and nobody is asked who they are: add --access keys (`spool keys create` makes one), or \
         listen on 127.0.0.1 or [::1]"
    )]
    Open {
        /// The address.
        address: SocketAddr,
    },
    /// Nobody can be asked, or told.
    #[error("no HTTP client can be made: {source}")]
    Client {
        /// What is wrong.
        source: reqwest::Error,
    },
    /// The port could not be bound, or was lost.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A running server. It stops when dropped.
pub struct Server {
    address: SocketAddr,
    leave: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts a server of what is in `store`; it reads what was published through `stores`.
    ///
    /// # Errors
    /// Where it must not or cannot listen.
    pub async fn start<S: Store + Uploads + Sources + Access + Webhooks + Watches>(
        settings: &Settings,
        store: Arc<S>,
        stores: Stores,
    ) -> Result<Self, Error> {
        let address = settings.listen;
        if settings.auth == AuthMode::None && !address.ip().is_loopback() {
            return Err(Error::Open { address });
        }
        let fault = |source| Error::Listen { address, source };
        let listener = connections::bind(address).map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        let leave = CancellationToken::new();
        let provider = settings
            .oidc
            .clone()
            .map(Provider::new)
            .transpose()
            .map_err(|source| Error::Client { source })?;
        let webhook_delivery = WebhookDelivery::new(store.clone(), settings.webhook_targets)
            .map_err(|source| Error::Client { source })?;
        let auth = Authenticator::new(
            settings.auth,
            store.clone(),
            provider,
            &settings.uploads,
            settings.media.as_deref(),
        );
        let uploads = UploadService::new(store.clone(), stores.clone(), &settings.uploads);
        tokio::spawn(uploads.clone().run_expiry(leave.clone()));
        tokio::spawn(webhook_delivery.clone().run(leave.clone()));
        let cleanup = Cleanup {
            sources: store.clone(),
            stores: stores.clone(),
            media: settings.media.as_deref().map(Arc::from),
            gc_grace: settings.gc_grace,
        };
        tokio::spawn(cleanup.run(leave.clone()));
        let media = settings.media.as_deref().map(Arc::from);
        let watcher = Watcher {
            store: store.clone(),
            watches: store.clone(),
            auth: auth.clone(),
            stores: stores.clone(),
            media: media.clone(),
            uploads: Arc::from(settings.uploads.as_str()),
        };
        tokio::spawn(watcher.clone().run(leave.clone()));
        tokio::spawn(sqs::run(watcher.clone(), leave.clone()));
        let router = routes::router(AppState {
            credentials: store.clone(),
            auth,
            signed_links: Links::new(store.clone()),
            queries: QueryService::new(store.clone(), stores.clone()),
            webhook_store: store.clone(),
            webhook_delivery,
            watcher,
            job_store: store,
            object_stores: stores,
            uploads,
            media_root: media,
            event_streams: Arc::new(Semaphore::new(MAX_EVENT_STREAMS)),
            job_counts: Arc::default(),
            shutdown: leave.clone(),
        });
        let task = tokio::spawn(connections::serve(listener, router, leave.clone()));
        Ok(Self { address, leave, task })
    }

    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it stops by itself, which it does only when something is wrong.
    pub async fn stopped(&mut self) -> Error {
        let source = match (&mut self.task).await {
            Ok(()) => std::io::ErrorKind::NotConnected.into(),
            Err(error) => std::io::Error::other(error),
        };
        Error::Listen { address: self.address, source }
    }

    /// Takes no more requests, and ends once those under way are answered.
    pub async fn stop(mut self) {
        self.leave.cancel();
        if timeout(LEAVE, &mut self.task).await.is_err() {
            warn!("left with requests under way");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.leave.cancel();
        self.task.abort();
    }
}
