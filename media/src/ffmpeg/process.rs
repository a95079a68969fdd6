//! Runs one program until it ends by itself, reaches a limit, or is canceled.

use std::{
    ffi::OsString,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::future::FusedFuture;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    Error, Program, Progress, ProgressParser, Tools,
    capture::Tail,
    child::{self, Child, Exit},
    diagnosis::diagnose,
    report::{self, Report},
};
use crate::limits;

/// Bytes read from a pipe at once: a pipe of Linux holds 64 KiB.
const READ_BYTES: usize = 64 * 1024;
/// Time for which a killed program's end is awaited: the kernel needs milliseconds, a stuck disk longer. The
/// owner thread continues to wait.
const REAP_WAIT: Duration = Duration::from_secs(5);
/// Time for which the pipes of an ended program are drained: its output is there already, and its group is
/// dead. Long, because with 256 encodes on two cores two seconds passed before the task ran, and the last
/// report was missed.
const DRAIN_WAIT: Duration = Duration::from_secs(30);
/// Most bytes that are drained: no pipe of an ordinary user holds more, so bytes beyond it are not the
/// program's.
const DRAIN_BYTES: usize = 1 << 20;
/// Part of the deadline for starting, opening the source and closing the outputs, on a busy host.
const DEADLINE_BASE: Duration = Duration::from_secs(300);
/// Bytes of a file besides encoded media: reports, headers, indices.
const FILE_BYTES: u64 = 512 << 20;
/// Time without a frame after which an encode is stuck. Long, because FFmpeg decodes from a keyframe and
/// fills x264's lookahead first.
const STALL: Duration = Duration::from_secs(180);
/// Upper bound of that time for slower encoders.
const STALL_MAX: Duration = Duration::from_secs(1800);

static ENCODES_STARTED: AtomicU64 = AtomicU64::new(0);

/// Returns the number of FFmpeg encodes that this process has started. Tests use it to check that finished
/// work is not repeated.
pub fn encodes_started() -> u64 {
    ENCODES_STARTED.load(Ordering::Relaxed)
}

/// Limits of a program's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wall-clock time from start to end.
    pub deadline: Duration,
    /// Time between two signs of progress.
    pub stall: Duration,
    /// Bytes on stdout.
    pub stdout_bytes: usize,
    /// Bytes of address space.
    pub memory_bytes: u64,
    /// Bytes of the largest file that the program may write.
    pub file_bytes: u64,
}

impl Limits {
    /// Returns limits with this deadline, output size and address space.
    pub const fn within(deadline: Duration, stdout_bytes: usize, memory_bytes: u64) -> Self {
        Self { deadline, stall: deadline, stdout_bytes, memory_bytes, file_bytes: FILE_BYTES }
    }

    /// Returns the limits for encoding media of this duration, where no rendition exceeds `max_bitrate_bps`.
    pub fn for_encode(media: Duration, max_bitrate_bps: u64, effort: u32, limits: &limits::Limits) -> Self {
        let deadline =
            DEADLINE_BASE.saturating_add(media.saturating_mul(limits.work.saturating_mul(effort.max(1))));
        let stall = STALL.saturating_mul(effort.max(1)).min(STALL_MAX);
        // Twice the bytes that the rate and the buffer allow: x264 overshoots at times.
        let encoded = max_bitrate_bps.saturating_mul(media.as_secs().saturating_add(2)) / 8 * 2;
        let file_bytes = encoded.saturating_add(FILE_BYTES).min(limits.written_bytes);
        // A progress report has 250 bytes, twice a second: enough for a month.
        Self { stall, file_bytes, ..Self::within(deadline, 1 << 30, limits.memory_bytes) }
    }
}

/// A listener's verdict on a program's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputVerdict {
    /// The program made progress.
    Progress,
    /// The program is alive, without progress.
    Nothing,
    /// The listener needs no more output: the program is ended.
    Enough,
}

