//! A cluster of real processes: a scheduler, executors that join and leave, and clients.
//!
//! Each role has its own folder, with its log and its scratch space.

mod network;

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

pub use self::network::Network;
use crate::{
    mount::Mount,
    run::{Spool, binary, processes_in, wait_until},
};

/// Time within which a role starts on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Lines of a role's log that a failed test prints.
const LAST_LINES: usize = 60;

/// Time within which the processes of a role that ended are gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// A scheduler and executors.
#[derive(Debug)]
pub struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    scheduler: Option<Role>,
    scheduler_args: Vec<String>,
    executors: Vec<Option<Role>>,
    ffmpeg: Option<PathBuf>,
    network: Option<Network>,
    scratch_bytes: Option<u64>,
    clock: Option<Clock>,
    tls: Option<Tls>,
}

/// Certificates by which the harness talks to a scheduler with mutual TLS.
#[derive(Debug)]
struct Tls {
    folder: PathBuf,
    member: String,
}

/// Wall clock that a test can set, for the roles that are started with it.
#[derive(Debug, Clone)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// Creates a clock without an offset, kept in `folder`.
    ///
    /// # Panics
    /// If libfaketime is missing: `make setup` comes first.
    pub fn new(folder: &Path) -> Self {
        let listed =
            Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"]).output().unwrap();
        let library = String::from_utf8_lossy(&listed.stdout).lines().next().map(PathBuf::from);
        let clock = Self {
            library: library.expect("libfaketime is missing: run `make setup` first"),
            file: folder.join("clock"),
        };
        clock.jump(0);
        clock
    }

    /// Sets the clock so many hours ahead, or behind.
    ///
    /// # Panics
    /// If the clock cannot be set.
    pub fn jump(&self, hours: i32) {
        std::fs::write(&self.file, format!("{hours:+}h\n")).unwrap();
    }

    fn of(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        // Only the wall clock: no system sets the monotonic one.
        command
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_RESET", "1");
    }
}

/// A process with its own folder.
#[derive(Debug)]
pub struct Role {
    child: Child,
    folder: PathBuf,
    _scratch: Option<Mount>,
}

impl Cluster {
    /// Starts a scheduler with these additional arguments on a free port, and executors with one slot each
    /// that run this FFmpeg.
    ///
    /// # Panics
    /// If a role does not start.
    pub fn start(executors: usize, ffmpeg: &Path, scheduler_args: &[&str]) -> Self {
        Self::start_in(None, None, executors, ffmpeg, scheduler_args)
    }

    /// Starts a cluster with each role in its own network namespace, and with limited scratch space per
    /// executor.
    ///
    /// # Panics
    /// If a role does not start.
    pub fn start_in(
        network: Option<Network>,
        scratch_bytes: Option<u64>,
        executors: usize,
        ffmpeg: &Path,
        scheduler_args: &[&str],
    ) -> Self {
        let mut cluster = Self::new(ffmpeg, scheduler_args);
        (cluster.network, cluster.scratch_bytes) = (network, scratch_bytes);
        cluster.start_scheduler();
        for _ in 0..executors {
            cluster.add_executor(&[]);
        }
        cluster.wait_for_slots(executors);
        cluster
    }

    /// Starts a scheduler with mutual TLS by these arguments, and no executor. The harness presents the
    /// certificate of `member` in `folder`.
    ///
    /// # Panics
    /// If the scheduler does not start.
    pub fn start_with_tls(ffmpeg: &Path, scheduler_args: &[&str], folder: &Path, member: &str) -> Self {
        let mut cluster = Self::new(ffmpeg, scheduler_args);
        cluster.tls = Some(Tls { folder: folder.to_owned(), member: member.to_owned() });
        cluster.start_scheduler();
        cluster
    }

