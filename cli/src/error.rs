//! Error that ends a command, with its exit code and its message on stderr.

use spool_media::ffmpeg;

use crate::{api_client, exit};

/// Error that ends a command.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The request is wrong: a flag's value, a preset's name, a statement.
    #[error("{0}")]
    Usage(String),
    /// A source, a store or FFmpeg failed.
    #[error(transparent)]
    Media(#[from] spool_media::Error),
    /// A statement failed.
    #[error(transparent)]
    Statement(#[from] spool_scheduler::Error),
    /// The executor of this process failed.
    #[error(transparent)]
    Executor(#[from] spool_executor::Error),
    /// The database of jobs failed.
    #[error(transparent)]
    Jobs(#[from] spool_jobs::Error),
    /// The HTTP API of this process failed.
    #[error(transparent)]
    Server(#[from] spool_server::Error),
    /// A certificate cannot be used or made.
    #[error(transparent)]
    Tls(#[from] spool_tls::Error),
    /// A call of an HTTP API failed.
    #[error(transparent)]
    ApiClient(#[from] api_client::Error),
    /// A followed job ended without being published.
    #[error("job {id} {state}{reason}")]
    Job {
        /// Identifier of the job.
        id: String,
        /// State in which it ended.
        state: String,
        /// Colon and error message, or empty if the job has none.
        reason: String,
    },
    /// A result could not be printed.
    #[error("failed to print the result: {0}")]
    Print(String),
    /// A file of the command line could not be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A file of the command line could not be written.
    #[error("failed to write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// Checks of `spool doctor` failed; they are printed already.
    #[error("this machine cannot transcode: {0} of the checks above failed")]
    Unfit(usize),
}

impl CliError {
    /// Returns the error of a command that Ctrl-C or a signal interrupted.
    pub fn interrupted() -> Self {
        spool_media::Error::from(ffmpeg::Error::Canceled { program: ffmpeg::Program::Ffmpeg }).into()
    }

    /// Returns the exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Media(error) | Self::Executor(spool_executor::Error::Media(error)) => {
                error.kind().exit_code()
            }
            Self::Statement(spool_scheduler::Error::Sql { .. } | spool_scheduler::Error::Refused(_)) => {
                exit::USAGE
            }
            Self::Statement(
                spool_scheduler::Error::Unreachable { .. } | spool_scheduler::Error::NoExecutors { .. },
            ) => exit::UNREACHABLE,
            Self::Statement(error) => error.kind().exit_code(),
            Self::Jobs(error) => error.kind().exit_code(),
            Self::ApiClient(error) => error.code(),
            Self::Server(spool_server::Error::Open { .. }) | Self::Tls(_) => exit::USAGE,
            Self::Read { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => exit::NOT_FOUND,
                std::io::ErrorKind::PermissionDenied => exit::NOT_ALLOWED,
                _ => exit::FAILED,
            },
            Self::Job { .. }
            | Self::Server(_)
            | Self::Executor(_)
            | Self::Print(_)
            | Self::Write { .. }
            | Self::Unfit(_) => exit::FAILED,
        }
    }

    /// Prints the error on stderr.
    pub fn print(&self) {
        match self.code() {
            exit::INTERRUPTED => eprintln!("interrupted: run the same command again to continue"),
            _ => eprintln!("error: {}", spool_udfs::error::with_causes(self)),
        }
    }
}
