//! A PostgreSQL server for one test: real, in a scratch folder, on a free port, deleted with the value.

use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::run::{port, wait_until};

/// Time within which a server starts, and stops, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOPS: Duration = Duration::from_secs(30);

/// User of the server if the test runs as root, which PostgreSQL refuses.
const USER: &str = "postgres";

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    folder: tempfile::TempDir,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// Starts a new server.
    ///
    /// # Panics
    /// If PostgreSQL is missing (`make setup` comes first) or does not start.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            let given = Command::new("chown").arg(USER).arg(folder.path()).status().unwrap();
            assert!(given.success(), "there is no user {USER}: run `make setup` first");
        }
        let data = folder.path().join("data");
        let output = program("initdb")
            .arg("--pgdata")
            .arg(&data)
            .args(["--username=spool", "--auth=trust", "--encoding=UTF8", "--no-sync"])
            // As most databases are: text is sorted for people, where `_` hardly counts.
            .args(["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"])
            .output()
            .unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let mut server = Self { folder, port: port(), server: None };
        server.restart();
        server
    }

    /// Returns the URL of the server, without a database.
    pub fn url(&self) -> String {
        format!("postgres://spool@127.0.0.1:{}/postgres", self.port)
    }

    /// Creates a database, and returns its URL.
    ///
    /// # Panics
    /// If the database cannot be created.
    pub fn database(&self, name: &str) -> String {
        let output = Command::new(tool("psql"))
            .arg(self.url())
            .args(["-qc", &format!("CREATE DATABASE {name}")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        format!("postgres://spool@127.0.0.1:{}/{name}", self.port)
    }

    /// Returns the rows of a query, one object for each.
    ///
    /// # Panics
    /// If the query fails.
    pub fn query(database: &str, sql: &str) -> Vec<Value> {
        let sql = format!("SELECT coalesce(json_agg(found), '[]') FROM ({sql}) AS found");
        let output = Command::new(tool("psql"))
            .arg(database)
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-c", &sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
    }

    /// Kills the server like a power cut: it cannot tell its clients, and writes nothing more.
    ///
    /// # Panics
    /// If the server does not run.
    pub fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        // Its children end by themselves after it.
        kill(Pid::from_raw(server.id() as i32), Signal::SIGKILL).unwrap();
        server.wait().unwrap();
    }

    /// Starts the server over the data of the last one.
    ///
    /// # Panics
    /// If the server does not start.
    pub fn restart(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        wait_until("PostgreSQL", START_TIMEOUT, || {
            let running = self.server.as_mut().is_some_and(|server| server.try_wait().unwrap().is_none());
            if !running {
                // The lock of a killed server goes with the last of its children.
                self.server = Some(self.serve(&log));
            }
            let ready = Command::new(tool("pg_isready")).args(["-q", "-d", &self.url()]).status().unwrap();
            ready.success().then_some(())
        });
    }

    fn serve(&self, log: &File) -> Child {
        program("postgres")
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args([
                "-p",
                &self.port.to_string(),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "max_connections=200",
            ])
            .arg("-k")
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log.try_clone().unwrap())
            .spawn()
            .unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // SIGQUIT is PostgreSQL's "immediate" shutdown: it ends its children, and waits for no client.
            let _ = kill(Pid::from_raw(server.id() as i32), Signal::SIGQUIT);
            wait_until("PostgreSQL to stop", STOPS, || server.try_wait().ok().flatten());
        }
    }
}

fn is_root() -> bool {
    // The owner of a process owns its folder in `/proc`.
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Returns a program of the server's, as a user that it accepts.
fn program(name: &str) -> Command {
    let path = tool(name);
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--init-groups", "--"]).arg(path);
        command
    } else {
        Command::new(path)
    };
    command.current_dir("/").env_remove("PGDATA");
    command
}

fn tool(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    versions.sort();
    let found =
        versions.iter().rev().map(|version| version.join("bin").join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| Path::new(name).to_owned())
}
