//! The sandbox of FFmpeg allows its work, and no more: each test first shows that the action works outside of
//! it.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests start what they test, and fail where it does"
)]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::{ffi::OsStrExt, fs::MetadataExt, fs::symlink, process::ExitStatusExt},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use spool_tests::run::{Spool, binary};
use tempfile::TempDir;

/// A folder to read from, one to write to, and one that must not be reached.
struct Setting {
    folder: TempDir,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["input", "scratch", "elsewhere"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("input/source"), "pictures").unwrap();
        fs::write(folder.path().join("elsewhere/secret"), "canary").unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn sandbox(&self, confined: bool) -> Value {
        // The programs that these tests run in the sandbox.
        let libraries = ["/bin", "/usr/bin"].map(name);
        json!({
            "parent": std::process::id(), "confined": confined, "reads": [name(&self.path("input/source"))], "libraries": libraries,
            "writes": name(&self.path("scratch")), "memory_bytes": 2_u64 << 30, "cpu_s": 60, "file_bytes": 1 << 20,
        })
    }

    /// Runs a line of shell, outside of the sandbox and in it.
    fn both(&self, line: &str) -> [Output; 2] {
        [false, true].map(|confined| {
            run(&self.sandbox(confined), "/bin/sh", &["-c", line], Path::new(&self.path("scratch")))
        })
    }

    /// Expects that a line of shell works outside of the sandbox, and not in it.
    fn is_kept_from(&self, line: &str) {
        let [free, confined] = self.both(line);
        assert!(free.status.success(), "{line}: {free:?}");
        assert!(!confined.status.success(), "{line}: {confined:?}");
    }

    fn may(&self, line: &str) {
        for output in self.both(line) {
            assert!(output.status.success(), "{line}: {output:?}");
        }
    }
}

/// Returns a path as it travels.
fn name(path: &str) -> Value {
    json!({ "Unix": Path::new(path).as_os_str().as_bytes() })
}

fn run(sandbox: &Value, program: &str, args: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(binary());
    command
        .args(["sandboxed", &sandbox.to_string(), program])
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn a_program_reads_its_input_and_writes_its_folder_only() {
    let setting = Setting::new();
    let (input, secret, own) =
        (setting.path("input/source"), setting.path("elsewhere/secret"), setting.path("scratch/out"));
    setting.may(&format!("read line < {input}; [ \"$line\" ] && echo \"$line\" > {own} && exec rm {own}"));
    setting.is_kept_from(&format!("exec cat {secret}"));
    setting.is_kept_from(&format!("exec ls {}", setting.path("elsewhere")));
    setting.is_kept_from(&format!("echo 1 > {}", setting.path("elsewhere/new")));
    setting.is_kept_from(&format!("echo 1 >> {input}"));
    // Not by another name either, nor by the environment of the parent process.
    symlink(&secret, setting.path("scratch/link")).unwrap();
    setting.is_kept_from("exec cat link");
    setting.is_kept_from("exec cat /proc/$PPID/environ");
    setting.is_kept_from("exec cat /etc/passwd");
    // Only plain files may be left behind.
    setting.is_kept_from("exec mkfifo pipe");
    setting.is_kept_from(&format!("exec ln -s {secret} other"));
    setting.is_kept_from("echo > own; exec chmod 777 own");
}

#[test]
fn a_program_reaches_no_network() {
    let setting = Setting::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let line = |call: &str| format!("exec /usr/bin/python3 -c 'import socket; {call}'");
    let port = listener.local_addr().unwrap().port();
    let connect = line(&format!("socket.create_connection((\"127.0.0.1\", {port}))"));
    let [free, confined] = setting.both(&connect);
    assert!(free.status.success() && !confined.status.success(), "{free:?} {confined:?}");
    assert!(String::from_utf8_lossy(&confined.stderr).contains("PermissionError"), "{confined:?}");
    assert!(listener.accept().is_ok(), "the listener is reachable without a sandbox");
    assert!(listener.accept().is_err(), "and unreachable with one");
    setting.is_kept_from(&line("socket.socketpair()"));
    setting.is_kept_from(&line("socket.socket(socket.AF_UNIX)"));
}

#[test]
fn a_program_starts_and_ends_no_process() {
    let setting = Setting::new();
    setting.is_kept_from("/bin/true; exec /bin/true");
    setting.is_kept_from("kill -0 $PPID");
    setting.is_kept_from("exec prlimit --pid $PPID --cpu=1000000");
    // Threads are allowed: encoders use them.
    setting.may("exec /usr/bin/python3 -c 'import threading; t = threading.Thread(target=print); t.start(); t.join()'");
    // Actions that root may do beyond its own files.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        setting.is_kept_from("echo > own; exec chown 1:1 own");
    }
}

