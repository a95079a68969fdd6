//! Ports that a role opens: TLS beyond loopback, and certificates that SIGHUP reads again.

use std::{net::SocketAddr, sync::Arc};

use spool_tls::ServerTls;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::{args::ServerTlsArgs, error::CliError};

/// Returns the TLS of a port, `None` without. Its certificate is read again on SIGHUP. `alpn` holds the
/// protocols that the port speaks.
///
/// # Errors
/// Returns an error for an address beyond loopback without TLS, unless the flags allow it: credentials would
/// cross the network in plain text.
pub fn tls(
    address: SocketAddr,
    args: &ServerTlsArgs,
    alpn: &[&str],
) -> Result<Option<Arc<ServerTls>>, CliError> {
    let Some(files) = args.files() else {
        if address.ip().is_loopback() || args.insecure {
            return Ok(None);
        }
        return Err(CliError::Usage(format!(
            "refusing to listen on {address} without TLS, because credentials would cross the network in plain \
             text: add --tls-cert and --tls-key (`spool tls init` makes them), listen on 127.0.0.1 or [::1], or \
             add --insecure where something else encrypts"
        )));
    };
    let tls = Arc::new(ServerTls::load(files, alpn)?);
    tokio::spawn(reload_on_hangup(tls.clone()));
    Ok(Some(tls))
}

async fn reload_on_hangup(tls: Arc<ServerTls>) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        match tls.reload() {
            Ok(()) => info!("certificate read again"),
            Err(error) => warn!(%error, "the former certificate stays in use"),
        }
    }
}
