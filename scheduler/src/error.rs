//! What can go wrong with a statement, and what it means to whoever submitted it?

use datafusion::error::DataFusionError;
use spool_storage::ErrorKind;
use spool_udfs::error::Failure;

/// The result of running a statement.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A function failed or refused the statement; the message says what to do.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// The statement is refused: it would silently go wrong. The message shows the form that works.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The SQL itself is wrong.
    #[error("{message}")]
    Sql {
        /// What the planner says, without its internals.
        message: String,
    },
    /// Somebody asked to stop.
    #[error("canceled")]
    Canceled,
    /// The executor that had the job in hand is gone.
    #[error("executor {executor} is gone")]
    Lost {
        /// Its id.
        executor: String,
    },
    /// Nobody works for the scheduler.
    #[error("{message}")]
    NoExecutors {
        /// How long was waited, and what to do.
        message: String,
    },
    /// It was tried as often as is of use.
    #[error("{source} (tried {attempts} times)")]
    GaveUp {
        /// How often.
        attempts: usize,
        /// What happened the last time.
        source: Box<Error>,
    },
    /// The scheduler cannot be reached.
    #[error("cannot reach the scheduler at {scheduler}: {why}")]
    Unreachable {
        /// `HOST:PORT`.
        scheduler: String,
        /// What is known.
        why: String,
        /// Did it take the statement before it went away?
        accepted: bool,
    },
    /// The engine failed in a way that has nothing to do with the statement.
    #[error("the engine failed: {message}")]
    Engine {
        /// What it says.
        message: String,
    },
    /// A port could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Error {
    /// What the failure means to whoever asked.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed(failure) | Self::Refused(failure) => failure.kind,
            Self::Sql { .. } => ErrorKind::BadInput,
            Self::Canceled => ErrorKind::Canceled,
            Self::Engine { .. } => ErrorKind::Bug,
            Self::Lost { .. } | Self::NoExecutors { .. } | Self::Unreachable { .. } => ErrorKind::Transient,
            Self::GaveUp { source, .. } => source.kind(),
            Self::Listen { .. } => ErrorKind::NotAllowed,
        }
    }

    /// Nobody worked for so long, and why.
    pub(crate) fn no_executors(why: &str, no_executor_timeout: std::time::Duration) -> Self {
        let seconds = no_executor_timeout.as_secs();
        Self::NoExecutors {
            message: format!("{why} for {seconds} s: start one with `spool executor --scheduler HOST:PORT`"),
        }
    }

    /// The same, after so many attempts.
    pub(crate) fn after(self, attempts: usize) -> Self {
        Self::GaveUp { attempts, source: Box::new(self) }
    }

    /// The error that a text of the engine stands for.
    pub(crate) fn from_engine(text: &str) -> Self {
        match Failure::find(text) {
            Some(failure) => Self::Failed(failure),
            None => Self::Engine { message: text.to_owned() },
        }
    }

    /// The error that planning a statement gave.
    pub(crate) fn from_planner(error: &DataFusionError) -> Self {
        let text = error.to_string();
        match Failure::find(&text) {
            Some(failure) if failure.kind == ErrorKind::BadInput => Self::Refused(failure),
            Some(failure) => Self::Failed(failure),
            None => Self::Sql { message: error.strip_backtrace() },
        }
    }
}
