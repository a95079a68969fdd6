//! Connections: accepts a limited number at a time, each with deadlines. Further connections wait in the
//! system's backlog; none is refused.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::{
    rt::{Read, Write},
    server::conn::http1,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::SockRef;
use spool_storage::{ConcurrencyLimit, ConcurrencyPermit};
use spool_tls::ServerTls;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

/// Connections at a time. Each takes some memory, even an idle one.
const MAX_CONNECTIONS: usize = 1024;

/// Connections that wait to be accepted. The system may allow fewer.
const BACKLOG: u32 = 4096;

/// Time in which a connection must send a request's head, and may stay idle between two requests: longer than
/// load balancers keep an unused connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// Time for which a client may leave sent bytes unacknowledged.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of a connection that are read ahead.
const MAX_READ_BUFFER: usize = 64 << 10;

/// Wait before accepting again when the system is out of sockets.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(500);

/// The API's port.
pub(crate) struct Port {
    pub(crate) listener: TcpListener,
    /// TLS; `None` for plain text.
    pub(crate) tls: Option<Arc<ServerTls>>,
}

/// Returns the limit on connections at a time.
pub(crate) fn limit() -> ConcurrencyLimit {
    ConcurrencyLimit::new("connections", MAX_CONNECTIONS)
}

/// Binds a listener.
///
/// # Errors
/// Returns the system's error.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Permits the port of a server that ended a moment ago.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves connections until shutdown, then waits for the requests in progress.
pub(crate) async fn serve(port: Port, router: Router, limit: ConcurrencyLimit, shutdown: CancellationToken) {
    let open = TaskTracker::new();
    let accept = async {
        loop {
            let permit = limit.acquire().await;
            match port.listener.accept().await {
                Ok((stream, _)) => {
                    drop(open.spawn(serve_connection(
                        stream,
                        port.tls.clone(),
                        router.clone(),
                        shutdown.clone(),
                        permit,
                    )));
                }
                Err(error) if concerns_one_connection(&error) => {
                    debug!(%error, "connection closed before it was accepted")
                }
                Err(error) => {
                    warn!(%error, "failed to accept connections");
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = accept => {}
    }
    // Closes the port at once, so that another process can bind it.
    drop(port);
    open.close();
    open.wait().await;
}

async fn serve_connection(
    stream: TcpStream,
    tls: Option<Arc<ServerTls>>,
    router: Router,
    shutdown: CancellationToken,
    _permit: ConcurrencyPermit,
) {
    // Responses are complete when they are written; Nagle's algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    // Ends connections whose client stopped reading, which would hold their permit.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT));
    match tls {
        None => serve_http(TokioIo::new(stream), router, shutdown).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => serve_http(TokioIo::new(stream), router, shutdown).await,
            Err(error) => debug!(%error, "handshake failed"),
        },
    }
}

async fn serve_http<S: Read + Write + Unpin + Send + 'static>(
    stream: S,
    router: Router,
    shutdown: CancellationToken,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_READ_BUFFER);
    let mut connection = pin!(builder.serve_connection(stream, TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

/// Returns whether an error of `accept` concerns one connection rather than the listener.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
