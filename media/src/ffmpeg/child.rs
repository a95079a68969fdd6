//! The owner of a started program: a thread that starts it, waits for it, kills its process group and reaps
//! it.
//!
//! A thread instead of tokio's child: the kernel's death signal fires when the *thread* that started the
//! program ends, and runtime threads come and go; and a tokio child that is dropped is reaped only while some
//! runtime still runs. The owner lives exactly as long as its program. There are hardly more programs than
//! slots, so the threads are few.
//!
//! No program outlives this process. Measured: FFmpeg 5.1 ignores `SIGPIPE`, a broken progress pipe and the
//! end of its stdin, so it continues to encode after its parent was killed with `SIGKILL`. With the death
//! signal, which the [sandbox](mod@super::sandbox) requests, it ends a few milliseconds later.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use futures::{FutureExt, future::Fuse};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use tokio::{
    process::{ChildStderr, ChildStdout},
    sync::oneshot,
};

use super::{
    Error, Invocation, Program, SandboxMode,
    sandbox::{self, Sandbox},
};

/// Ticks per second of the times in `/proc/<pid>/stat`: 100 on every Linux.
const PROC_TICKS_PER_SECOND: u64 = 100;

/// A running program. When it is dropped, its whole process group is killed, and its owner reaps it.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) group: KillOnDrop,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
    /// Sent by the owner once the program is reaped.
    pub(super) exit: Fuse<oneshot::Receiver<io::Result<Exit>>>,
}

/// Guard of a running program: kills its process group when dropped.
#[derive(Debug)]
pub(super) struct KillOnDrop(Arc<Group>);

/// End of a program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exit {
    pub(super) status: ExitStatus,
    /// Processor time over all its threads.
    pub(super) cpu: Option<Duration>,
}

/// A process group. It is killed only before its leader is reaped: after that its number may belong to
/// another process.
#[derive(Debug)]
struct Group {
    leader: Pid,
    reaped: Mutex<bool>,
}

/// Handles that the owner sends once the program runs.
type Started = (KillOnDrop, std::process::ChildStdout, std::process::ChildStderr);

/// Starts the program of a job in a process group of its own, in its scratch folder, with an environment
/// without secrets. With `report`, FFmpeg writes its log at level "info" to that file in the folder.
pub(super) async fn start(job: &Invocation<'_>, report: Option<&str>) -> Result<Child, Error> {
    let Invocation { tools, program, scratch, .. } = *job;
    let path = tools.path(program);
    if !path.exists() {
        let variable = if program == Program::Ffmpeg { "SPOOL_FFMPEG" } else { "SPOOL_FFPROBE" };
        return Err(Error::Missing { program: path.display().to_string(), package: "ffmpeg", variable });
    }
    let failed = |source| Error::Start { program, source };
    let mut command = command(job, path).map_err(failed)?;
    command
        .process_group(0)
        .current_dir(scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_clear()
        .env("LC_ALL", "C")
        .env("HOME", scratch)
        .env("TMPDIR", scratch)
        // SVT-AV1 prints its settings to stderr, where errors are expected; at level 1 it prints errors only.
        .env("SVT_LOG", "1")
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        // 32 is the level "info". It is not set by -loglevel: the texts of a source would be mixed with
        // FFmpeg's errors on stderr.
        .envs(report.map(|name| ("FFREPORT", format!("file={name}:level=32"))));
    let (started_tx, started_rx) = oneshot::channel();
    let (exit_tx, exit_rx) = oneshot::channel();
    thread::Builder::new()
        .name(format!("{program} owner"))
        .spawn(move || own(command, started_tx, exit_tx))
        .map_err(failed)?;
    let (group, stdout, stderr) =
        started_rx.await.map_err(|_| failed(io::ErrorKind::Other.into()))?.map_err(failed)?;
    let stdout = ChildStdout::from_std(stdout).map_err(failed)?;
    let stderr = ChildStderr::from_std(stderr).map_err(failed)?;
    Ok(Child { group, stdout, stderr, exit: exit_rx.fuse() })
}

#[expect(clippy::disallowed_methods, reason = "this is the one place where processes are started")]
fn command(job: &Invocation<'_>, path: &Path) -> io::Result<Command> {
    let mut command = if job.tools.confinement == SandboxMode::None {
        Command::new(path)
    } else {
        let mut command = Command::new(sandbox::OWN);
        command.args([sandbox::COMMAND, &serde_json::to_string(&sandbox(job, path))?]).arg(path);
        command
    };
    command.args(job.args);
    Ok(command)
}

/// Returns the sandbox of an invocation's program.
fn sandbox(job: &Invocation<'_>, path: &Path) -> Sandbox {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    Sandbox {
        parent: i32::try_from(std::process::id()).unwrap_or_default(),
        confined: job.tools.confinement == SandboxMode::All && !sandbox::is_script(path),
        // Relative to the scratch folder, which is the program's working folder.
        reads: job.input.map(|input| job.scratch.join(input).into()).into_iter().collect(),
        libraries: job.tools.libraries.iter().map(|folder| folder.clone().into()).collect(),
        // ffprobe writes nothing, and its working folder may be the source's.
        writes: (job.program == Program::Ffmpeg).then(|| job.scratch.into()),
        memory_bytes: job.limits.memory_bytes,
        cpu_s: job.limits.deadline.as_secs().saturating_mul(cores),
        file_bytes: job.limits.file_bytes,
    }
}

