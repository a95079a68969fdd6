//! The connecting side. The files are read for each connection: connections are few and long, and a renewed
//! certificate is in use from the next one on.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    error::{Error, Result},
    pem,
};

/// How long a server may take for the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection after its handshake.
pub type ClientStream<S> = TlsStream<S>;

/// The files of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Authorities that are trusted; `None` trusts those of the system.
    pub ca: Option<PathBuf>,
    /// Certificate and private key, for servers that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ClientFiles {
    /// Checks that the files can be used.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or if the key is not the certificate's.
    pub fn check(&self) -> Result<()> {
        config(self, &[]).map(drop)
    }
}

/// Shakes hands with a server, which must have a certificate for `host`: a name or an IP address. `alpn`
/// holds the protocols that are spoken, such as `h2`.
///
/// # Errors
/// Returns an error if a file cannot be used, if the server's certificate is of no trusted authority or of
/// another name, or if the server takes longer than ten seconds.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    files: &ClientFiles,
    host: &str,
    alpn: &[&str],
    stream: S,
) -> io::Result<ClientStream<S>> {
    let config = config(files, alpn).map_err(io::Error::other)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{host} is no name that a certificate can have"))
    })?;
    timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(Arc::new(config)).connect(name, stream))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn config(files: &ClientFiles, alpn: &[&str]) -> Result<ClientConfig> {
    let roots = match &files.ca {
        Some(path) => pem::authorities(path)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Authority { path: PathBuf::new(), detail: e.to_string() })?
        .with_root_certificates(roots);
    let mut config = match &files.identity {
        Some((cert, key)) => {
            let failed = |source| Error::Identity { cert: cert.clone(), key: key.clone(), source };
            builder.with_client_auth_cert(pem::certificates(cert)?, pem::key(key)?).map_err(failed)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(config)
}

fn system_roots() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // Single certificates of a system are often malformed; the others serve.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(Error::NoRoots) } else { Ok(roots) }
}
