//! Resource usage of a command with all its child processes, measured by GNU time: the system counts
//! processor time and memory of every process that was waited for. A program in FFmpeg's place records the
//! usage of FFmpeg by itself.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use spool_tests::ffmpeg_wrapper::{which, write_program};

/// Time between two checks of a running command.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Resource usage of a command.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Time from its start to its end.
    pub wall: Duration,
    /// User and system time of all processes.
    pub cpu: Duration,
    /// User and system time of FFmpeg and ffprobe.
    pub ffmpeg_cpu: Duration,
    /// Highest resident memory of one FFmpeg process.
    pub ffmpeg_mb: f64,
    /// Highest resident memory of all other processes together.
    pub engine_mb: f64,
    /// Time from the start until a playlist could be played, if the command leaves one.
    pub playable: Option<Duration>,
}

/// FFmpeg and ffprobe that record their resource usage.
#[derive(Debug, Clone)]
pub struct TimedFfmpeg {
    folder: PathBuf,
}

impl TimedFfmpeg {
    /// Writes the programs into `folder`.
    pub fn in_folder(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let timed = Self { folder: folder.to_owned() };
        for program in ["ffmpeg", "ffprobe"] {
            let (log, real) = (timed.log(), which(program));
            let script = format!(
                "#!/bin/sh\nexec /usr/bin/time --append --output {} --format '%U %S %M' {} \"$@\"\n",
                log.display(),
                real.display()
            );
            write_program(&folder.join(program), &script);
        }
        timed
    }

    /// Returns the path of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn log(&self) -> PathBuf {
        self.folder.join("times")
    }

    /// Returns the processor time of all runs since the last call, and the highest memory of one run.
    fn take(&self) -> (Duration, f64) {
        // Missing before the first run. A run that failed has a line about that before its times.
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let _ = fs::remove_file(self.log());
        text.lines()
            .filter_map(times)
            .fold((Duration::ZERO, 0.0), |(cpu, max_mb), (more, mb)| (cpu + more, mb.max(max_mb)))
    }
}

/// Parses a line of GNU time into processor time and megabytes.
fn times(line: &str) -> Option<(Duration, f64)> {
    let numbers: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, system, kib] = numbers[..] else { return None };
    Some((Duration::from_secs_f64(user + system), kib * 1024.0 / 1e6))
}

/// Runs a command in `folder`, which receives its output as `log`. `playable` returns whether a playlist can
/// be played now.
///
/// # Panics
/// Where the command fails, with the end of its output.
pub fn run(folder: &Path, args: &[OsString], timed: &TimedFfmpeg, playable: impl Fn() -> bool) -> Usage {
    let (out, log) = (folder.join("times"), folder.join("log"));
    let output = File::create(&log).unwrap();
    timed.take();
    let mut command = Command::new("/usr/bin/time");
    command.args(["--format", "%U %S %M", "--output"]).arg(&out).args(args).current_dir(folder);
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let started = Instant::now();
    let mut child = command.spawn().unwrap();
    let (mut engine_mb, mut first) = (0.0_f64, None);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        engine_mb = engine_mb.max(resident_mb(child.id()));
        if first.is_none() && playable() {
            first = Some(started.elapsed());
        }
        sleep(POLL_INTERVAL);
    };
    let wall = started.elapsed();
    let output = fs::read_to_string(&log).unwrap_or_default();
    assert!(status.success(), "{args:?}: {}", &output[output.len().saturating_sub(4000)..]);
    let (cpu, _) = fs::read_to_string(out).unwrap().lines().find_map(times).unwrap();
    let (ffmpeg_cpu, ffmpeg_mb) = timed.take();
    // Spark does not wait for Python, nor for the FFmpeg below it: the system's count lacks both then.
    let cpu = if cpu < ffmpeg_cpu { cpu + ffmpeg_cpu } else { cpu };
    let playable = first.or_else(|| playable().then_some(wall));
    Usage { wall, cpu, ffmpeg_cpu, ffmpeg_mb, engine_mb, playable }
}

/// Returns the resident memory of all descendants of a process, without FFmpeg's.
fn resident_mb(root: u32) -> f64 {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // Processes start and end while the folder is read.
    let stats: HashMap<u32, Stat> = numbers.filter_map(|pid| Some((pid, Stat::read(pid)?))).collect();
    let below = |mut pid: u32| loop {
        match stats.get(&pid) {
            Some(stat) if stat.parent == root => return true,
            Some(stat) => pid = stat.parent,
            None => return false,
        }
    };
    let counts = |(pid, stat): &(&u32, &Stat)| {
        !["ffmpeg", "ffprobe", "time"].contains(&stat.name.as_str()) && below(**pid)
    };
    stats.iter().filter(counts).map(|(_, stat)| stat.resident_mb).sum()
}

struct Stat {
    name: String,
    parent: u32,
    resident_mb: f64,
}

impl Stat {
    /// Source: proc(5), `/proc/pid/stat`; pages are of 4 KiB.
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (begin, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let pages: f64 = fields.get(21)?.parse().ok()?;
        Some(Self {
            name: begin.split_once('(')?.1.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            resident_mb: pages * 4096.0 / 1e6,
        })
    }
}

/// Returns words as arguments.
pub fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_times_parse_and_messages_do_not() {
        assert_eq!(times("1.50 0.25 1000000"), Some((Duration::from_millis(1750), 1024.0)));
        assert_eq!(times("Command exited with non-zero status 1"), None);
    }

    #[test]
    fn usage_of_ffmpeg_is_measured_apart() {
        let folder = tempfile::tempdir().unwrap();
        let timed = TimedFfmpeg::in_folder(&folder.path().join("timed"));
        let ffmpeg = timed.program("ffmpeg");
        let script = format!(
            "{} -v error -f lavfi -i testsrc2=s=1280x720 -frames:v 60 -f null - && touch done",
            ffmpeg.display()
        );
        let args: Vec<OsString> = words(&["sh", "-c", &script]);
        let usage = run(folder.path(), &args, &timed, || folder.path().join("done").exists());
        assert!(
            usage.ffmpeg_cpu > Duration::ZERO && usage.ffmpeg_cpu <= usage.cpu + Duration::from_millis(20),
            "{usage:?}"
        );
        assert!(usage.ffmpeg_mb > 5.0 && usage.playable.is_some(), "{usage:?}");
    }
}