impl KillOnDrop {
    /// Kills the whole process group. The owner reaps it and sends the exit to [`Child::exit`].
    pub(super) fn kill(&self) {
        self.0.kill();
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Group {
    fn kill(&self) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            // Fails only if no process of the group is left.
            let _ = killpg(self.leader, Signal::SIGKILL);
        }
    }
}

/// Number of running programs of this process.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Poll interval of [`all_gone`].
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until no program of this process runs, or until the deadline. A process calls it before it ends, so
/// that it leaves no program behind.
pub async fn all_gone(deadline: Duration) {
    let gone = async {
        while RUNNING.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // The kernel kills the rest after the deadline, with this process.
    let _ = tokio::time::timeout(deadline, gone).await;
}

/// Starts the program, waits for its end and reaps it. Body of the owner thread.
fn own(
    mut command: Command,
    started: oneshot::Sender<io::Result<Started>>,
    exit: oneshot::Sender<io::Result<Exit>>,
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // Fails only if the receiver is gone and needs no answer.
            let _ = started.send(Err(error));
            return;
        }
    };
    RUNNING.fetch_add(1, Ordering::AcqRel);
    // The kernel assigns no process id that does not fit. The fallback is not 0, which would mean this
    // process's own group.
    let leader = i32::try_from(child.id()).unwrap_or(i32::MAX);
    let group = Arc::new(Group { leader: Pid::from_raw(leader), reaped: Mutex::new(false) });
    let wanted = KillOnDrop(Arc::clone(&group));
    if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
        // If the caller is gone, this drops `wanted`, which kills the program.
        let _ = started.send(Ok((wanted, stdout, stderr)));
    }
    // Waits without reaping: the process id stays valid until the program is reaped.
    while waitid(Id::Pid(group.leader), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    let cpu = cpu_time(group.leader);
    // Kills processes that the program has started, and with them the last writers of its pipes.
    group.kill();
    let status = {
        let mut reaped = group.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        let status = child.wait();
        *reaped = true;
        status
    };
    RUNNING.fetch_sub(1, Ordering::AcqRel);
    let _ = exit.send(status.map(|status| Exit { status, cpu }));
}

/// Returns the processor time of a process that has ended but is not reaped yet, with a resolution of 10 ms.
fn cpu_time(pid: Pid) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): the second field is the name in parentheses and may hold anything; utime and stime are fields
    // 14 and 15.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(|field| field.parse::<u64>().ok());
    let ticks = times.next()??.checked_add(times.next()??)?;
    Some(Duration::from_millis(ticks.saturating_mul(1000 / PROC_TICKS_PER_SECOND)))
}
