//! Runs `spool` as a process, and inspects what it printed, wrote and left behind.

use std::{
    ffi::OsStr,
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Longest run time of a command in a test. A command that takes longer hangs, and is ended.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);

/// Interval at which a condition is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Time within which the processes of a `spool` that ended are gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Ports that Linux does not assign to clients: a process that is killed finds its own port free when it
/// starts again.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Returns a port of loopback on which no process listens.
///
/// # Panics
/// If all of them are taken.
pub fn port() -> u16 {
    static ASKED: AtomicU16 = AtomicU16::new(0);
    let ports = PORTS.end - PORTS.start;
    // Tests that run at the same time begin at different ports.
    let first = (std::process::id().wrapping_mul(97) % u32::from(ports)) as u16;
    let mut candidates = (0..ports).map(|_| {
        let asked = ASKED.fetch_add(1, Ordering::Relaxed) % ports;
        PORTS.start + ((u32::from(first) + u32::from(asked)) % u32::from(ports)) as u16
    });
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// Returns the binary that this workspace built: beside this program, or above the folder of tests and
/// examples.
///
/// # Panics
/// If the binary is not built: `cargo build --workspace` comes first.
pub fn binary() -> PathBuf {
    let ours = std::env::current_exe().unwrap();
    let mut folders = ours.ancestors().skip(1).take(2).map(|folder| folder.join("spool"));
    folders
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("there is no spool near {}: build the workspace first", ours.display()))
}

/// Waits until `condition` returns a value.
///
/// # Panics
/// If the condition is not met in time.
pub fn wait_until<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(started.elapsed() < within, "waited {within:?} in vain for {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Returns the command lines of the processes whose working folder or arguments lie in this scratch folder.
///
/// # Panics
/// If `/proc` cannot be read.
pub fn processes_in(scratch: &Path) -> Vec<String> {
    let numbered = |name: &OsStr| name.to_string_lossy().chars().all(|c| c.is_ascii_digit());
    let entries = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| numbered(&entry.file_name()));
    let found = entries.filter_map(|entry| {
        // Processes come and go during the listing.
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let inside = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(scratch));
        let named = line.contains(&*scratch.to_string_lossy());
        (inside || named).then_some(line)
    });
    found.collect()
}

/// Command line of `spool`, with its own scratch space and without the caller's settings.
#[derive(Debug)]
pub struct Spool {
    command: Command,
    scratch: Scratch,
}

/// Folder for the intermediate files of a `spool`.
#[derive(Debug)]
pub enum Scratch {
    /// Folder that is deleted with this value.
    Own(tempfile::TempDir),
    /// Folder that another value owns.
    Shared(PathBuf),
}

impl Scratch {
    /// Returns the path.
    pub fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Shared(path) => path,
        }
    }
}

/// Result of a command.
#[derive(Debug)]
pub struct CommandOutput {
    /// Exit code; `None` if a signal ended the process.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error: progress, logs and messages.
    pub stderr: String,
    /// Files that the command left in scratch space.
    pub leftover_files: Vec<PathBuf>,
    /// Time from start to end.
    pub took: Duration,
    /// Folder that was the scratch space.
    pub scratch: PathBuf,
}

