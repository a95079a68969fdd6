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
/// How long a killed program may take to be gone: the kernel needs milliseconds, a stuck disk longer; the
/// owner thread stays on it.
const REAP_WAIT: Duration = Duration::from_secs(5);
/// How long the pipes of an ended program are read on: what it wrote is there already, and its group is dead.
/// Long, because with 256 encodes on two cores two seconds passed before anybody looked, and the last report
/// was missed.
const DRAIN_WAIT: Duration = Duration::from_secs(30);
/// The most that is read of them then: no pipe that an ordinary user makes holds more, so what comes after it
/// is not the program's.
const DRAIN_BYTES: usize = 1 << 20;
/// Starting, opening the source and closing the outputs, on a busy machine.
const DEADLINE_BASE: Duration = Duration::from_secs(300);
/// Bytes of a file besides encoded media: reports, headers, indices.
const FILE_BYTES: u64 = 512 << 20;
/// An encode without a frame for so long is stuck. Long, because it decodes from a keyframe and fills x264's
/// lookahead first.
const STALL: Duration = Duration::from_secs(180);
/// The same of encoders that take many times as long.
const STALL_MAX: Duration = Duration::from_secs(1800);

static ENCODES_STARTED: AtomicU64 = AtomicU64::new(0);

/// FFmpeg encodes that this process has started so far: what tests count to see that finished work is not
/// done again.
pub fn encodes_started() -> u64 {
    ENCODES_STARTED.load(Ordering::Relaxed)
}

/// What a program may take before it is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From start to end, by the wall clock.
    pub deadline: Duration,
    /// Between two signs of progress.
    pub stall: Duration,
    /// Bytes on its stdout.
    pub stdout_bytes: usize,
    /// Bytes of its address space.
    pub memory_bytes: u64,
    /// Bytes of the largest file that it may write.
    pub file_bytes: u64,
}

impl Limits {
    /// What may take so long, say so much, and have so much address space.
    pub const fn within(deadline: Duration, stdout_bytes: usize, memory_bytes: u64) -> Self {
        Self { deadline, stall: deadline, stdout_bytes, memory_bytes, file_bytes: FILE_BYTES }
    }

    /// What encoding so much media may take, where the largest rendition has so many bits per second at most.
    pub fn for_encode(media: Duration, max_bitrate_bps: u64, effort: u32, limits: &limits::Limits) -> Self {
        let deadline =
            DEADLINE_BASE.saturating_add(media.saturating_mul(limits.work.saturating_mul(effort.max(1))));
        let stall = STALL.saturating_mul(effort.max(1)).min(STALL_MAX);
        // Twice what its rate and its buffer allow: x264 overshoots where it must.
        let encoded = max_bitrate_bps.saturating_mul(media.as_secs().saturating_add(2)) / 8 * 2;
        let file_bytes = encoded.saturating_add(FILE_BYTES).min(limits.written_bytes);
        // A progress report is 250 bytes, two a second: a month of them.
        Self { stall, file_bytes, ..Self::within(deadline, 1 << 30, limits.memory_bytes) }
    }
}

/// What a listener makes of what a program said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputVerdict {
    /// It got on.
    Progress,
    /// It is alive, no more.
    Nothing,
    /// No more is wanted: end it.
    Enough,
}

/// One run of one program.
#[derive(Debug, Clone, Copy)]
pub struct Invocation<'a> {
    /// Where the programs lie.
    pub tools: &'a Tools,
    /// Which to run.
    pub program: Program,
    /// Its arguments.
    pub args: &'a [OsString],
    /// Its working folder, home and place for temporary files, which FFmpeg may write to.
    pub scratch: &'a Path,
    /// The file that it reads, where that is not in the scratch folder.
    pub input: Option<&'a Path>,
    /// When it is ended.
    pub limits: Limits,
    /// Ends it when asked.
    pub cancel: &'a CancellationToken,
    /// Is it to write down what its decoders and encoders have to say?
    pub report: bool,
}

/// A program that succeeded, or that was ended because [`OutputVerdict::Enough`] was heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// From start to end.
    pub wall: Duration,
    /// Processor time, where the system reports it.
    pub cpu: Option<Duration>,
    /// The end of what it complained of on stderr; often empty.
    pub stderr_tail: String,
    /// What it wrote down, where it was to.
    pub report: Report,
}

impl Invocation<'_> {
    /// Runs the program to its end. `listen` gets its stdout in pieces cut anywhere.
    ///
    /// However this ends, by return or by being dropped, the program's whole process group is killed and
    /// reaped: before the return, or by the owner thread right after a drop.
    ///
    /// # Errors
    /// Those of [`Error`], except [`Error::Frames`].
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
                    // A program in an uninterruptible wait stays with its owner thread; nothing here can
                    // hurry it.
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

    /// Listens until the program and its pipes are at their end; `None` where the listener had enough.
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
            // What a program says without end must not keep its time from running out.
            if exit.is_none() && Instant::now() >= deadline {
                return Err(Error::Deadline { program, after: limits.deadline });
            }
            tokio::select! {
                // On a machine that is overloaded both the end of a wait and what it was for may be there
                // when this is looked at: what the program said counts first.
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
                        // It ended, but a process outside its group holds its pipes: all that matters has
                        // been read.
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

    /// Runs the program and gives all of its stdout. Bytes on it count as progress.
    ///
    /// # Errors
    /// Those of [`Invocation::run`]; [`Error::TooMuchOutput`] beyond the limit.
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
    /// What is run: `ffmpeg` with arguments of [`super::args`].
    pub job: Invocation<'a>,
    /// The row's number, for the log.
    pub segment: u32,
    /// How many rungs it encodes, for the log.
    pub rungs: usize,
    /// Frames that must come out; `None` for sound.
    pub frames: Option<u64>,
}

impl Encode<'_> {
    /// Encodes, and reports progress about twice a second.
    ///
    /// # Errors
    /// Those of [`Invocation::run`]; [`Error::Frames`] where FFmpeg was content with another number of frames
    /// than asked for.
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
