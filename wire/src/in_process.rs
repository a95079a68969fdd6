//! Connections inside one process: a scheduler and an executor that share a process listen on no port.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};
use tokio_stream::Stream;

/// Connections that wait to be accepted.
const BACKLOG: usize = 8;

/// Bytes that each direction of a connection holds.
const BUFFER_BYTES: usize = 1 << 20;

/// Opens connections to the [`Incoming`] that it was made with. Clones open connections to the same one.
#[derive(Clone)]
pub struct InProcess(mpsc::Sender<DuplexStream>);

/// The accepting end: a stream of connections.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<DuplexStream>);

/// Makes the two ends.
pub fn in_process() -> (InProcess, Incoming) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    (InProcess(sender), Incoming(receiver))
}

impl InProcess {
    /// Opens a connection.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionRefused`] if the accepting end is gone.
    pub(crate) async fn open(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = duplex(BUFFER_BYTES);
        self.0.send(theirs).await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(ours)
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

impl Stream for Incoming {
    type Item = io::Result<DuplexStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|connection| connection.map(Ok))
    }
}