/// One run of one program.
#[derive(Debug, Clone, Copy)]
pub struct Invocation<'a> {
    /// Paths of the programs.
    pub tools: &'a Tools,
    /// Program to run.
    pub program: Program,
    /// Arguments.
    pub args: &'a [OsString],
    /// Working folder, home and folder for temporary files. FFmpeg may write to it.
    pub scratch: &'a Path,
    /// Input file, if it is not in the scratch folder.
    pub input: Option<&'a Path>,
    /// Limits of the run.
    pub limits: Limits,
    /// Ends the program when it fires.
    pub cancel: &'a CancellationToken,
    /// Whether FFmpeg writes the messages of its decoders and encoders to a report.
    pub report: bool,
}

/// Result of a program that succeeded, or that was ended by [`OutputVerdict::Enough`].
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Wall-clock time from start to end.
    pub wall: Duration,
    /// Processor time, if the system reports it.
    pub cpu: Option<Duration>,
    /// Last lines of stderr; often empty.
    pub stderr_tail: String,
    /// Report, if one was requested.
    pub report: Report,
}

impl Invocation<'_> {
    /// Runs the program to its end. `listen` receives stdout in arbitrary pieces.
    ///
    /// However this ends, by return or by being dropped, the program's whole process group is killed and
    /// reaped: before the return, or by the owner thread right after a drop.
    ///
    /// # Errors
    /// Returns any variant of [`Error`] except [`Error::Frames`].
    pub async fn run(&self, mut listen: impl FnMut(&[u8]) -> OutputVerdict) -> Result<Finished, Error> {
        let program = self.program;
        if self.cancel.is_cancelled() {
            return Err(Error::Canceled { program });
        }
        let started = Instant::now();
        let report = self.report.then_some(report::REPORT);
        let mut child = child::start(self, report).await?;
        let mut tail = Tail::default();
        let outcome = self.watch(&mut child, started, &mut tail, &mut listen).await;
        let exit = match outcome {
            Ok(Some(exit)) => exit,
            Ok(None) | Err(_) => {
                child.group.kill();
                if !child.exit.is_terminated() {
                    // A program in an uninterruptible wait is left to its owner thread.
                    let _ = timeout(REAP_WAIT, &mut child.exit).await;
                }
                outcome?;
                return Ok(Finished {
                    wall: started.elapsed(),
                    cpu: None,
                    stderr_tail: tail.text(),
                    report: Report::default(),
                });
            }
        };
        match diagnose(program, exit.status, tail.text(), self.scratch) {
            Some(error) => Err(error),
            None => {
                let report = if self.report { report::read(self.scratch).await } else { Report::default() };
                Ok(Finished { wall: started.elapsed(), cpu: exit.cpu, stderr_tail: tail.text(), report })
            }
        }
    }

    /// Reads until the program and its pipes have ended. Returns `None` on [`OutputVerdict::Enough`].
    async fn watch(
        &self,
        child: &mut Child,
        started: Instant,
        tail: &mut Tail,
        listen: &mut impl FnMut(&[u8]) -> OutputVerdict,
    ) -> Result<Option<Exit>, Error> {
        let (program, limits) = (self.program, self.limits);
        let broken = |source| Error::Watch { program, source };
        let mut deadline = started + limits.deadline;
        let mut stall = started + limits.stall;
        let (mut out, mut err) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
        let (mut out_open, mut err_open, mut out_bytes, mut drained, mut exit) =
            (true, true, 0_usize, 0_usize, None);
        while exit.is_none() || ((out_open || err_open) && drained <= DRAIN_BYTES) {
            // Endless output must not postpone the deadline.
            if exit.is_none() && Instant::now() >= deadline {
                return Err(Error::Deadline { program, after: limits.deadline });
            }
            tokio::select! {
                // On an overloaded host both a timer and the output that it waits for may be ready: the
                // output comes first.
                biased;
                () = self.cancel.cancelled() => return Err(Error::Canceled { program }),
                read = child.stdout.read(&mut out), if out_open => {
                    let read = read.map_err(broken)?;
                    out_open = read > 0;
                    out_bytes = out_bytes.saturating_add(read);
                    drained += if exit.is_some() { read } else { 0 };
                    if out_bytes > limits.stdout_bytes {
                        return Err(Error::TooMuchOutput { program, limit_bytes: limits.stdout_bytes });
                    }
                    match if read > 0 { listen(&out[..read]) } else { OutputVerdict::Nothing } {
                        OutputVerdict::Progress if report::is_too_long(self.scratch) => {
                            return Err(Error::TooMuchOutput { program, limit_bytes: report::REPORT_BYTES_MAX });
                        }
                        OutputVerdict::Progress => stall = Instant::now() + limits.stall,
                        OutputVerdict::Nothing => {}
                        OutputVerdict::Enough => return Ok(None),
                    }
                }
                read = child.stderr.read(&mut err), if err_open => {
                    let read = read.map_err(broken)?;
                    err_open = read > 0;
                    drained += if exit.is_some() { read } else { 0 };
                    tail.push(&err[..read]);
                }
                ended = &mut child.exit, if exit.is_none() => {
                    let ended = ended.map_err(|_| broken(std::io::ErrorKind::BrokenPipe.into()))?;
                    exit = Some(ended.map_err(broken)?);
                    deadline = Instant::now() + DRAIN_WAIT;
                }
                () = sleep_until(deadline) => {
                    if exit.is_some() {
                        // The program ended, but a process outside its group holds the pipes open: its own
                        // output has been read.
                        return Ok(exit);
                    }
                    return Err(Error::Deadline { program, after: limits.deadline });
                }
                () = sleep_until(stall), if exit.is_none() => {
                    return Err(Error::Stalled { program, after: limits.stall, stderr_tail: tail.text() });
                }
            }
        }
        Ok(exit)
    }

    /// Runs the program and returns all of its stdout. Bytes on stdout count as progress.
    ///
    /// # Errors
    /// Returns the errors of [`Invocation::run`]; [`Error::TooMuchOutput`] beyond the limit.
    pub async fn capture(&self) -> Result<Vec<u8>, Error> {
        let mut captured = Vec::new();
        self.run(|bytes| {
            captured.extend_from_slice(bytes);
            OutputVerdict::Progress
        })
        .await?;
        Ok(captured)
    }
}