    /// Returns a cluster in which nothing runs yet.
    fn new(ffmpeg: &Path, scheduler_args: &[&str]) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            port: TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
            scheduler: None,
            scheduler_args: scheduler_args.iter().map(|arg| (*arg).to_owned()).collect(),
            executors: Vec::new(),
            ffmpeg: Some(ffmpeg.to_owned()),
            network: None,
            scratch_bytes: None,
            clock: None,
            tls: None,
        }
    }

    /// Returns the certificate that the scheduler presents, in PEM.
    ///
    /// # Panics
    /// If the scheduler presents none.
    pub fn certificate(&self) -> String {
        let script = "import ssl, sys; print(ssl.get_server_certificate(('127.0.0.1', int(sys.argv[1]))))";
        let output = Command::new("python3").args(["-c", script, &self.port.to_string()]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Sets the clock of the roles that are started from now on.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    /// Returns `HOST:PORT` of the scheduler.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Creates a command that uses this cluster.
    pub fn spool(&self, args: &[&str]) -> Spool {
        let address = self.address();
        let args = args.iter().copied().chain(["--cluster", &address]);
        let spool = match &self.network {
            Some(network) => Spool::inside(&network.scheduler(), args),
            None => Spool::new(args),
        };
        spool.env("XDG_STATE_HOME", self.folder.path())
    }

    /// Starts or restarts the scheduler, and waits until it listens.
    ///
    /// # Panics
    /// If the scheduler does not start.
    pub fn start_scheduler(&mut self) {
        let (listen, inside) = match &self.network {
            Some(network) => (format!("0.0.0.0:{}", self.port), Some(network.scheduler())),
            None => (self.address(), None),
        };
        let mut args = vec!["scheduler".to_owned(), "--listen".to_owned(), listen];
        if inside.is_some() {
            args.push("--insecure".to_owned());
        }
        args.extend(self.scheduler_args.iter().cloned());
        self.scheduler = Some(self.role("scheduler", &args, None, inside));
        wait_until("the scheduler", START_TIMEOUT, || self.http("GET", "/livez"));
    }

    /// Adds an executor with one slot, and returns its number.
    ///
    /// # Panics
    /// If the executor does not start.
    pub fn add_executor(&mut self, more: &[&str]) -> usize {
        self.add_executor_with_slots(1, more)
    }

    /// Adds an executor with several slots, and returns its number.
    ///
    /// # Panics
    /// If the executor does not start.
    pub fn add_executor_with_slots(&mut self, slots: usize, more: &[&str]) -> usize {
        let ffmpeg = self.ffmpeg.clone();
        self.start_executor(slots, more, ffmpeg)
    }

    /// Adds an executor with one slot and another FFmpeg, and returns its number.
    ///
    /// # Panics
    /// If the executor does not start.
    pub fn add_executor_with_ffmpeg(&mut self, more: &[&str], ffmpeg: Option<PathBuf>) -> usize {
        self.start_executor(1, more, ffmpeg)
    }

    fn start_executor(&mut self, slots: usize, more: &[&str], ffmpeg: Option<PathBuf>) -> usize {
        let number = self.executors.len();
        let (scheduler, inside) = match &self.network {
            Some(network) => {
                (format!("{}:{}", network.add_executor(number), self.port), Some(network.executor(number)))
            }
            None => (self.address(), None),
        };
        let mut args: Vec<String> = ["executor", "--scheduler", &scheduler, "--slots", &slots.to_string()]
            .iter()
            .map(|arg| (*arg).to_owned())
            .collect();
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let role = self.role(&format!("executor-{number}"), &args, ffmpeg, inside);
        self.executors.push(Some(role));
        number
    }

    fn role(&self, name: &str, args: &[String], ffmpeg: Option<PathBuf>, inside: Option<String>) -> Role {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(folder.join("scratch")).unwrap();
        let scratch = self.scratch_bytes.filter(|_| name != "scheduler");
        let scratch =
            scratch.map(|bytes| Mount::tmpfs(&folder.join("scratch"), &format!("size={bytes}")).unwrap());
        let log = || File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = match inside {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &namespace]).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        command.args(args).stdin(Stdio::null()).stdout(log()).stderr(log());
        for (variable, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SPOOL_"))
        {
            command.env_remove(variable);
        }
        command
            .env("SPOOL_SCRATCH", folder.join("scratch"))
            .env("HOME", folder.join("no-home"))
            .env("XDG_STATE_HOME", self.folder.path())
            .env("NO_COLOR", "1");
        if let Some(ffmpeg) = ffmpeg {
            // A program in FFmpeg's place writes a log beside itself, which the sandbox forbids.
            command.env("SPOOL_FFMPEG", ffmpeg).env("SPOOL_SANDBOX", "off");
        }
        if let Some(clock) = &self.clock {
            clock.of(&mut command);
        }
        // For reading the log of a failed test.
        if let Some(filter) = std::env::var_os("SPOOL_TEST_LOG") {
            command.env("SPOOL_LOG", filter);
        }
        Role { child: command.spawn().unwrap(), folder, _scratch: scratch }
    }

    /// Waits until the scheduler has so many slots.
    ///
    /// # Panics
    /// If the slots are missing after the time limit.
    pub fn wait_for_slots(&self, slots: usize) {
        wait_until(&format!("{slots} slots"), START_TIMEOUT, || {
            (self.demand()?["slots"] == slots).then_some(())
        });
    }

    /// Returns the scheduler's report of its demand.
    pub fn demand(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.http("GET", "/demand")?).ok()
    }

    /// Returns the body of the scheduler's HTTP response to a request with its token.
    pub fn http(&self, method: &str, path: &str) -> Option<String> {
        self.http_with(self.token().as_deref(), method, path)
    }

    /// Returns the body of the scheduler's HTTP response to a request with this token.
    pub fn http_with(&self, token: Option<&str>, method: &str, path: &str) -> Option<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}{path}", self.address());
        let mut command = match &self.network {
            Some(network) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &network.scheduler(), "curl"]);
                command
            }
            None => Command::new("curl"),
        };
        if let Some(token) = token {
            command.arg("-H").arg(format!("Authorization: Bearer {token}"));
        }
        if let Some(Tls { folder, member }) = &self.tls {
            command.arg("--cacert").arg(folder.join("ca.pem"));
            command.arg("--cert").arg(folder.join(format!("{member}.pem")));
            command.arg("--key").arg(folder.join(format!("{member}.key")));
        }
        curl(&mut command, method, &url)
    }

    /// Returns the scheduler's token: the given one, or the one that it drew.
    pub fn token(&self) -> Option<String> {
        let given = self.scheduler_args.windows(2).find(|pair| pair[0] == "--token");
        if let Some([_, token]) = given {
            return Some(token.clone());
        }
        let text = std::fs::read_to_string(self.folder.path().join("spool/token")).ok()?;
        Some(text.trim().to_owned())
    }

    /// Returns the network of the roles.
    ///
    /// # Panics
    /// If the roles are in no network.
    pub fn network(&self) -> &Network {
        self.network.as_ref().unwrap()
    }

    /// Returns the scheduler.
    ///
    /// # Panics
    /// If no scheduler runs.
    pub fn scheduler(&mut self) -> &mut Role {
        self.scheduler.as_mut().unwrap()
    }

    /// Returns an executor.
    ///
    /// # Panics
    /// If the executor is gone.
    pub fn executor(&mut self, number: usize) -> &mut Role {
        self.executors[number].as_mut().unwrap()
    }

    /// Returns the numbers of the executors that run.
    pub fn numbers(&self) -> Vec<usize> {
        (0..self.executors.len()).filter(|number| self.executors[*number].is_some()).collect()
    }

    /// Kills an executor, and waits until all its processes are gone.
    ///
    /// # Panics
    /// If one of its processes runs on.
    pub fn kill_executor(&mut self, number: usize) {
        self.executors[number].take().unwrap().kill();
    }

    /// Removes an executor that ended by itself from the list.
    ///
    /// # Panics
    /// If the executor is not listed.
    pub fn remove_executor(&mut self, number: usize) {
        self.executors[number].take().unwrap();
    }

    /// Kills the scheduler.
    ///
    /// # Panics
    /// If no scheduler runs.
    pub fn kill_scheduler(&mut self) {
        self.scheduler.take().unwrap().kill();
    }

    /// Sends an executor SIGTERM, waits for its end, and returns its exit code.
    ///
    /// # Panics
    /// If it does not end, or leaves a file or process behind.
    pub fn drain_executor(&mut self, number: usize, within: Duration) -> Option<i32> {
        let mut role = self.executors[number].take().unwrap();
        role.signal(Signal::SIGTERM);
        let code = role.wait(within);
        role.expect_clean();
        code
    }

    /// Ends everything by SIGTERM, and expects that no process and no scratch file is left.
    ///
    /// # Panics
    /// If a process or file is left.
    pub fn stop(mut self) {
        let roles: Vec<Role> =
            self.executors.iter_mut().filter_map(Option::take).chain(self.scheduler.take()).collect();
        for role in &roles {
            role.signal(Signal::SIGTERM);
        }
        for mut role in roles {
            assert_eq!(role.wait(START_TIMEOUT), Some(0), "{}", role.log());
            role.expect_clean();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for mut role in self.executors.iter_mut().filter_map(Option::take).chain(self.scheduler.take()) {
            if std::thread::panicking() {
                let log = role.log();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!(
                    "--- {}\n{}",
                    role.folder.display(),
                    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
                );
            }
            let _ = role.child.kill();
            let _ = role.child.wait();
        }
    }
}

