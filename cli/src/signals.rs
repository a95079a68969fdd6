//! Ctrl-C and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Returns a token that Ctrl-C or SIGTERM cancels.
pub fn interrupt() -> CancellationToken {
    let token = CancellationToken::new();
    let canceled = token.clone();
    let shutdown = shutdown();
    tokio::spawn(async move {
        shutdown.await;
        canceled.cancel();
    });
    token
}

/// Returns a future that waits for Ctrl-C or SIGTERM. Signals are caught from this call on: a role that
/// answers probes already must not be killed by a signal that comes before it is awaited.
pub fn shutdown() -> impl Future<Output = ()> {
    let [mut interrupt, mut terminate] =
        [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).ok());
    async move {
        tokio::select! {
            () = received(&mut interrupt) => {}
            () = received(&mut terminate) => {}
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
