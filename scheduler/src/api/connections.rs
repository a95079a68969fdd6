//! Connections to the scheduler: accepted, with their handshake done where the port has TLS.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use spool_storage::{ConcurrencyLimit, ConcurrencyPermit};
use spool_tls::ServerTls;
use spool_wire::Incoming;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

/// Connections at a time, executors' and clients' together. Further ones wait in the system's backlog.
const CONNECTIONS_MAX: usize = 4096;

/// Connections whose handshake is done and that wait to be served.
const READY_QUEUE: usize = 16;

/// Wait before accepting again when the system is out of sockets.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(500);

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener, Option<Arc<ServerTls>>),
    InProcess(Incoming),
}

/// A connection, ready for HTTP.
pub(crate) struct Connection {
    stream: Stream,
    /// Counts it.
    _permit: ConcurrencyPermit,
}

type Stream = Pin<Box<dyn ReadWrite>>;

trait ReadWrite: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> ReadWrite for T {}

/// Accepts connections until the stream is dropped. A peer that is slow with its handshake delays no other.
pub(crate) fn accept(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(READY_QUEUE);
    tokio::spawn(async move {
        let limit = ConcurrencyLimit::new("scheduler_connections", CONNECTIONS_MAX);
        loop {
            let permit = limit.acquire().await;
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (ready, tls) = (ready.clone(), tls.clone());
                    tokio::spawn(async move {
                        match handshake(stream, tls).await {
                            // A closed receiver is a server that stops.
                            Ok(stream) => drop(ready.send(Ok(Connection { stream, _permit: permit })).await),
                            Err(error) => debug!(%peer, %error, "handshake failed"),
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "failed to accept connections");
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    });
    ReceiverStream::new(connections)
}

async fn handshake(stream: TcpStream, tls: Option<Arc<ServerTls>>) -> io::Result<Stream> {
    stream.set_nodelay(true)?;
    Ok(match tls {
        Some(tls) => Box::pin(tls.accept(stream).await?),
        None => Box::pin(stream),
    })
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
