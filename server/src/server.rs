//! Server: starts and stops the HTTP listener and the background tasks.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use spool_jobs::{CleanupQueue, CredentialStore, JobStore, UploadStore, WatchStore, WebhookStore};
use spool_storage::Stores;
use spool_tls::ServerTls;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    app_state::{AppState, JobCounts, event_stream_limit},
    auth::{
        authenticate::{AuthMode, Authenticator},
        oidc::{Oidc, Provider},
        path_policy::PathPolicies,
        signed_links::LinkSigner,
    },
    background::{
        cleanup::Cleanup,
        webhook_delivery::{WebhookDelivery, WebhookTargets},
    },
    connections::{self, Port},
    ingest::{sqs, watcher::Watcher},
    query::service::QueryService,
    routes,
    uploads::service::UploadService,
};

/// Time that requests in progress get to end after shutdown begins.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of a server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address to listen on; port 0 chooses a free port.
    pub listen: SocketAddr,
    /// TLS of the port; `None` for plain text.
    pub tls: Option<Arc<ServerTls>>,
    /// Folder or URI prefix below which videos without a destination are published.
    pub media: Option<String>,
    /// Folder or URI prefix of uploads.
    pub uploads: String,
    /// Requests that require a credential.
    pub auth: AuthMode,
    /// Identity provider whose tokens are accepted beside API keys.
    pub oidc: Option<Oidc>,
    /// Addresses that webhooks may have.
    pub webhook_targets: WebhookTargets,
    /// Grace period of garbage collection below the media prefix: after that time an unreferenced part gets a
    /// tombstone, and after as long again it is deleted. Must be longer than the longest job. `None` disables
    /// it.
    pub gc_grace: Option<Duration>,
}

/// Failure of a server, at its start or later.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is reachable from other hosts, and no credential would be required.
    #[error(
        "refusing to listen on {address} without authentication; add --auth keys (`spool keys create` makes \
         a key), or listen on 127.0.0.1 or [::1]"
    )]
    Open {
        /// The address.
        address: SocketAddr,
    },
    /// The HTTP client for the identity provider or for webhooks could not be created.
    #[error("failed to set up an HTTP client: {source}")]
    Client {
        /// The cause.
        source: reqwest::Error,
    },
    /// The threads of queries could not be started.
    #[error("failed to start the threads of queries: {source}")]
    Threads {
        /// The system's error.
        source: std::io::Error,
    },
    /// The port could not be bound, or was lost.
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
}

/// A running server. Dropping it stops it.
pub struct Server {
    address: SocketAddr,
    has_tls: bool,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts a server on the database `job_store`; it reads and writes objects through `object_stores`.
    ///
    /// # Errors
    /// Returns [`Error::Open`] for an address beyond loopback without authentication, and failures of the
    /// listener or of HTTP clients.
    pub async fn start<
        S: JobStore + UploadStore + CleanupQueue + CredentialStore + WebhookStore + WatchStore,
    >(
        settings: &Settings,
        job_store: Arc<S>,
        object_stores: Stores,
    ) -> Result<Self, Error> {
        let address = settings.listen;
        if settings.auth == AuthMode::None && !address.ip().is_loopback() {
            return Err(Error::Open { address });
        }
        let listen_error = |source| Error::Listen { address, source };
        let listener = connections::bind(address).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let shutdown = CancellationToken::new();
        let state = app_state(settings, job_store.clone(), object_stores.clone(), shutdown.clone())?;
        spawn_background_tasks(settings, &state, job_store, object_stores);
        let limit = state.connections.clone();
        let task = tokio::spawn(connections::serve(
            Port { listener, tls: settings.tls.clone() },
            routes::router(state),
            limit,
            shutdown.clone(),
        ));
        Ok(Self { address, has_tls: settings.tls.is_some(), shutdown, task })
    }

    /// Returns the address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of the API, without a slash at its end.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.has_tls { "https" } else { "http" }, self.address)
    }

    /// Waits until the server stops by itself, which happens only on an error.
    pub async fn stopped(&mut self) -> Error {
        let source = match (&mut self.task).await {
            Ok(()) => std::io::ErrorKind::NotConnected.into(),
            Err(error) => std::io::Error::other(error),
        };
        Error::Listen { address: self.address, source }
    }

    /// Accepts no more requests, and returns once those in progress have ended.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        if timeout(SHUTDOWN_TIMEOUT, &mut self.task).await.is_err() {
            warn!("shut down with requests in progress");
        }
    }
}

fn app_state<S: JobStore + UploadStore + CredentialStore + WebhookStore + WatchStore>(
    settings: &Settings,
    job_store: Arc<S>,
    object_stores: Stores,
    shutdown: CancellationToken,
) -> Result<AppState, Error> {
    let client_error = |source| Error::Client { source };
    let provider = settings.oidc.clone().map(Provider::new).transpose().map_err(client_error)?;
    let webhook_delivery =
        WebhookDelivery::new(job_store.clone(), settings.webhook_targets).map_err(client_error)?;
    let media = settings.media.as_deref();
    let path_policies = PathPolicies::new(settings.auth, job_store.clone(), &settings.uploads, media);
    let watcher = Watcher {
        job_store: job_store.clone(),
        watch_store: job_store.clone(),
        path_policies: path_policies.clone(),
        object_stores: object_stores.clone(),
        media_root: media.map(Arc::from),
        uploads_root: Arc::from(settings.uploads.as_str()),
    };
    Ok(AppState {
        credentials: job_store.clone(),
        auth: Authenticator::new(settings.auth, job_store.clone(), provider),
        path_policies,
        link_signer: LinkSigner::new(job_store.clone()),
        uploads: UploadService::new(job_store.clone(), object_stores.clone(), &settings.uploads),
        queries: QueryService::new(job_store.clone(), object_stores.clone())
            .map_err(|source| Error::Threads { source })?,
        watcher,
        webhook_store: job_store.clone(),
        webhook_delivery,
        media_root: media.map(Arc::from),
        connections: connections::limit(),
        event_streams: event_stream_limit(),
        job_counts: JobCounts::new(job_store.clone()),
        shutdown,
        job_store,
        object_stores,
    })
}

/// Starts the tasks that run beside requests, until shutdown.
fn spawn_background_tasks<S: CleanupQueue>(
    settings: &Settings,
    state: &AppState,
    job_store: Arc<S>,
    object_stores: Stores,
) {
    let cleanup = Cleanup {
        cleanup_queue: job_store,
        object_stores,
        media_root: state.media_root.clone(),
        gc_grace: settings.gc_grace,
    };
    tokio::spawn(cleanup.run(state.shutdown.clone()));
    tokio::spawn(state.uploads.clone().run_expiry(state.shutdown.clone()));
    tokio::spawn(state.webhook_delivery.clone().run(state.shutdown.clone()));
    tokio::spawn(state.watcher.clone().run(state.shutdown.clone()));
    tokio::spawn(sqs::run(state.watcher.clone(), state.shutdown.clone()));
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.task.abort();
    }
}
