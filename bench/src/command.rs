//! What does a command take, with all that it starts? GNU time tells: the system counts processor time and memory of every process that
//! was waited for. FFmpeg is told apart by a program in its place, which has its own times written down.

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

/// How often a command that runs is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What a command took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// From its start to its end.
    pub wall: Duration,
    /// User and system time of all its processes.
    pub cpu: Duration,
    /// The same of its FFmpegs and what they are probed with.
    pub ffmpeg_cpu: Duration,
    /// The most memory that one of its FFmpegs had resident.
    pub ffmpeg_mb: f64,
    /// The most memory that all its other processes had resident together.
    pub engine_mb: f64,
    /// From its start until something could be played, where it leaves something to play.
    pub playable: Option<Duration>,
}

/// An FFmpeg that has its times written down.
#[derive(Debug, Clone)]
pub struct Timed {
    folder: PathBuf,
}

impl Timed {
    /// One in a folder of its own.
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

    /// Where the programs are.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn log(&self) -> PathBuf {
        self.folder.join("times")
    }

    /// Processor time of all runs since this was asked for last, and the most memory of one.
    fn take(&self) -> (Duration, f64) {
        // Not there before the first. What ended badly has a line that says so before its times.
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let _ = fs::remove_file(self.log());
        text.lines()
            .filter_map(times)
            .fold((Duration::ZERO, 0.0), |(cpu, most), (more, mb)| (cpu + more, mb.max(most)))
    }
}

/// User and system time, and megabytes, of a line of GNU time's.
fn times(line: &str) -> Option<(Duration, f64)> {
    let numbers: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, system, kib] = numbers[..] else { return None };
    Some((Duration::from_secs_f64(user + system), kib * 1024.0 / 1e6))
}

/// Runs a command in `folder`, which gets its output as `log`. `playable` tells whether there is something to play by now.
///
/// # Panics
/// Where it fails: with the end of what it said.
pub fn run(folder: &Path, args: &[OsString], timed: &Timed, playable: impl Fn() -> bool) -> Took {
    let (out, log) = (folder.join("times"), folder.join("log"));
    let said = File::create(&log).unwrap();
    timed.take();
    let mut command = Command::new("/usr/bin/time");
    command.args(["--format", "%U %S %M", "--output"]).arg(&out).args(args).current_dir(folder);
    command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    let (mut engine_mb, mut first) = (0.0_f64, None);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        engine_mb = engine_mb.max(resident_mb(child.id()));
        if first.is_none() && playable() {
            first = Some(begun.elapsed());
        }
        sleep(LOOK);
    };
    let wall = begun.elapsed();
    let said = fs::read_to_string(&log).unwrap_or_default();
    assert!(status.success(), "{args:?}: {}", &said[said.len().saturating_sub(4000)..]);
    let (cpu, _) = fs::read_to_string(out).unwrap().lines().find_map(times).unwrap();
    let (ffmpeg_cpu, ffmpeg_mb) = timed.take();
    // Spark leaves Python unwaited for, and FFmpeg with it: these are not among what the system counted then.
    let cpu = if cpu < ffmpeg_cpu { cpu + ffmpeg_cpu } else { cpu };
    let playable = first.or_else(|| playable().then_some(wall));
    Took { wall, cpu, ffmpeg_cpu, ffmpeg_mb, engine_mb, playable }
}

/// Memory of all processes below one, but FFmpeg's.
fn resident_mb(root: u32) -> f64 {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // Processes come and go while they are looked at.
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

/// Words as arguments.
pub fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_complaints_are_not() {
        assert_eq!(times("1.50 0.25 1000000"), Some((Duration::from_millis(1750), 1024.0)));
        assert_eq!(times("Command exited with non-zero status 1"), None);
    }

    #[test]
    fn ffmpeg_is_told_apart_from_what_starts_it() {
        let folder = tempfile::tempdir().unwrap();
        let timed = Timed::in_folder(&folder.path().join("timed"));
        let ffmpeg = timed.program("ffmpeg");
        let script = format!(
            "{} -v error -f lavfi -i testsrc2=s=1280x720 -frames:v 60 -f null - && touch done",
            ffmpeg.display()
        );
        let args: Vec<OsString> = words(&["sh", "-c", &script]);
        let took = run(folder.path(), &args, &timed, || folder.path().join("done").exists());
        assert!(
            took.ffmpeg_cpu > Duration::ZERO && took.ffmpeg_cpu <= took.cpu + Duration::from_millis(20),
            "{took:?}"
        );
        assert!(took.ffmpeg_mb > 5.0 && took.playable.is_some(), "{took:?}");
    }
}
