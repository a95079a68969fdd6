//! FFmpeg: runs it and ffprobe with limits, watches them and ends them. The one place that starts processes.
//!
//! [`args`] says what to do and is pure; [`Invocation::run`] does it: one process group, one deadline, one
//! watchdog, one way to stop. Every process has a thread of this process that owns it: it starts it, waits
//! for it and reaps it, so none outlives us and none stays a zombie.

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

/// What went wrong while a program was run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not on this machine.
    #[error(
        "{program} not found: install it with \"apt-get install {package}\", or name its path in {variable}"
    )]
    Missing {
        /// What was looked for.
        program: String,
        /// Debian's package that has it.
        package: &'static str,
        /// The environment variable that names another path.
        variable: &'static str,
    },
    /// The operating system would not start it.
    #[error("cannot start {program}")]
    Start {
        /// What was started.
        program: Program,
        /// Why not.
        source: io::Error,
    },
    /// A pipe to the running program broke, or its end could not be learned.
    #[error("cannot watch {program}")]
    Watch {
        /// What was watched.
        program: Program,
        /// Why not.
        source: io::Error,
    },
    /// It ended by itself with a failure that the source or the request explains.
    #[error("{program} ended with {status}:\n{stderr_tail}")]
    Ffmpeg {
        /// What was run.
        program: Program,
        /// Its exit status, in words.
        status: String,
        /// The end of what it said.
        stderr_tail: String,
        /// The class of the failure.
        kind: ErrorKind,
    },
    /// It was killed from outside, most often by the kernel for want of memory.
    #[error(
        "{program} was killed by {signal}; if that was for want of memory, run fewer encodes at a time:\n{stderr_tail}"
    )]
    Killed {
        /// What was run.
        program: Program,
        /// The signal's name.
        signal: String,
        /// The end of what it said.
        stderr_tail: String,
    },
    /// This build of FFmpeg lacks an encoder or a filter.
    #[error(
        "this ffmpeg has no {feature}: install a build with it, such as Debian's by \"apt-get install ffmpeg\""
    )]
    MissingFeature {
        /// What is missing, by FFmpeg's name: `encoder libx264`.
        feature: String,
    },
    /// The scratch folder is full.
    #[error("no space left in the scratch folder {}", scratch.display())]
    NoSpace {
        /// The folder that was written to.
        scratch: PathBuf,
    },
    /// It took longer than allowed.
    #[error("{program} was stopped at its deadline of {} s", after.as_secs())]
    Deadline {
        /// What was run.
        program: Program,
        /// The time it was given.
        after: Duration,
    },
    /// It ran, but nothing came of it any more.
    #[error("{program} was stopped after {} s without progress:\n{stderr_tail}", after.as_secs())]
    Stalled {
        /// What was run.
        program: Program,
        /// How long nothing happened.
        after: Duration,
        /// The end of what it said.
        stderr_tail: String,
    },
    /// It said more than anybody wants to hear.
    #[error("{program} wrote more than {limit_bytes} bytes")]
    TooMuchOutput {
        /// What was run.
        program: Program,
        /// The most that is read.
        limit_bytes: usize,
    },
    /// Another number of frames came out than was asked for: the source could not be decoded where the row
    /// begins.
    #[error(
        "ffmpeg encoded {encoded} of {expected} frames: the source cannot be decoded there:\n{stderr_tail}"
    )]
    Frames {
        /// What was asked for.
        expected: u64,
        /// What came out.
        encoded: u64,
        /// The end of what it said.
        stderr_tail: String,
    },
    /// The run was canceled.
    #[error("{program} was stopped on request")]
    Canceled {
        /// What was run.
        program: Program,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Ffmpeg { kind, .. } => *kind,
            // Another machine may have the program, the memory, the space or the time.
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
