//! Errors of an executor.

use std::path::PathBuf;

/// Failure of an executor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scheduler cannot be reached, or is gone. The executor retries.
    #[error("cannot reach the scheduler at {scheduler}: {why}")]
    Unreachable {
        /// `HOST:PORT`.
        scheduler: String,
        /// Cause of the failure.
        why: String,
    },
    /// The scheduler does not accept this executor.
    #[error("the scheduler at {scheduler} refuses this executor: {why}")]
    Refused {
        /// `HOST:PORT`.
        scheduler: String,
        /// The scheduler's reason.
        why: String,
    },
    /// This process cannot encode.
    #[error(transparent)]
    Media(#[from] spool_media::Error),
    /// No port is free.
    #[error("no free port for the executor: {0}")]
    Port(#[source] std::io::Error),
    /// The engine's own folder cannot be created.
    #[error("cannot make {path}: {source}; name another scratch folder with --scratch or SPOOL_SCRATCH")]
    WorkFolder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The SQL functions cannot be registered: a defect.
    #[error("cannot set up the executor's functions: {0}")]
    Functions(#[source] datafusion::error::DataFusionError),
    /// Probes cannot be served.
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// Ballista's executor stopped.
    #[error("the executor stopped: {message}")]
    Stopped {
        /// Ballista's message.
        message: String,
    },
}

impl Error {
    /// Returns whether another attempt can succeed.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Media(_) | Self::Functions(_) | Self::Listen { .. } => false,
            // A full disk may have space later, and the next attempt takes another port.
            Self::Unreachable { .. } | Self::Port(_) | Self::WorkFolder { .. } | Self::Stopped { .. } => true,
        }
    }
}
