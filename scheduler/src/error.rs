//! Errors of a statement, and their kinds.

use std::time::Duration;

use datafusion::error::DataFusionError;
use spool_storage::ErrorKind;
use spool_udfs::error::Failure;

/// Result of running a statement.
pub type Result<T> = std::result::Result<T, Error>;

/// Failure of a statement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A function failed or refused the statement; the message names the remedy.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// The statement is refused, since it would silently go wrong; the message shows a form that works.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The SQL text is wrong.
    #[error("{message}")]
    Sql {
        /// The planner's message, without its internals.
        message: String,
    },
    /// The statement was canceled.
    #[error("canceled")]
    Canceled,
    /// The executor that ran the job is gone.
    #[error("executor {executor} is gone")]
    Lost {
        /// The executor's id.
        executor: String,
    },
    /// No executor takes rows.
    #[error("{message}")]
    NoExecutors {
        /// Reason, duration and remedy.
        message: String,
    },
    /// Every allowed attempt failed.
    #[error("{source} (tried {attempts} times)")]
    AttemptsExhausted {
        /// Number of failed attempts.
        attempts: usize,
        /// The error of the last attempt.
        source: Box<Error>,
    },
    /// The scheduler cannot be reached.
    #[error("failed to reach the scheduler at {scheduler}: {reason}")]
    Unreachable {
        /// `HOST:PORT`.
        scheduler: String,
        /// The cause, as far as it is known.
        reason: String,
        /// Whether the scheduler had accepted the statement before the connection broke.
        accepted: bool,
    },
    /// The engine failed for a reason other than the statement.
    #[error("the engine failed: {message}")]
    Engine {
        /// The engine's message.
        message: String,
    },
    /// A port could not be bound.
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed(failure) | Self::Refused(failure) => failure.kind,
            Self::Sql { .. } => ErrorKind::BadInput,
            Self::Canceled => ErrorKind::Canceled,
            Self::Engine { .. } => ErrorKind::Bug,
            Self::Lost { .. } | Self::NoExecutors { .. } | Self::Unreachable { .. } => ErrorKind::Transient,
            Self::AttemptsExhausted { source, .. } => source.kind(),
            Self::Listen { .. } => ErrorKind::NotAllowed,
        }
    }

    /// Returns whether another attempt may succeed: after a transient failure, and after one without a known
    /// cause.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Engine { .. }) || self.kind() == ErrorKind::Transient
    }

    /// Returns the error of a statement that no executor worked on for `timeout`, because of `reason`.
    pub(crate) fn no_executors(reason: &str, timeout: Duration) -> Self {
        let seconds = timeout.as_secs();
        Self::NoExecutors {
            message: format!(
                "{reason} for {seconds} s: start one with `spool executor --scheduler HOST:PORT`"
            ),
        }
    }

    /// Returns the error after this many failed attempts, of which this is the last.
    pub(crate) fn after_attempts(self, attempts: usize) -> Self {
        Self::AttemptsExhausted { attempts, source: Box::new(self) }
    }

    /// Converts a message of the engine.
    pub(crate) fn from_engine(message: &str) -> Self {
        match Failure::find(message) {
            Some(failure) => Self::Failed(failure),
            None => Self::Engine { message: message.to_owned() },
        }
    }

    /// Converts an error of planning.
    pub(crate) fn from_planner(error: &DataFusionError) -> Self {
        let text = error.to_string();
        match Failure::find(&text) {
            Some(failure) if failure.kind == ErrorKind::BadInput => Self::Refused(failure),
            Some(failure) => Self::Failed(failure),
            None => Self::Sql { message: error.strip_backtrace() },
        }
    }
}