/// Returns the body of an HTTP response; `None` without a successful one.
pub fn http(method: &str, url: &str) -> Option<String> {
    curl(&mut Command::new("curl"), method, url)
}

fn curl(command: &mut Command, method: &str, url: &str) -> Option<String> {
    let output = command.args(["-sS", "--max-time", "5", "-X", method, url]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Role {
    /// Returns the process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fills the free scratch space, and returns the file that fills it.
    ///
    /// # Panics
    /// If the scratch space cannot be written at all.
    pub fn fill_scratch(&self) -> PathBuf {
        use std::io::Write;
        let path = self.scratch().join("filler");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Returns the log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Returns the scratch folder.
    pub fn scratch(&self) -> PathBuf {
        self.folder.join("scratch")
    }

    /// Returns whether an FFmpeg encodes for this role.
    pub fn is_encoding(&self) -> bool {
        processes_in(&self.scratch()).iter().any(|line| line.contains("-copyts"))
    }

    /// Returns whether a throttled FFmpeg encodes for this role.
    pub fn is_encoding_slowly(&self) -> bool {
        processes_in(&self.scratch()).iter().any(|line| line.contains("-readrate"))
    }

    /// Waits for the end of the process, and returns its exit code.
    ///
    /// # Panics
    /// If the process does not end in time.
    pub fn wait(&mut self, within: Duration) -> Option<i32> {
        let folder = self.folder.display().to_string();
        wait_until(&format!("the end of {folder}"), within, || self.child.try_wait().unwrap()).code()
    }

    fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().unwrap();
        let scratch = self.scratch();
        wait_until("the end of the children of a killed role", EXIT_TIMEOUT, || {
            processes_in(&scratch).is_empty().then_some(())
        });
    }

    /// Expects that neither a process nor a scratch file is left.
    ///
    /// # Panics
    /// If a process or file is left.
    pub fn expect_clean(&self) {
        let scratch = self.scratch();
        wait_until("the end of the children of a role", EXIT_TIMEOUT, || {
            processes_in(&scratch).is_empty().then_some(())
        });
        let leftover_files: Vec<_> =
            std::fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(leftover_files.is_empty(), "left in scratch space: {leftover_files:?}");
    }
}
