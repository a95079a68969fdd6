use std::{
    fs,
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant as WallClock},
};

use super::*;
use crate::ffmpeg::SandboxMode;
use spool_storage::ErrorKind;

/// Programs that run a shell script in FFmpeg's place.
fn shell() -> Tools {
    Tools {
        ffmpeg: "/bin/sh".into(),
        ffprobe: "/bin/sh".into(),
        confinement: SandboxMode::None,
        libraries: Vec::new(),
    }
}

const GENEROUS: Limits = Limits {
    deadline: Duration::from_secs(60),
    stall: Duration::from_secs(60),
    stdout_bytes: 1 << 20,
    memory_bytes: 1 << 30,
    file_bytes: 1 << 20,
};

/// Processes, zombies too, whose environment or state ties them to `scratch`.
fn left_over(scratch: &Path) -> Vec<PathBuf> {
    let home = format!("HOME={}", scratch.display()).into_bytes();
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    processes
        .filter(|path| {
            fs::read(path.join("environ")).is_ok_and(|env| env.split(|b| *b == 0).any(|v| v == home))
        })
        .collect()
}

/// Zombies among this process's children: the environment of a zombie reads as empty.
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
        Self {
            tools: shell(),
            args: vec!["-c".into(), script.into()],
            scratch,
            cancel: CancellationToken::new(),
        }
    }

    fn job(&self, limits: Limits) -> Invocation<'_> {
        Invocation {
            tools: &self.tools,
            program: Program::Ffmpeg,
            args: &self.args,
            scratch: self.scratch.path(),
            input: None,
            limits,
            cancel: &self.cancel,
            report: false,
        }
    }
}

/// A script that starts a child of its own, prints its own pid and the child's, and then hangs.
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
        names
            .iter()
            .filter(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name))
            .copied()
            .collect::<Vec<_>>(),
        ["HOME", "LC_ALL", "PATH", "SVT_LOG", "TMPDIR"]
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
            OutputVerdict::Progress
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
    let error = case
        .job(Limits { stdout_bytes: usize::MAX, ..short })
        .run(|_| OutputVerdict::Progress)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Transient);

    // A program may be alive without making progress.
    let stall = Limits { stall: Duration::from_millis(200), stdout_bytes: usize::MAX, ..GENEROUS };
    let error = case.job(stall).run(|_| OutputVerdict::Nothing).await.unwrap_err();
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
        OutputVerdict::Progress
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
            OutputVerdict::Progress
        });
        tokio::select! {
            outcome = run => panic!("ended by itself: {outcome:?}"),
            () = soon("the start", || left_over(case.scratch.path()).len() > 1) => {}
        }
    });
    drop(runtime);
    let seen = rx.try_recv();
    let start = WallClock::now();
    while !left_over(case.scratch.path()).is_empty()
        || seen.as_ref().is_ok_and(|seen| is_child_of_ours(&seen[0]))
    {
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
    let case = Case::script(
        "i=0; while [ $i -lt 20000 ]; do echo \"complaint $i $0 $0 $0 $0 $0\" >&2; i=$((i+1)); done; exit 3",
    );
    let Error::Ffmpeg { status, stderr_tail, kind, .. } = case.job(GENEROUS).capture().await.unwrap_err()
    else {
        panic!("another end");
    };
    assert_eq!((status.as_str(), kind), ("exit code 3", ErrorKind::BadInput));
    assert!(stderr_tail.len() <= 8192 && stderr_tail.contains("complaint 19999"), "{stderr_tail}");
}

#[tokio::test]
async fn a_flood_by_one_outside_the_group_does_not_hold_an_end_up() {
    // The program runs until its pipe is closed.
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
    case.job(GENEROUS).run(|_| OutputVerdict::Enough).await.unwrap();
    // The program is reaped. Its children are killed, and disappear a little later.
    soon("the end of what it started", || left_over(case.scratch.path()).is_empty()).await;
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
async fn processor_time_is_reported() {
    let case = Case::script("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done");
    let finished = case.job(GENEROUS).run(|_| OutputVerdict::Nothing).await.unwrap();
    let cpu = finished.cpu.unwrap();
    assert!(
        cpu > Duration::from_millis(20) && cpu <= finished.wall + Duration::from_millis(50),
        "{finished:?}"
    );
}
