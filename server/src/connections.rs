//! How are connections taken? So many at a time, each with a deadline for what it asks; more of them wait in line, and none is sent away.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

/// Connections at a time: each takes some memory, also where it asks for nothing.
const CONNECTIONS: usize = 1024;

/// Connections that wait in line. The system may allow fewer.
const BACKLOG: u32 = 4096;

/// How long a connection may take to say what it asks, or be silent between two requests: longer than load balancers leave one unused.
const HEAD_WITHIN: Duration = Duration::from_secs(75);

/// How long a client may read nothing of what is sent to it.
const UNREAD: Duration = Duration::from_secs(60);

/// Bytes of a connection that are read ahead.
const READ_AHEAD: usize = 64 << 10;

/// How long is waited where the system has no more connections to give.
const AGAIN: Duration = Duration::from_millis(500);

/// Listens.
///
/// # Errors
/// What the system says.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The port of a server that has just left.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Answers until the server leaves, and then what is under way.
pub(crate) async fn serve(listener: TcpListener, router: Router, leave: CancellationToken) {
    let (turns, open) = (Arc::new(Semaphore::new(CONNECTIONS)), TaskTracker::new());
    let take = async {
        // Never closed.
        while let Ok(turn) = turns.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => drop(open.spawn(answer(stream, router.clone(), leave.clone(), turn))),
                Err(error) if is_of_one(&error) => {
                    debug!(%error, "a connection was gone before it was taken")
                }
                Err(error) => {
                    warn!(%error, "no connection can be taken");
                    sleep(AGAIN).await;
                }
            }
        }
    };
    tokio::select! {
        () = leave.cancelled() => {}
        () = take => {}
    }
    // Nobody is taken any more: others may listen there.
    drop(listener);
    open.close();
    open.wait().await;
}

async fn answer(stream: TcpStream, router: Router, leave: CancellationToken, _turn: OwnedSemaphorePermit) {
    // Answers are whole when they are written, and are not to wait for more.
    let _ = stream.set_nodelay(true);
    // Who reads nothing of an answer is gone, or wants to keep the place.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(READ_AHEAD);
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = leave.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended");
    }
}

/// Is it about one connection, and not about all?
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