/// One FFmpeg run of one row.
#[derive(Debug, Clone, Copy)]
pub struct Encode<'a> {
    /// Invocation of `ffmpeg` with arguments of [`crate::plan::args`].
    pub job: Invocation<'a>,
    /// The row's number, for the log.
    pub segment: u32,
    /// Number of rungs that it encodes, for the log.
    pub rungs: usize,
    /// Frames that must be encoded; `None` for sound.
    pub frames: Option<u64>,
}

impl Encode<'_> {
    /// Encodes the row, and reports progress about twice a second.
    ///
    /// # Errors
    /// Returns the errors of [`Invocation::run`]; [`Error::Frames`] if FFmpeg encoded another number of
    /// frames than requested.
    pub async fn run(&self, mut on_progress: impl FnMut(Progress)) -> Result<Finished, Error> {
        let (segment, rungs) = (self.segment, self.rungs);
        ENCODES_STARTED.fetch_add(1, Ordering::Relaxed);
        info!(segment, rungs, "ffmpeg started");
        let (mut parser, mut last) = (ProgressParser::default(), Progress::default());
        let finished = self
            .job
            .run(|bytes| {
                let Some(progress) = parser.push(bytes) else { return OutputVerdict::Nothing };
                let heard =
                    if progress.is_beyond(&last) { OutputVerdict::Progress } else { OutputVerdict::Nothing };
                last = progress;
                on_progress(progress);
                heard
            })
            .await?;
        if let Some(expected) = self.frames
            && expected != last.frame
        {
            return Err(Error::Frames { expected, encoded: last.frame, stderr_tail: finished.stderr_tail });
        }
        let wall_ms = u64::try_from(finished.wall.as_millis()).unwrap_or(u64::MAX);
        let cpu_ms = finished.cpu.and_then(|cpu| u64::try_from(cpu.as_millis()).ok());
        info!(segment, rungs, wall_ms, cpu_ms, "ffmpeg finished");
        Ok(finished)
    }
}

#[cfg(test)]
mod tests;
