//! Ctrl-C and SIGTERM.

use tokio_util::sync::CancellationToken;

/// Returns a token that Ctrl-C or SIGTERM cancels.
pub fn interrupt() -> CancellationToken {
    let token = CancellationToken::new();
    let canceled = token.clone();
    tokio::spawn(async move {
        shutdown().await;
        canceled.cancel();
    });
    token
}

/// Waits for Ctrl-C or SIGTERM.
pub async fn shutdown() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
    let terminated = async {
        match &mut terminate {
            Some(signal) => signal.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
}