impl Spool {
    /// Creates a command line of `spool` with these arguments.
    pub fn new<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(binary());
        command.args(args);
        Self::of(command)
    }

    /// Creates a command line of `spool` to which file permissions apply even if the tests run as root.
    pub fn unprivileged<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        // The owner of a process owns its folder in `/proc`.
        if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
            return Self::new(args);
        }
        // The user stays root, to start the binary and to write the scratch space, but file modes apply to
        // it.
        let without = "-dac_override,-dac_read_search";
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", without, "--inh-caps", without, "--"]).arg(binary()).args(args);
        Self::of(command)
    }

    /// Creates a command line of `spool` that runs in a network namespace.
    pub fn inside<S: AsRef<OsStr>>(namespace: &str, args: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(binary()).args(args);
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().into_owned();
            if ["SPOOL_", "AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        // No home: it holds the caller's profiles.
        let home = scratch.path().join("no-home");
        command
            .env("SPOOL_SCRATCH", scratch.path())
            .env("HOME", home)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        Self { command, scratch: Scratch::Own(scratch) }
    }

    /// Runs the command in a folder.
    #[must_use]
    pub fn current_dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Adds an environment variable, returning the updated value.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Adds environment variables, returning the updated value.
    #[must_use]
    pub fn envs(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.command.envs(variables);
        self
    }

    /// Sets the folder of the intermediate files, which is not deleted, returning the updated value.
    #[must_use]
    pub fn scratch(mut self, folder: &Path) -> Self {
        self.command.env("SPOOL_SCRATCH", folder);
        self.scratch = Scratch::Shared(folder.to_owned());
        self
    }

    /// Runs the command to its end.
    ///
    /// # Panics
    /// If the command cannot be started, or hangs.
    pub fn run(self) -> CommandOutput {
        self.start().wait()
    }

    /// Runs the command and expects success.
    ///
    /// # Panics
    /// If the command fails; the message holds its stderr.
    pub fn ok(self) -> CommandOutput {
        let ran = self.run();
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran
    }

    /// Starts a long-running command whose log is appended to a file.
    ///
    /// # Panics
    /// If the command cannot be started.
    pub fn start_logged(mut self, log: &Path) -> Running {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let child = self.command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        Running { child, scratch: self.scratch, started: Instant::now() }
    }

    /// Starts the command. The scratch folder lives as long as the returned value.
    ///
    /// # Panics
    /// If the command cannot be started.
    pub fn start(mut self) -> Running {
        let started = Instant::now();
        let child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child, scratch: self.scratch, started }
    }
}

/// A running `spool`.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub child: Child,
    /// Scratch space of the process.
    pub scratch: Scratch,
    started: Instant,
}

impl Running {
    /// Sends a signal.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// If the process cannot be waited for, or hangs: then it is killed.
    pub fn wait(self) -> CommandOutput {
        let pid = self.pid();
        let (sender, receiver) = mpsc::channel();
        let Self { child, scratch, started } = self;
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let output = receiver.recv_timeout(COMMAND_TIMEOUT).unwrap_or_else(|_| {
            kill(pid, Signal::SIGKILL).unwrap();
            let output = receiver.recv().unwrap().unwrap();
            panic!(
                "spool did not end within {COMMAND_TIMEOUT:?}; stderr: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        });
        CommandOutput::of(&output.unwrap(), scratch.path(), started.elapsed())
    }
}

impl CommandOutput {
    fn of(output: &Output, scratch: &Path, took: Duration) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            // A command without scratch space leaves nothing in it.
            leftover_files: std::fs::read_dir(scratch)
                .into_iter()
                .flatten()
                .map(|entry| entry.unwrap().path())
                .collect(),
            took,
            scratch: scratch.to_owned(),
        }
    }

    /// Returns standard output as JSON.
    ///
    /// # Panics
    /// If standard output is no JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.stdout, self.stderr))
    }

    /// Returns the numbers of rungs that `spool transcode --output json` reports as encoded and as reused,
    /// over all rows.
    pub fn tally(&self) -> (u64, u64) {
        let json = self.json();
        (json["tally"]["encoded"].as_u64().unwrap(), json["tally"]["reused"].as_u64().unwrap())
    }

    /// Expects that no file is left in scratch space and that all processes are gone within two seconds.
    ///
    /// # Panics
    /// If a file or a process is left.
    pub fn expect_no_leftovers(&self) {
        assert!(self.leftover_files.is_empty(), "left in scratch space: {:?}", self.leftover_files);
        self.expect_no_processes();
    }

    /// Expects that all processes are gone within two seconds.
    ///
    /// # Panics
    /// If a process is left.
    pub fn expect_no_processes(&self) {
        wait_until(&format!("the end of the processes in {}", self.scratch.display()), EXIT_TIMEOUT, || {
            processes_in(&self.scratch).is_empty().then_some(())
        });
    }
}
