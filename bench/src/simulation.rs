//! Simulated FFmpeg: a program in FFmpeg's place repeats earlier results after a known time, so that
//! measurements exclude FFmpeg.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use spool_tests::ffmpeg_wrapper::which;

/// Name of the program's binary.
const PROGRAM: &str = "simulated-ffmpeg";

/// Time that encodes take.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pace {
    /// Seconds per second of encoded media.
    pub seconds_per_media_second: f64,
    /// Largest share by which one encode takes longer or shorter, unpredictably.
    pub spread: f64,
}

/// Settings of the program.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Path of the real FFmpeg.
    pub ffmpeg: PathBuf,
    /// Time that encodes take.
    pub pace: Pace,
}

/// A simulated encode.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Identifies the command and its input.
    pub key: String,
    /// Time that it took.
    pub took: Duration,
}

/// Simulated FFmpeg in a temporary folder.
#[derive(Debug)]
pub struct Simulation {
    folder: tempfile::TempDir,
}

impl Settings {
    /// Reads the settings in a folder.
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
        // Replaced atomically, since encodes may start meanwhile.
        let new = folder.join("settings.new");
        fs::write(&new, text).unwrap();
        fs::rename(new, folder.join("settings")).unwrap();
    }

    /// Returns the time that the encode `key` takes, which is equal in every run.
    pub fn duration(&self, media: Duration, key: &str) -> Duration {
        // The key is a hash, and so random enough.
        let random = f64::from(u32::from_str_radix(&key[..8], 16).unwrap()) / f64::from(u32::MAX) * 2.0 - 1.0;
        media.mul_f64(self.pace.seconds_per_media_second * (1.0 + self.pace.spread * random))
    }
}

impl Run {
    /// Appends the run to the log in a folder.
    pub fn log(&self, folder: &Path) {
        let line = format!("{} {}\n", self.key, self.took.as_micros());
        let mut log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }

    fn parse(line: &str) -> Self {
        let (key, us) = line.split_once(' ').unwrap();
        Self { key: key.to_owned(), took: Duration::from_micros(us.parse().unwrap()) }
    }
}

impl Simulation {
    /// Returns a simulation without earlier results, whose encodes take no time.
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

    /// Returns the path of the program, for `SPOOL_FFMPEG`.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ffmpeg")
    }

    /// Sets the time that encodes take from now on.
    pub fn set(&self, pace: &Pace) {
        Settings { ffmpeg: which("ffmpeg"), pace: pace.clone() }.write(self.folder.path());
    }

    /// Returns the simulated encodes since the last call.
    pub fn take_runs(&self) -> Vec<Run> {
        let log = self.folder.path().join("log");
        // Missing before the first run.
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
    fn settings_and_runs_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            ffmpeg: "/usr/bin/ffmpeg".into(),
            pace: Pace { seconds_per_media_second: 75.5, spread: 0.25 },
        };
        settings.write(folder.path());
        assert_eq!(Settings::read(folder.path()), settings);
        let run = Run { key: "00ff".to_owned(), took: Duration::from_micros(1_250_000) };
        run.log(folder.path());
        assert_eq!(Run::parse(fs::read_to_string(folder.path().join("log")).unwrap().trim()), run);
    }

    #[test]
    fn spread_is_centred_on_the_pace() {
        let settings =
            Settings { ffmpeg: "ffmpeg".into(), pace: Pace { seconds_per_media_second: 10.0, spread: 0.25 } };
        let seconds = |key| settings.duration(Duration::from_secs(1), key).as_secs_f64();
        assert!((seconds("00000000") - 7.5).abs() < 1e-6 && (seconds("ffffffff") - 12.5).abs() < 1e-6);
    }
}
