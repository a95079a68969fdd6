//! How is encoding simulated? A program in FFmpeg's place answers what it was asked before, after a time that is known beforehand, so that
//! what is measured is everything but FFmpeg.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use spool_tests::ffmpeg_wrapper::which;

/// The program, as cargo names it.
const PROGRAM: &str = "simulated-ffmpeg";

/// How long an encode takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pace {
    /// Seconds for each second of media that comes out.
    pub seconds_per_media_second: f64,
    /// Each takes longer or shorter by up to this share, which nobody knows beforehand.
    pub spread: f64,
}

/// What the program is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The real one.
    pub ffmpeg: PathBuf,
    /// How long an encode takes.
    pub pace: Pace,
}

/// An encode that was simulated.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Names what was encoded.
    pub key: String,
    /// How long it took.
    pub takes: Duration,
}

/// A simulated FFmpeg, in a folder of its own.
#[derive(Debug)]
pub struct Simulation {
    folder: tempfile::TempDir,
}

impl Settings {
    /// What the file in this folder says.
    pub fn read(folder: &Path) -> Self {
        let text = fs::read_to_string(folder.join("settings")).unwrap();
        let mut lines = text.lines();
        let mut line = || lines.next().unwrap();
        Self {
            ffmpeg: line().into(),
            pace: Pace { seconds_per_media_second: line().parse().unwrap(), spread: line().parse().unwrap() },
        }
    }

    fn write(&self, folder: &Path) {
        let Self { ffmpeg, pace: Pace { seconds_per_media_second, spread } } = self;
        let text = format!("{}\n{seconds_per_media_second}\n{spread}\n", ffmpeg.display());
        // Replaced at once: encodes that start meanwhile read one or the other.
        let new = folder.join("settings.new");
        fs::write(&new, text).unwrap();
        fs::rename(new, folder.join("settings")).unwrap();
    }

    /// How long the encode named `key` takes: the same each time.
    pub fn takes(&self, media: Duration, key: &str) -> Duration {
        // The key is random as it is.
        let random = f64::from(u32::from_str_radix(&key[..8], 16).unwrap()) / f64::from(u32::MAX) * 2.0 - 1.0;
        media.mul_f64(self.pace.seconds_per_media_second * (1.0 + self.pace.spread * random))
    }
}

impl Run {
    /// Notes the run in the log in this folder.
    pub fn log(&self, folder: &Path) {
        let line = format!("{} {}\n", self.key, self.takes.as_micros());
        let mut log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }

    fn parse(line: &str) -> Self {
        let (key, us) = line.split_once(' ').unwrap();
        Self { key: key.to_owned(), takes: Duration::from_micros(us.parse().unwrap()) }
    }
}

impl Simulation {
    /// One that remembers nothing and takes no time.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ours = std::env::current_exe().unwrap().with_file_name(PROGRAM);
        let simulation = Self { folder };
        fs::copy(&ours, simulation.path())
            .unwrap_or_else(|e| panic!("{}: {e}: build the workspace first", ours.display()));
        fs::set_permissions(simulation.path(), fs::Permissions::from_mode(0o755)).unwrap();
        simulation.set(&Pace::default());
        simulation
    }

    /// What `SPOOL_FFMPEG` names.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ffmpeg")
    }

    /// Sets how long encodes take from now on.
    pub fn set(&self, pace: &Pace) {
        Settings { ffmpeg: which("ffmpeg"), pace: pace.clone() }.write(self.folder.path());
    }

    /// The simulated encodes since they were asked for last.
    pub fn take_runs(&self) -> Vec<Run> {
        let log = self.folder.path().join("log");
        // Not there before the first.
        let runs = fs::read_to_string(&log).unwrap_or_default().lines().map(Run::parse).collect();
        let _ = fs::remove_file(log);
        runs
    }
}

impl Default for Simulation {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_runs_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            ffmpeg: "/usr/bin/ffmpeg".into(),
            pace: Pace { seconds_per_media_second: 75.5, spread: 0.25 },
        };
        settings.write(folder.path());
        assert_eq!(Settings::read(folder.path()), settings);
        let run = Run { key: "00ff".to_owned(), takes: Duration::from_micros(1_250_000) };
        run.log(folder.path());
        assert_eq!(Run::parse(fs::read_to_string(folder.path().join("log")).unwrap().trim()), run);
    }

    #[test]
    fn a_spread_is_around_the_pace() {
        let settings =
            Settings { ffmpeg: "ffmpeg".into(), pace: Pace { seconds_per_media_second: 10.0, spread: 0.25 } };
        let takes = |key| settings.takes(Duration::from_secs(1), key).as_secs_f64();
        assert!((takes("00000000") - 7.5).abs() < 1e-6 && (takes("ffffffff") - 12.5).abs() < 1e-6);
    }
}
