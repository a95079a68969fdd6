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
    /// The threads that run tasks cannot be started.
    #[error("failed to start the threads of tasks: {0}")]
    Threads(#[source] std::io::Error),
    /// The engine's own folder cannot be made.
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
    /// The task that runs the sessions stopped: a defect.
    #[error("the executor stopped: {message}")]
    Stopped {
        /// The panic's message.
        message: String,
    },
}

impl Error {
    /// Returns whether another attempt can succeed.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Media(_) | Self::Functions(_) | Self::Listen { .. } => false,
            // A full disk may have space later, and a full machine threads.
            Self::Unreachable { .. } | Self::Threads(_) | Self::WorkFolder { .. } | Self::Stopped { .. } => {
                true
            }
        }
    }
}
