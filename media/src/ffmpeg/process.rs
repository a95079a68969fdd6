//! How is a program run? Started, listened to, and ended by itself, by its limits or by whoever asks.

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
};

/// Bytes read from a pipe at once: a pipe of Linux holds 64 KiB.
const READ_BYTES: usize = 64 * 1024;
/// How long a killed program may take to be gone: the kernel needs milliseconds, a stuck disk longer; the owner thread stays on it.
const REAP_WAIT: Duration = Duration::from_secs(5);
/// How long the pipes of an ended program are read on: what it wrote is there already, and its group is dead. Long, because with 256 encodes
/// on two cores two seconds passed before anybody looked, and the last report was missed.
const DRAIN_WAIT: Duration = Duration::from_secs(30);
/// The most that is read of them then: no pipe that an ordinary user makes holds more, so what comes after it is not the program's.
const DRAIN_BYTES: usize = 1 << 20;
/// Starting, opening the source and closing the outputs, on a busy machine.
const DEADLINE_BASE: Duration = Duration::from_secs(300);
/// Encoding time granted per second of media: a 4K ladder on one slow core was seen at 1/20 of real time.
const DEADLINE_PER_MEDIA_SECOND: u32 = 100;
/// An encode without a frame for so long is stuck. Long, because it decodes from a keyframe and fills x264's lookahead first.
const STALL: Duration = Duration::from_secs(180);

static ENCODES_STARTED: AtomicU64 = AtomicU64::new(0);

/// FFmpeg encodes that this process has started so far: what tests count to see that finished work is not done again.
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
}

impl Limits {
    /// What encoding so much media may take.
    pub fn for_encode(media: Duration) -> Self {
        Self {
            deadline: DEADLINE_BASE.saturating_add(media.saturating_mul(DEADLINE_PER_MEDIA_SECOND)),
            stall: STALL,
            // A progress report is 250 bytes, two a second: a month of them.
            stdout_bytes: 1 << 30,
        }
    }
}

/// What a listener makes of what a program said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It got on.
    Progress,
    /// It is alive, no more.
    Nothing,
    /// No more is wanted: end it.
    Enough,
}

/// One run of one program.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Where the programs lie.
    pub tools: &'a Tools,
    /// Which to run.
    pub program: Program,
    /// Its arguments.
    pub args: &'a [OsString],
    /// Its working folder, home and place for temporary files.
    pub scratch: &'a Path,
    /// When it is ended.
    pub limits: Limits,
    /// Ends it when asked.
    pub cancel: &'a CancellationToken,
}

/// A program that succeeded, or that was ended because [`Heard::Enough`] was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// From start to end.
    pub wall: Duration,
    /// Processor time, where the system tells.
    pub cpu: Option<Duration>,
    /// The end of what it said on stderr; often empty.
    pub stderr_tail: String,
}

