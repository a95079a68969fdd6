//! A deployment of API servers, schedulers that dispatch jobs from PostgreSQL, and executors: each is a
//! process that a test can kill, and that then restarts with its arguments and address.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    postgres::Postgres,
    run::{Running, Spool, port, processes_in, wait_until},
};

/// Time within which a process is ready again on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Time within which the children of a killed process are gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Rows that an executor encodes at a time.
const SLOTS: &str = "2";

/// Lines of a process's log that a failed test prints.
const LAST_LINES: usize = 60;

/// A component that can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// A `spool api`.
    Api,
    /// A `spool scheduler` with a dispatcher.
    Scheduler,
    /// A `spool executor`.
    Executor,
    /// The database.
    Postgres,
}

impl Component {
    /// All components.
    pub const ALL: [Self; 4] = [Self::Api, Self::Scheduler, Self::Executor, Self::Postgres];
}

/// All components, with their data in a folder that is deleted with the value.
#[derive(Debug)]
pub struct Deployment {
    // In the order of their drop.
    servers: Vec<Role>,
    schedulers: Vec<Role>,
    executors: Vec<Role>,
    postgres: Postgres,
    database: String,
    folder: tempfile::TempDir,
}

/// A process that is started with the same arguments each time.
#[derive(Debug)]
struct Role {
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// Folder of its log and its scratch space.
    folder: PathBuf,
    /// URL that answers 200 once the process is ready.
    ready: String,
    running: Option<Running>,
}

impl Deployment {
    /// Starts `count` API servers, schedulers with this lease, and executors with this FFmpeg, one for each
    /// scheduler.
    ///
    /// # Panics
    /// If a process does not start.
    pub fn start(count: usize, lease: Duration, ffmpeg: &Path) -> Self {
        let postgres = Postgres::start();
        let database = postgres.database("spool");
        let folder = tempfile::tempdir().unwrap();
        let lease = lease.as_secs().to_string();
        let [media, uploads] =
            ["media", "uploads"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
        let ffmpeg = ("SPOOL_FFMPEG".to_owned(), ffmpeg.to_str().unwrap().to_owned());
        let mut deployment = Self {
            servers: Vec::new(),
            schedulers: Vec::new(),
            executors: Vec::new(),
            postgres,
            database,
            folder,
        };
        for number in 0..count {
            let [server, scheduler, executor] = [(); 3].map(|()| format!("127.0.0.1:{}", port()));
            let role = |kind: &str, args: &[&str], env: &[(String, String)], ready: String| {
                Role::start(deployment.folder.path().join(format!("{kind}-{number}")), args, env, ready)
            };
            let args = [
                "api",
                "--listen",
                &server,
                "--database",
                &deployment.database,
                "--media",
                &media,
                "--uploads",
                &uploads,
            ];
            let new = role("api", &args, &[], format!("http://{server}/readyz"));
            let args = [
                "scheduler",
                "--listen",
                &scheduler,
                "--database",
                &deployment.database,
                "--lease",
                &lease,
                "--executor-timeout",
                "3",
            ];
            let scheduling = role("scheduler", &args, &[], format!("http://{scheduler}/livez"));
            let args = ["executor", "--scheduler", &scheduler, "--slots", SLOTS, "--http", &executor];
            let executing =
                role("executor", &args, std::slice::from_ref(&ffmpeg), format!("http://{executor}/readyz"));
            deployment.servers.push(new);
            deployment.schedulers.push(scheduling);
            deployment.executors.push(executing);
        }
        deployment.wait_until_ready();
        deployment
    }

    /// Returns the addresses of the API servers: `http://127.0.0.1:PORT`.
    pub fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(|role| role.ready.trim_end_matches("/readyz").to_owned()).collect()
    }

    /// Returns the folder of uploads without a key.
    pub fn uploads(&self) -> PathBuf {
        self.folder.path().join("uploads/default")
    }

