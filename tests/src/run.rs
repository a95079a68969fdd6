//! How is `spool` run, and what did it do?

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

/// What no command of a test takes: one that does hangs, and is ended.
const HANGS: Duration = Duration::from_secs(300);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long processes of a `spool` that ended may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// Ports that no system gives to whoever connects: what is killed finds its own free when it is started again.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// A port of loopback on which nobody listens.
///
/// # Panics
/// Where all of them are taken.
pub fn port() -> u16 {
    static ASKED: AtomicU16 = AtomicU16::new(0);
    let ports = PORTS.end - PORTS.start;
    // Other tests begin elsewhere.
    let first = (std::process::id().wrapping_mul(97) % u32::from(ports)) as u16;
    let mut candidates = (0..ports).map(|_| {
        let asked = ASKED.fetch_add(1, Ordering::Relaxed) % ports;
        PORTS.start + ((u32::from(first) + u32::from(asked)) % u32::from(ports)) as u16
    });
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// The binary that this workspace built: beside this program, or above the folder of tests and examples.
///
/// # Panics
/// Where it is not built: `cargo build --workspace` comes first.
pub fn binary() -> PathBuf {
    let ours = std::env::current_exe().unwrap();
    let mut folders = ours.ancestors().skip(1).take(2).map(|folder| folder.join("spool"));
    folders
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("there is no spool near {}: build the workspace first", ours.display()))
}

/// Waits until `condition` gives something.
///
/// # Panics
/// Where it does not in time.
pub fn until<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(started.elapsed() < within, "waited {within:?} in vain for {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Command lines of processes that work in this scratch folder, or were told of a file in it.
///
/// # Panics
/// Where the system shows no processes.
pub fn processes_in(scratch: &Path) -> Vec<String> {
    let numbered = |name: &OsStr| name.to_string_lossy().chars().all(|c| c.is_ascii_digit());
    let entries = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| numbered(&entry.file_name()));
    let found = entries.filter_map(|entry| {
        // Processes come and go while they are looked at.
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let inside = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(scratch));
        let told = line.contains(&*scratch.to_string_lossy());
        (inside || told).then_some(line)
    });
    found.collect()
}

/// A command line of `spool`, with scratch space of its own and nothing of the caller's settings.
#[derive(Debug)]
pub struct Spool {
    command: Command,
    scratch: Scratch,
}

/// Where a `spool` keeps its intermediate files.
#[derive(Debug)]
pub enum Scratch {
    /// A folder that goes with this value.
    Own(tempfile::TempDir),
    /// A folder that somebody else keeps.
    Shared(PathBuf),
}

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Shared(path) => path,
        }
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error: progress, logs and messages.
    pub stderr: String,
    /// Files that were left in scratch space.
    pub left: Vec<PathBuf>,
    /// How long it took, from its start to its end.
    pub took: Duration,
    /// The folder that was its scratch space.
    pub scratch: PathBuf,
}

impl Spool {
    /// `spool` with these arguments.
    pub fn new<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(binary());
        command.args(args);
        Self::of(command)
    }

    /// `spool` with these arguments, for whom permissions count even where the tests run as root.
    pub fn unprivileged<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        // Who owns a process is who owns its folder here.
        if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
            return Self::new(args);
        }
        // Still root, so that it may start the binary and write its own scratch space, but bound by the bits of what is root's.
        let without = "-dac_override,-dac_read_search";
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", without, "--inh-caps", without, "--"]).arg(binary()).args(args);
        Self::of(command)
    }

    /// `spool` with these arguments, in a network namespace.
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
        // No home: the caller's profiles are in it.
        let home = scratch.path().join("no-home");
        command
            .env("SPOOL_SCRATCH", scratch.path())
            .env("HOME", home)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        Self { command, scratch: Scratch::Own(scratch) }
    }

    /// With an environment variable more.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// With these environment variables more.
    #[must_use]
    pub fn envs(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.command.envs(variables);
        self
    }

    /// With its intermediate files in this folder, which stays.
    #[must_use]
    pub fn scratch(mut self, folder: &Path) -> Self {
        self.command.env("SPOOL_SCRATCH", folder);
        self.scratch = Scratch::Shared(folder.to_owned());
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// Where it cannot be started, or hangs.
    pub fn run(self) -> Ran {
        self.start().wait()
    }

    /// Runs it and expects success.
    ///
    /// # Panics
    /// Where it fails; the message holds its stderr.
    pub fn ok(self) -> Ran {
        let ran = self.run();
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran
    }

    /// Starts what runs for long: what it logs is added to a file.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start_logged(mut self, log: &Path) -> Running {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let child = self.command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        Running { child, scratch: self.scratch, started: Instant::now() }
    }

    /// Starts it; the scratch folder lives as long as what is returned.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start(mut self) -> Running {
        let started = Instant::now();
        let child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child, scratch: self.scratch, started }
    }
}

/// A `spool` that runs.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub child: Child,
    /// Its scratch space.
    pub scratch: Scratch,
    started: Instant,
}

impl Running {
    /// Sends a signal.
    ///
    /// # Panics
    /// Where the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it cannot be waited for, or hangs: then it is killed.
    pub fn wait(self) -> Ran {
        let pid = self.pid();
        let (sender, receiver) = mpsc::channel();
        let Self { child, scratch, started } = self;
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let output = receiver.recv_timeout(HANGS).unwrap_or_else(|_| {
            kill(pid, Signal::SIGKILL).unwrap();
            let output = receiver.recv().unwrap().unwrap();
            panic!(
                "spool did not end within {HANGS:?}; it said: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        });
        Ran::of(&output.unwrap(), scratch.path(), started.elapsed())
    }
}

impl Ran {
    fn of(output: &Output, scratch: &Path, took: Duration) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            // Where there was no scratch to be had, nothing is left in it.
            left: std::fs::read_dir(scratch)
                .into_iter()
                .flatten()
                .map(|entry| entry.unwrap().path())
                .collect(),
            took,
            scratch: scratch.to_owned(),
        }
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// Where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.stdout, self.stderr))
    }

    /// Rungs of rows that `spool transcode --output json` says it encoded, and reused.
    pub fn tally(&self) -> (u64, u64) {
        let json = self.json();
        (json["tally"]["encoded"].as_u64().unwrap(), json["tally"]["reused"].as_u64().unwrap())
    }

    /// Expects that nothing of it is left: no file in scratch space and, within two seconds, no process.
    ///
    /// # Panics
    /// Where something is.
    pub fn leaves_nothing(&self) {
        assert!(self.left.is_empty(), "left in scratch space: {:?}", self.left);
        self.leaves_no_process();
    }

    /// Expects that within two seconds no process of it is left.
    ///
    /// # Panics
    /// Where one is.
    pub fn leaves_no_process(&self) {
        until(&format!("the end of what works in {}", self.scratch.display()), GONE_WITHIN, || {
            processes_in(&self.scratch).is_empty().then_some(())
        });
    }
}