impl Job<'_> {
    /// Runs the program to its end. `listen` gets its stdout in pieces cut anywhere.
    ///
    /// However this ends, by return or by being dropped, the program's whole process group is killed and reaped: before the return,
    /// or by the owner thread right after a drop.
    ///
    /// # Errors
    /// Those of [`Error`], except [`Error::Frames`].
    pub async fn run(&self, mut listen: impl FnMut(&[u8]) -> Heard) -> Result<Finished, Error> {
        let program = self.program;
        if self.cancel.is_cancelled() {
            return Err(Error::Canceled { program });
        }
        let started = Instant::now();
        let mut child = child::start(self.tools, program, self.args, self.scratch).await?;
        let mut tail = Tail::default();
        let outcome = self.watch(&mut child, started, &mut tail, &mut listen).await;
        let exit = match outcome {
            Ok(Some(exit)) => exit,
            Ok(None) | Err(_) => {
                child.group.kill();
                if !child.exit.is_terminated() {
                    // A program in an uninterruptible wait stays its owner's; nobody here can hurry it.
                    let _ = timeout(REAP_WAIT, &mut child.exit).await;
                }
                outcome?;
                return Ok(Finished { wall: started.elapsed(), cpu: None, stderr_tail: tail.text() });
            }
        };
        match diagnose(program, exit.status, tail.text(), self.scratch) {
            Some(error) => Err(error),
            None => Ok(Finished { wall: started.elapsed(), cpu: exit.cpu, stderr_tail: tail.text() }),
        }
    }

    /// Listens until the program and its pipes are at their end; `None` where the listener had enough.
    async fn watch(
        &self,
        child: &mut Child,
        started: Instant,
        tail: &mut Tail,
        listen: &mut impl FnMut(&[u8]) -> Heard,
    ) -> Result<Option<Exit>, Error> {
        let (program, limits) = (self.program, self.limits);
        let broken = |source| Error::Watch { program, source };
        let mut deadline = started + limits.deadline;
        let mut stall = started + limits.stall;
        let (mut out, mut err) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
        let (mut out_open, mut err_open, mut out_bytes, mut drained, mut exit) = (true, true, 0_usize, 0_usize, None);
        while exit.is_none() || ((out_open || err_open) && drained <= DRAIN_BYTES) {
            // What a program says without end must not keep its time from running out.
            if exit.is_none() && Instant::now() >= deadline {
                return Err(Error::Deadline { program, after: limits.deadline });
            }
            tokio::select! {
                // On a machine that is overloaded both the end of a wait and what it was for may be there when this is looked at: what the
                // program said counts first.
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
                    match if read > 0 { listen(&out[..read]) } else { Heard::Nothing } {
                        Heard::Progress => stall = Instant::now() + limits.stall,
                        Heard::Nothing => {}
                        Heard::Enough => return Ok(None),
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
                        // It ended, but somebody outside its group holds its pipes: what matters has been read.
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
    /// Those of [`Job::run`]; [`Error::TooMuchOutput`] beyond the limit.
    pub async fn capture(&self) -> Result<Vec<u8>, Error> {
        let mut captured = Vec::new();
        self.run(|bytes| {
            captured.extend_from_slice(bytes);
            Heard::Progress
        })
        .await?;
        Ok(captured)
    }
}

/// One FFmpeg run of one row.
#[derive(Debug, Clone, Copy)]
pub struct Encode<'a> {
    /// What is run: `ffmpeg` with arguments of [`super::args`].
    pub job: Job<'a>,
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
    /// Those of [`Job::run`]; [`Error::Frames`] where FFmpeg was content with another number of frames than asked for.
    pub async fn run(&self, mut on_progress: impl FnMut(Progress)) -> Result<Finished, Error> {
        let (segment, rungs) = (self.segment, self.rungs);
        ENCODES_STARTED.fetch_add(1, Ordering::Relaxed);
        info!(segment, rungs, "ffmpeg started");
        let (mut parser, mut last) = (ProgressParser::default(), Progress::default());
        let finished = self
            .job
            .run(|bytes| {
                let Some(progress) = parser.push(bytes) else { return Heard::Nothing };
                let heard = if progress.is_beyond(&last) { Heard::Progress } else { Heard::Nothing };
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
mod tests {
    use std::{
        fs,
        path::PathBuf,
        sync::mpsc,
        time::{Duration, Instant as WallClock},
    };

    use super::*;
    use crate::ErrorKind;

    /// Programs that read a shell script: what FFmpeg might do, on demand.
    fn shell() -> Tools {
        Tools { ffmpeg: "/bin/sh".into(), ffprobe: "/bin/sh".into(), setpriv: Tools::from_env().unwrap().setpriv }
    }

    const GENEROUS: Limits = Limits { deadline: Duration::from_secs(60), stall: Duration::from_secs(60), stdout_bytes: 1 << 20 };

    /// Processes, zombies too, whose environment or state ties them to `scratch`.
    fn left_over(scratch: &Path) -> Vec<PathBuf> {
        let home = format!("HOME={}", scratch.display()).into_bytes();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        processes.filter(|path| fs::read(path.join("environ")).is_ok_and(|env| env.split(|b| *b == 0).any(|v| v == home))).collect()
    }

    /// Zombies among our own children: the environment of a zombie reads as nothing.
    fn is_child_of_ours(pid: &str) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parent == Some(std::process::id())
    }

    /// Waits for a condition that holds soon or never.
    async fn soon(what: &str, mut condition: impl FnMut() -> bool) {
        let start = WallClock::now();
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(10), "{what} did not come about");
            tokio::task::yield_now().await;
        }
    }

    struct Case {
        tools: Tools,
        args: Vec<OsString>,
        scratch: tempfile::TempDir,
        cancel: CancellationToken,
    }

    impl Case {
        fn script(script: &str) -> Self {
            let scratch = tempfile::tempdir().unwrap();
            Self { tools: shell(), args: vec!["-c".into(), script.into()], scratch, cancel: CancellationToken::new() }
        }

        fn job(&self, limits: Limits) -> Job<'_> {
            Job {
                tools: &self.tools,
                program: Program::Ffmpeg,
                args: &self.args,
                scratch: self.scratch.path(),
                limits,
                cancel: &self.cancel,
            }
        }
    }

    /// A script that starts a child of its own, tells its and the child's number, and then hangs.
    const HANG: &str = "sleep 1000 & echo $$ $!; wait";

    fn pids(said: &[u8]) -> Vec<String> {
        String::from_utf8_lossy(said).split_whitespace().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn a_program_gets_a_clean_environment_and_its_scratch_folder() {
        let case = Case::script("pwd; env | sort; read line || echo no stdin");
        let said = String::from_utf8(case.job(GENEROUS).capture().await.unwrap()).unwrap();
        let scratch = case.scratch.path().canonicalize().unwrap();
        let names: Vec<&str> = said.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        assert_eq!(
            names.iter().filter(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name)).copied().collect::<Vec<_>>(),
            ["HOME", "LC_ALL", "PATH", "TMPDIR"]
        );
        assert!(said.starts_with(&format!("{}\n", scratch.display())) && said.ends_with("no stdin\n"), "{said}");
    }

    #[tokio::test]
    async fn a_cancel_kills_and_reaps_the_whole_group_before_it_returns() {
        let case = Case::script(HANG);
        let mut seen = Vec::new();
        let outcome = case
            .job(GENEROUS)
            .run(|said| {
                seen = pids(said);
                case.cancel.cancel();
                Heard::Progress
            })
            .await;
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Canceled { .. }) && error.kind() == ErrorKind::Canceled);
        assert_eq!(seen.len(), 2);
        assert!(!is_child_of_ours(&seen[0]), "the program is still there or a zombie");
        soon("the end of the grandchild", || left_over(case.scratch.path()).is_empty()).await;
    }

    #[tokio::test]
    async fn deadline_and_stall_end_it() {
        let case = Case::script("while :; do echo alive; done");
        let short = Limits { deadline: Duration::from_millis(200), ..GENEROUS };
        let error = case.job(Limits { stdout_bytes: usize::MAX, ..short }).run(|_| Heard::Progress).await.unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Transient);

        // Alive is not getting on.
        let stall = Limits { stall: Duration::from_millis(200), stdout_bytes: usize::MAX, ..GENEROUS };
        let error = case.job(stall).run(|_| Heard::Nothing).await.unwrap_err();
        assert!(matches!(error, Error::Stalled { .. }), "{error}");
        assert!(left_over(case.scratch.path()).is_empty());
    }

    #[tokio::test]
    async fn progress_holds_the_stall_off() {
        // Four reports, each within the limit of the one before, together beyond it.
        let case = Case::script("for i in 1 2 3 4; do sleep 0.2; echo $i; done");
        let limits = Limits { stall: Duration::from_millis(600), ..GENEROUS };
        assert_eq!(case.job(limits).capture().await.unwrap(), b"1\n2\n3\n4\n");
    }

    #[tokio::test]
    async fn a_dropped_run_leaves_nothing() {
        let case = Case::script(HANG);
        let (tx, rx) = mpsc::channel();
        let job = case.job(GENEROUS);
        let mut run = Box::pin(job.run(move |said| {
            tx.send(pids(said)).unwrap();
            Heard::Progress
        }));
        let seen = loop {
            assert!(futures::poll!(&mut run).is_pending());
            match rx.try_recv() {
                Ok(seen) => break seen,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        drop(run);
        soon("the reaping", || !is_child_of_ours(&seen[0])).await;
        soon("the end of the group", || left_over(case.scratch.path()).is_empty()).await;
    }

    #[test]
    fn a_runtime_that_ends_leaves_nothing() {
        let case = Case::script(HANG);
        let (tx, rx) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let job = case.job(GENEROUS);
            let run = job.run(|said| {
                tx.send(pids(said)).unwrap();
                Heard::Progress
            });
            tokio::select! {
                outcome = run => panic!("ended by itself: {outcome:?}"),
                () = soon("the start", || left_over(case.scratch.path()).len() > 1) => {}
            }
        });
        drop(runtime);
        let seen = rx.try_recv();
        let start = WallClock::now();
        while !left_over(case.scratch.path()).is_empty() || seen.as_ref().is_ok_and(|seen| is_child_of_ours(&seen[0])) {
            assert!(start.elapsed() < Duration::from_secs(10), "something is left");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_program_outlives_the_thread_that_asked_for_it() {
        // The kernel's death signal goes by thread: the asking thread ends while the program runs on.
        let case = Case::script("sleep 0.3; echo done");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let job = case.job(GENEROUS);
        let mut run = Box::pin(job.capture());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                runtime.block_on(async {
                    let started = soon("the start", || !left_over(case.scratch.path()).is_empty());
                    tokio::select! { _ = &mut run => panic!("too early"), () = started => {} }
                });
            });
        });
        assert_eq!(runtime.block_on(run).unwrap(), b"done\n");
    }

    #[tokio::test]
    async fn a_flood_on_stderr_neither_blocks_nor_is_kept() {
        let case =
            Case::script("i=0; while [ $i -lt 20000 ]; do echo \"complaint $i $0 $0 $0 $0 $0\" >&2; i=$((i+1)); done; exit 3");
        let Error::Ffmpeg { status, stderr_tail, kind, .. } = case.job(GENEROUS).capture().await.unwrap_err() else {
            panic!("another end");
        };
        assert_eq!((status.as_str(), kind), ("exit code 3", ErrorKind::BadInput));
        assert!(stderr_tail.len() <= 8192 && stderr_tail.contains("complaint 19999"), "{stderr_tail}");
    }

    #[tokio::test]
    async fn a_flood_by_one_outside_the_group_does_not_hold_an_end_up() {
        // It lives until its pipe is closed.
        let case = Case::script("setsid sh -c 'while :; do echo flood >&2; done' & echo done");
        let begun = WallClock::now();
        assert_eq!(case.job(GENEROUS).capture().await.unwrap(), b"done\n");
        assert!(begun.elapsed() < DRAIN_WAIT, "{:?}", begun.elapsed());
        soon("the end of the flood", || left_over(case.scratch.path()).is_empty()).await;
    }

    #[tokio::test]
    async fn a_flood_on_stdout_is_ended() {
        let case = Case::script("while :; do echo flood; done");
        let error = case.job(GENEROUS).capture().await.unwrap_err();
        assert!(matches!(error, Error::TooMuchOutput { limit_bytes: 1_048_576, .. }), "{error}");
        assert!(left_over(case.scratch.path()).is_empty());
    }

    #[tokio::test]
    async fn enough_ends_it_without_an_error() {
        let case = Case::script("echo first; sleep 1000");
        case.job(GENEROUS).run(|_| Heard::Enough).await.unwrap();
        assert!(left_over(case.scratch.path()).is_empty());
    }

    #[tokio::test]
    async fn a_kill_from_outside_may_be_tried_again() {
        let error = Case::script("kill -KILL $$").job(GENEROUS).capture().await.unwrap_err();
        assert!(matches!(error, Error::Killed { .. }) && error.kind() == ErrorKind::Transient, "{error}");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let mut case = Case::script("");
        case.tools.ffmpeg = "/nonexistent/ffmpeg".into();
        let error = case.job(GENEROUS).capture().await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/ffmpeg not found: install it with"), "{error}");
    }

    #[tokio::test]
    async fn too_few_frames_are_an_error_and_encodes_are_counted() {
        let case = Case::script("printf 'frame=59\\nout_time_us=1\\nprogress=end\\n'");
        let before = encodes_started();
        let encode = |frames| Encode { job: case.job(GENEROUS), segment: 3, rungs: 2, frames };
        let mut last = None;
        encode(Some(59)).run(|progress| last = Some(progress)).await.unwrap();
        assert!(last.is_some_and(|progress| progress.done && progress.frame == 59));
        let error = encode(Some(60)).run(|_| {}).await.unwrap_err();
        assert!(matches!(error, Error::Frames { expected: 60, encoded: 59, .. }), "{error}");
        assert!(encodes_started() >= before + 2);
    }

    #[tokio::test]
    async fn processor_time_is_told() {
        let case = Case::script("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done");
        let finished = case.job(GENEROUS).run(|_| Heard::Nothing).await.unwrap();
        let cpu = finished.cpu.unwrap();
        assert!(cpu > Duration::from_millis(20) && cpu <= finished.wall + Duration::from_millis(50), "{finished:?}");
    }

    /// A parent that is killed takes its FFmpeg along. The parent is this very test, run again by itself in a process of its own.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test needs a parent that it may kill")]
    fn a_killed_parent_takes_its_ffmpeg_along() {
        const VARIABLE: &str = "SPOOL_TEST_PARENT_SCRATCH";
        if let Some(scratch) = std::env::var_os(VARIABLE) {
            // The parent-to-be: a real, endless encode.
            let args = "-nostdin -loglevel error -progress pipe:1 -f lavfi -i testsrc=s=64x64:r=5 -vf realtime -f null -";
            let args: Vec<OsString> = args.split(' ').map(OsString::from).collect();
            let (tools, cancel) = (Tools::from_env().unwrap(), CancellationToken::new());
            let job = Job {
                tools: &tools,
                program: Program::Ffmpeg,
                args: &args,
                scratch: Path::new(&scratch),
                limits: GENEROUS,
                cancel: &cancel,
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(job.run(|_| Heard::Progress)).unwrap();
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ffmpeg::process::tests::a_killed_parent_takes_its_ffmpeg_along", "--nocapture"])
            .env(VARIABLE, scratch.path())
            .spawn()
            .unwrap();
        let start = WallClock::now();
        let runs_ffmpeg = |path: &PathBuf| fs::read_link(path.join("exe")).is_ok_and(|exe| exe.ends_with("ffmpeg"));
        while !left_over(scratch.path()).iter().any(runs_ffmpeg) {
            assert!(start.elapsed() < Duration::from_secs(20), "no ffmpeg came up");
            std::thread::yield_now();
        }
        parent.kill().unwrap();
        let killed = WallClock::now();
        while !left_over(scratch.path()).is_empty() {
            assert!(killed.elapsed() < Duration::from_secs(1), "ffmpeg outlives its parent");
            std::thread::yield_now();
        }
        println!("gone {} ms after its parent was killed", killed.elapsed().as_millis());
        parent.wait().unwrap();
    }
}
