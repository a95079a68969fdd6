//! With which code does `spool` exit, and what does it say before?

use spool_media::ffmpeg;
use spool_storage::ErrorKind;

/// A job failed, or anything else that has no code of its own.
pub const FAILED: u8 = 1;
/// The command line or the request is wrong.
pub const USAGE: u8 = 2;
/// What was named does not exist.
pub const NOT_FOUND: u8 = 3;
/// Credentials or permissions are missing.
pub const NOT_ALLOWED: u8 = 4;
/// The scheduler cannot be reached, or nobody works for it.
pub const UNREACHABLE: u8 = 5;
/// Interrupted, by Ctrl-C or a signal.
pub const INTERRUPTED: u8 = 130;

/// An error that ends the command.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The request itself is wrong: a flag's value, a preset's name, a statement.
    #[error("{0}")]
    Usage(String),
    /// The video domain failed.
    #[error(transparent)]
    Media(#[from] spool_media::Error),
    /// A statement failed.
    #[error(transparent)]
    Statement(#[from] spool_scheduler::Error),
    /// The embedded executor failed.
    #[error(transparent)]
    Executor(#[from] spool_executor::Error),
    /// The store of jobs failed.
    #[error(transparent)]
    Jobs(#[from] spool_jobs::Error),
    /// The HTTP server failed.
    #[error(transparent)]
    Server(#[from] spool_server::Error),
    /// The server that was asked refused, or is not there.
    #[error(transparent)]
    Api(#[from] crate::api::Error),
    /// A job that was followed did not end well.
    #[error("job {id} {state}{why}")]
    Job {
        /// The job.
        id: String,
        /// How it ended.
        state: String,
        /// Why, where that is known.
        why: String,
    },
    /// A result could not be printed.
    #[error("cannot print the result: {0}")]
    Print(String),
    /// A file of the command line could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file of the command line could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Checks of `doctor` failed; what they were is printed already.
    #[error("this machine cannot transcode yet: {0} of the checks above failed")]
    Unfit(usize),
}

impl CliError {
    /// Ctrl-C or a signal.
    pub fn interrupted() -> Self {
        spool_media::Error::from(ffmpeg::Error::Canceled { program: ffmpeg::Program::Ffmpeg }).into()
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Media(error) => of_kind(error.kind()),
            Self::Statement(spool_scheduler::Error::Sql { .. } | spool_scheduler::Error::Refused(_)) => USAGE,
            Self::Statement(
                spool_scheduler::Error::Unreachable { .. } | spool_scheduler::Error::NoExecutors { .. },
            ) => UNREACHABLE,
            Self::Statement(error) => of_kind(error.kind()),
            Self::Jobs(error) => of_kind(error.kind()),
            Self::Api(error) => error.code(),
            Self::Server(spool_server::Error::Open { .. }) => USAGE,
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => NOT_FOUND,
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => NOT_ALLOWED,
            Self::Job { .. }
            | Self::Server(_)
            | Self::Executor(_)
            | Self::Print(_)
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Unfit(_) => FAILED,
        }
    }

    /// Says it on stderr.
    pub fn print(&self) {
        match self.code() {
            INTERRUPTED => eprintln!("interrupted: run the same command again to go on where it stopped"),
            _ => eprintln!("error: {}", spool_udfs::error::told(self)),
        }
    }
}

fn of_kind(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::NotFound => NOT_FOUND,
        ErrorKind::NotAllowed => NOT_ALLOWED,
        ErrorKind::Canceled => INTERRUPTED,
        ErrorKind::BadInput | ErrorKind::Transient | ErrorKind::Bug => FAILED,
    }
}