#[test]
fn a_program_stays_within_its_limits() {
    let setting = Setting::new();
    let ended = |sandbox: Value, line: &str| {
        run(&sandbox, "/bin/sh", &["-c", line], Path::new(&setting.path("scratch"))).status
    };
    // By the limits alone: scripts in FFmpeg's place have these too.
    let sandbox = setting.sandbox(false);
    let written = ended(sandbox.clone(), "exec dd if=/dev/zero of=big bs=65536 count=100");
    assert_eq!(written.signal(), Some(Signal::SIGXFSZ as i32), "{written:?}");
    assert_eq!(fs::metadata(setting.path("scratch/big")).unwrap().len(), 1 << 20);
    let memory = "exec /usr/bin/python3 -c 'bytearray(3 << 30)'";
    assert_eq!(ended(sandbox.clone(), memory).code(), Some(1), "a MemoryError");
    let mut short = sandbox;
    short["cpu_s"] = 1.into();
    let busy = ended(short, "while :; do :; done");
    assert_eq!(busy.signal(), Some(Signal::SIGXCPU as i32), "{busy:?}");
}

#[test]
fn a_program_ends_by_spool_and_not_by_a_signal_to_the_group() {
    let setting = Setting::new();
    let ends = "exec /usr/bin/python3 -c 'import os, signal; os.kill(os.getpid(), signal.SIGTERM)'";
    let plain = Command::new("/bin/sh").args(["-c", ends]).output().unwrap();
    assert_eq!(plain.status.signal(), Some(Signal::SIGTERM as i32), "{plain:?}");
    for signal in ["SIGTERM", "SIGINT", "SIGHUP"] {
        // Like FFmpeg, which handles each signal: none arrives.
        let call = format!(
            "import os, signal; signal.signal(signal.{signal}, lambda *_: os._exit(9)); os.kill(os.getpid(), signal.{signal})"
        );
        let held = run(
            &setting.sandbox(false),
            "/usr/bin/python3",
            &["-c", &call],
            Path::new(&setting.path("scratch")),
        );
        assert!(held.status.success(), "{signal}: {held:?}");
    }
}

#[test]
fn a_program_dies_with_its_parent() {
    let setting = Setting::new();
    // Its own parent, which puts its process ID in.
    let mut sandbox = setting.sandbox(true);
    sandbox["parent"] = 424_242.into();
    let line = r#""$0" sandboxed "${1/424242/$$}" /bin/sh -c 'echo $$; exec sleep 1000' & wait"#;
    let mut parent = Command::new("bash");
    parent.args(["-c", line]).arg(binary()).arg(sandbox.to_string()).stdout(Stdio::piped());
    let mut parent = parent.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child = format!("/proc/{}/stat", line.trim().parse::<u32>().unwrap());
    // Dead, though perhaps not reaped yet.
    let runs = || fs::read_to_string(&child).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(runs());
    parent.kill().unwrap();
    parent.wait().unwrap();
    let killed = Instant::now();
    while runs() {
        assert!(killed.elapsed() < Duration::from_secs(5), "the program outlives its parent");
        std::thread::yield_now();
    }
}

#[test]
fn only_spool_configures_a_program() {
    let setting = Setting::new();
    let folder = setting.path("scratch");
    let mut orphan = setting.sandbox(true);
    orphan["parent"] = 1.into();
    let refused = run(&orphan, "/bin/true", &[], Path::new(&folder));
    assert_eq!(refused.status.code(), Some(126), "{refused:?}");
    let refused = run(&json!("nothing"), "/bin/true", &[], Path::new(&folder));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("what spool calls itself by"), "{refused:?}");
    let missing = run(&setting.sandbox(true), "/nowhere/ffmpeg", &[], Path::new(&folder));
    assert_eq!(missing.status.code(), Some(126), "{missing:?}");
}

#[test]
fn doctor_reports_whether_the_sandbox_holds() {
    let doctor = |command: Spool| command.run().stdout;
    let on = doctor(Spool::new(["doctor"]));
    assert!(
        on.contains("ok    sandbox: FFmpeg opens its input and its folder, and reaches nothing else"),
        "{on}"
    );
    let off = doctor(Spool::new(["doctor", "--sandbox", "off"]));
    assert!(off.contains("warn  sandbox: off"), "{off}");
}