    /// Returns the folder of published videos.
    pub fn media(&self) -> PathBuf {
        self.folder.path().join("media")
    }

    /// Returns the rows of a query of the database, one object for each.
    pub fn query(&self, sql: &str) -> Vec<Value> {
        Postgres::query(&self.database, sql)
    }

    /// Returns the number of processes of a component.
    pub fn count(&self, component: Component) -> usize {
        match component {
            Component::Api => self.servers.len(),
            Component::Scheduler => self.schedulers.len(),
            Component::Executor => self.executors.len(),
            Component::Postgres => 1,
        }
    }

    /// Kills a process of a component, and restarts it at once.
    ///
    /// # Panics
    /// If it had ended by itself, or one of its children runs on.
    pub fn kill_and_restart(&mut self, component: Component, number: usize) {
        let roles = match component {
            Component::Api => &mut self.servers,
            Component::Scheduler => &mut self.schedulers,
            Component::Executor => &mut self.executors,
            Component::Postgres => {
                self.postgres.kill();
                self.postgres.restart();
                return;
            }
        };
        roles[number].kill();
        roles[number].run();
    }

    /// Waits until all processes are ready.
    ///
    /// # Panics
    /// If a process is not ready in time, or has ended by itself.
    pub fn wait_until_ready(&mut self) {
        for role in self.servers.iter_mut().chain(&mut self.schedulers).chain(&mut self.executors) {
            let what = format!("{} to be up", role.folder.display());
            wait_until(&what, START_TIMEOUT, || {
                role.expect_alive();
                answers(&role.ready).then_some(())
            });
        }
    }

    /// Ends all processes by SIGTERM, and expects a clean end of each.
    ///
    /// # Panics
    /// If a process ends with an error.
    pub fn stop(mut self) {
        let roles = [&mut self.executors, &mut self.schedulers, &mut self.servers];
        for role in roles.into_iter().flatten() {
            let running = role.running.take().unwrap();
            running.signal(Signal::SIGTERM);
            assert_eq!(running.wait().code, Some(0), "{}", role.last_lines());
        }
    }
}

impl Role {
    fn start(folder: PathBuf, args: &[&str], env: &[(String, String)], ready: String) -> Self {
        std::fs::create_dir_all(folder.join("scratch")).unwrap();
        let mut env = env.to_vec();
        // Schedulers and executors find one token there.
        let state = folder.parent().unwrap().to_str().unwrap().to_owned();
        env.push(("XDG_STATE_HOME".to_owned(), state));
        // For reading the log of a failed test.
        if let Ok(filter) = std::env::var("SPOOL_TEST_LOG") {
            env.push(("SPOOL_LOG".to_owned(), filter));
        }
        let mut role = Self {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env,
            folder,
            ready,
            running: None,
        };
        role.run();
        role
    }

    fn run(&mut self) {
        let spool = Spool::new(&self.args).envs(self.env.clone()).scratch(&self.scratch());
        self.running = Some(spool.start_logged(&self.folder.join("log")));
    }

    fn kill(&mut self) {
        self.expect_alive();
        let mut running = self.running.take().unwrap();
        running.signal(Signal::SIGKILL);
        running.child.wait().unwrap();
        let scratch = self.scratch();
        wait_until("the end of the children of a killed role", EXIT_TIMEOUT, || {
            processes_in(&scratch).is_empty().then_some(())
        });
    }

    fn expect_alive(&mut self) {
        let ended = self.running.as_mut().unwrap().child.try_wait().unwrap();
        assert!(
            ended.is_none(),
            "{} ended by itself: {ended:?}\n{}",
            self.folder.display(),
            self.last_lines()
        );
    }

    fn scratch(&self) -> PathBuf {
        self.folder.join("scratch")
    }

    fn last_lines(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.folder.display(), self.last_lines());
        }
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

fn answers(url: &str) -> bool {
    Command::new("curl").args(["-sf", "--max-time", "5", "-o", "/dev/null", url]).status().unwrap().success()
}
