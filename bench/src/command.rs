//! What does a command take, with all that it starts? GNU time tells: the system counts processor time and memory of every process that
//! was waited for.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What a command took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// From its start to its end.
    pub wall: Duration,
    /// User and system time of all its processes.
    pub cpu: Duration,
    /// The most memory that one of its processes had resident.
    pub peak_mb: f64,
}

/// Runs a command in `folder`, which gets its output as `log`.
///
/// # Panics
/// Where it fails: with the end of what it said.
pub fn run(folder: &Path, args: &[OsString]) -> Took {
    let (times, log) = (folder.join("times"), folder.join("log"));
    let said = File::create(&log).unwrap();
    let mut command = Command::new("/usr/bin/time");
    command.args(["--format", "%U %S %M", "--output"]).arg(&times).args(args).current_dir(folder);
    command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
    let begun = Instant::now();
    let status = command.status().unwrap();
    let wall = begun.elapsed();
    let said = fs::read_to_string(&log).unwrap_or_default();
    assert!(status.success(), "{args:?}: {}", &said[said.len().saturating_sub(4000)..]);
    let text = fs::read_to_string(times).unwrap();
    let mut numbers = text.split_whitespace().map(|word| word.parse::<f64>().unwrap());
    let mut number = || numbers.next().unwrap();
    let cpu = Duration::from_secs_f64(number() + number());
    Took { wall, cpu, peak_mb: number() * 1024.0 / 1e6 }
}

/// Words as arguments.
pub fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}
