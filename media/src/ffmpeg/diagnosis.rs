//! Classifies a program's end by its exit status and last lines of stderr.

use std::{io, os::unix::process::ExitStatusExt, path::Path, process::ExitStatus};

use nix::sys::signal::Signal;

use super::{Error, Program, sandbox};
use spool_storage::ErrorKind;

/// Messages of FFmpeg and libc for failures of this host, not of the source.
const TRANSIENT: [&str; 5] = [
    "Cannot allocate memory",
    "malloc of size",
    "Resource temporarily unavailable",
    "Too many open files",
    "Input/output error",
];

/// Messages of FFmpeg for wrong arguments.
const OUR_FAULT: [&str; 5] = [
    "Unrecognized option",
    "Option not found",
    "Error parsing options",
    "Error initializing complex filters",
    "Failed to set value",
];

/// Returns the error of a program that ended by itself or by a signal; `None` if it succeeded.
pub(super) fn diagnose(
    program: Program,
    status: ExitStatus,
    stderr_tail: String,
    scratch: &Path,
) -> Option<Error> {
    if status.success() {
        return None;
    }
    if stderr_tail.contains("No space left on device") || stderr_tail.contains("Disk quota exceeded") {
        return Some(Error::NoSpace { scratch: scratch.to_owned() });
    }
    // `NO_LIBRARY` is the dynamic loader's code for a missing library.
    if [sandbox::FAILED, sandbox::NO_LIBRARY].into_iter().any(|code| status.code() == Some(code.into())) {
        return Some(Error::Start { program, source: io::Error::other(stderr_tail) });
    }
    if let Some(number) = status.signal() {
        let signal = Signal::try_from(number)
            .map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned());
        // A crash in a decoder is caused by the source's bytes and repeats; any other signal was sent from
        // outside.
        let crashed = [Signal::SIGSEGV, Signal::SIGABRT, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL]
            .map(|s| s as i32);
        return Some(if number == Signal::SIGXFSZ as i32 {
            let status = "a file larger than its media can be, or than --max-written (SIGXFSZ)".to_owned();
            Error::Ffmpeg { program, status, stderr_tail, kind: ErrorKind::BadInput }
        } else if crashed.contains(&number) {
            Error::Ffmpeg {
                program,
                status: format!("a crash ({signal})"),
                stderr_tail,
                kind: ErrorKind::BadInput,
            }
        } else {
            Error::Killed { program, signal, stderr_tail }
        });
    }
    if let Some(feature) = missing_feature(&stderr_tail) {
        return Some(Error::MissingFeature { feature });
    }
    let says = |words: &[&str]| words.iter().any(|words| stderr_tail.contains(words));
    let kind = if says(&TRANSIENT) {
        ErrorKind::Transient
    } else if says(&OUR_FAULT) {
        ErrorKind::Bug
    } else {
        ErrorKind::BadInput
    };
    Some(Error::Ffmpeg {
        program,
        status: format!("exit code {}", status.code().unwrap_or_default()),
        stderr_tail,
        kind,
    })
}

/// Returns the name in `Unknown encoder 'libx264'` or `No such filter: 'zscale'`, FFmpeg's messages since
/// version 2.
fn missing_feature(stderr: &str) -> Option<String> {
    [("encoder", "Unknown encoder '"), ("filter", "No such filter: '")].into_iter().find_map(
        |(what, before)| {
            let (_, rest) = stderr.split_once(before)?;
            let (name, _) = rest.split_once('\'')?;
            Some(format!("{what} {name}"))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosed(raw: i32, stderr: &str) -> Option<Error> {
        diagnose(Program::Ffmpeg, ExitStatus::from_raw(raw), stderr.to_owned(), Path::new("/scratch"))
    }

    #[test]
    fn each_end_has_its_meaning() {
        assert!(diagnosed(0, "deprecated pixel format").is_none());
        let kind = |raw, stderr| diagnosed(raw, stderr).unwrap().kind();
        assert_eq!(kind(1 << 8, "x.mp4: Invalid data found when processing input"), ErrorKind::BadInput);
        assert_eq!(kind(1 << 8, "Error while decoding: Cannot allocate memory"), ErrorKind::Transient);
        assert_eq!(kind(1 << 8, "Unrecognized option 'fps_mode'."), ErrorKind::Bug);
        assert_eq!(kind(9, ""), ErrorKind::Transient);
        assert_eq!(kind(11, ""), ErrorKind::BadInput);
        assert_eq!(kind(25, ""), ErrorKind::BadInput);
        assert_eq!(kind(127 << 8, "error while loading shared libraries: libx264.so"), ErrorKind::Transient);
        assert_eq!(kind(126 << 8, "error: cannot start the program"), ErrorKind::Transient);
        assert_eq!(kind(1 << 8, "Unknown encoder 'libx264'"), ErrorKind::BadInput);
    }

    #[test]
    fn messages_name_the_thing_and_the_remedy() {
        let text = |raw, stderr| diagnosed(raw, stderr).unwrap().to_string();
        assert!(text(1 << 8, "Unknown encoder 'libx264'").contains("no encoder libx264: install"));
        assert_eq!(
            text(1 << 8, "av_interleaved_write_frame(): No space left on device"),
            "no space left in the scratch folder /scratch"
        );
        assert!(text(9, "").starts_with("ffmpeg was killed by SIGKILL"));
        assert_eq!(text(69 << 8, "boom"), "ffmpeg ended with exit code 69:\nboom");
    }
}
