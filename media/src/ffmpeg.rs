//! Runs FFmpeg and ffprobe with limits, watches them and ends them. The only module that starts processes.
//!
//! [`crate::plan::args`] builds the arguments and is pure. [`Invocation::run`] runs the program, with one
//! process group, one deadline, one watchdog and one way to stop. Each program has a thread of this process
//! that owns it: the thread starts, awaits and reaps it, so that no program outlives this process or stays a
//! zombie.

mod build;
mod capture;
mod child;
mod diagnosis;
mod process;
mod progress;
mod report;
pub mod sandbox;
mod sandbox_check;
mod tools;

use std::{io, path::PathBuf, time::Duration};

pub use self::{
    build::{Encoder, build, version},
    capture::{LINE_BYTES_MAX, Lines},
    child::all_gone,
    process::{Encode, Finished, Invocation, Limits, OutputVerdict, encodes_started},
    progress::{Progress, ProgressParser},
    report::{Encoded, Pictures, Report},
    sandbox_check::check_sandbox,
    tools::{Program, SandboxMode, Tools},
};
use spool_storage::ErrorKind;

/// Failure of a program's run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not on this host.
    #[error(
        "{program} not found: install it with \"apt-get install {package}\", or name its path in {variable}"
    )]
    Missing {
        /// The program, by name or path.
        program: String,
        /// Debian package that contains the program.
        package: &'static str,
        /// The environment variable that names another path.
        variable: &'static str,
    },
    /// The operating system did not start the program.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: Program,
        /// The system's error.
        source: io::Error,
    },
    /// A pipe to the running program broke, or its exit status could not be read.
    #[error("cannot watch {program}")]
    Watch {
        /// The program.
        program: Program,
        /// The system's error.
        source: io::Error,
    },
    /// The program ended by itself with a failure.
    #[error("{program} ended with {status}:\n{stderr_tail}")]
    Ffmpeg {
        /// The program.
        program: Program,
        /// Exit status, in words.
        status: String,
        /// Last lines of its stderr.
        stderr_tail: String,
        /// The class of the failure.
        kind: ErrorKind,
    },
    /// The program was killed from outside, most often by the kernel because memory ran out.
    #[error(
        "{program} was killed by {signal}; if that was for want of memory, run fewer encodes at a time:\n{stderr_tail}"
    )]
    Killed {
        /// The program.
        program: Program,
        /// The signal's name.
        signal: String,
        /// Last lines of its stderr.
        stderr_tail: String,
    },
    /// This build of FFmpeg lacks an encoder or a filter.
    #[error(
        "this ffmpeg has no {feature}: install a build with it, such as Debian's by \"apt-get install ffmpeg\""
    )]
    MissingFeature {
        /// The missing feature by FFmpeg's name, such as `encoder libx264`.
        feature: String,
    },
    /// The scratch folder is full.
    #[error("no space left in the scratch folder {}", scratch.display())]
    NoSpace {
        /// The folder that was written to.
        scratch: PathBuf,
    },
    /// The program reached its deadline.
    #[error("{program} was stopped at its deadline of {} s", after.as_secs())]
    Deadline {
        /// The program.
        program: Program,
        /// Time that was allowed.
        after: Duration,
    },
    /// The program ran on without progress.
    #[error("{program} was stopped after {} s without progress:\n{stderr_tail}", after.as_secs())]
    Stalled {
        /// The program.
        program: Program,
        /// Time without progress.
        after: Duration,
        /// Last lines of its stderr.
        stderr_tail: String,
    },
    /// The program wrote more output than the limit.
    #[error("{program} wrote more than {limit_bytes} bytes")]
    TooMuchOutput {
        /// The program.
        program: Program,
        /// Limit in bytes.
        limit_bytes: usize,
    },
    /// The number of encoded frames is not the requested one: the source could not be decoded where the row
    /// begins.
    #[error(
        "ffmpeg encoded {encoded} of {expected} frames: the source cannot be decoded there:\n{stderr_tail}"
    )]
    Frames {
        /// Frames of the row.
        expected: u64,
        /// Frames that were encoded.
        encoded: u64,
        /// Last lines of its stderr.
        stderr_tail: String,
    },
    /// The run was canceled.
    #[error("{program} was stopped on request")]
    Canceled {
        /// The program.
        program: Program,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Ffmpeg { kind, .. } => *kind,
            // Another host may have the program, the memory, the space or the time.
            Self::Start { .. } | Self::Watch { .. } | Self::Killed { .. } | Self::NoSpace { .. } => {
                ErrorKind::Transient
            }
            Self::Deadline { .. } | Self::Stalled { .. } => ErrorKind::Transient,
            Self::Missing { .. } | Self::MissingFeature { .. } => ErrorKind::BadInput,
            Self::TooMuchOutput { .. } | Self::Frames { .. } => ErrorKind::BadInput,
            Self::Canceled { .. } => ErrorKind::Canceled,
        }
    }
}
