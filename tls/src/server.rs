//! The accepting side: a certificate that is read again when its files change.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{info, warn};

use crate::{
    error::{Error, Result},
    pem,
};

/// How long a peer may take for the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the files are looked at for changes: where certificates are renewed in place, such as by
/// cert-manager, nothing sends a signal.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// A connection after its handshake.
pub type ServerStream<S> = TlsStream<S>;

/// The files of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificate, followed by those that lead to its authority.
    pub cert: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// Authorities whose certificates clients must present; `None` if clients need none.
    pub client_ca: Option<PathBuf>,
}

/// TLS of a port. Connections that are open keep the certificate that they began with.
pub struct ServerTls {
    files: ServerFiles,
    /// Protocols above TLS that the port speaks.
    alpn: Vec<Vec<u8>>,
    loaded: ArcSwap<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    /// When the files were last written.
    written: Option<SystemTime>,
    checked: Instant,
}

impl ServerTls {
    /// Reads the files. `alpn` holds the protocols that the port speaks, such as `h2` and `http/1.1`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or if the key is not the certificate's.
    pub fn load(files: ServerFiles, alpn: &[&str]) -> Result<Self> {
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let loaded = load(&files, &alpn)?;
        Ok(Self { files, alpn, loaded: ArcSwap::from_pointee(loaded) })
    }

    /// Reads the files again. After an error the former certificate stays in use.
    ///
    /// # Errors
    /// As for [`ServerTls::load`].
    pub fn reload(&self) -> Result<()> {
        self.loaded.store(Arc::new(load(&self.files, &self.alpn)?));
        Ok(())
    }

    /// Shakes hands with a client.
    ///
    /// # Errors
    /// Returns an error if the client speaks no TLS, presents no certificate where one is required, or takes
    /// longer than ten seconds.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<ServerStream<S>> {
        self.reload_if_changed();
        let acceptor = TlsAcceptor::from(self.loaded.load().config.clone());
        timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn reload_if_changed(&self) {
        let loaded = self.loaded.load();
        if loaded.checked.elapsed() < CHECK_INTERVAL {
            return;
        }
        let unchanged = Loaded { config: loaded.config.clone(), checked: Instant::now(), ..**loaded };
        let changed = written(&self.files) != loaded.written;
        self.loaded.store(Arc::new(unchanged));
        if changed {
            match self.reload() {
                Ok(()) => info!(cert = %self.files.cert.display(), "certificate read again"),
                // Files that are being replaced do not fit for a moment.
                Err(error) => warn!(%error, "the former certificate stays in use"),
            }
        }
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Returns when the newest of the files was written; `None` if one is missing.
fn written(files: &ServerFiles) -> Option<SystemTime> {
    let paths = [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()];
    let times = paths.into_iter().flatten().map(|path| std::fs::metadata(path).ok()?.modified().ok());
    times.collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn load(files: &ServerFiles, alpn: &[Vec<u8>]) -> Result<Loaded> {
    // Before the files are read: one that changes meanwhile is read again.
    let written = written(files);
    let provider = Arc::new(ring::default_provider());
    let clients: Arc<dyn ClientCertVerifier> = match &files.client_ca {
        Some(path) => {
            let roots = Arc::new(pem::authorities(path)?);
            let failed = |detail: String| Error::Authority { path: path.clone(), detail };
            WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|e| failed(e.to_string()))?
        }
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let failed = |source| Error::Identity { cert: files.cert.clone(), key: files.key.clone(), source };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(clients)
        .with_single_cert(pem::certificates(&files.cert)?, pem::key(&files.key)?)
        .map_err(failed)?;
    config.alpn_protocols = alpn.to_vec();
    Ok(Loaded { config: Arc::new(config), written, checked: Instant::now() })
}
