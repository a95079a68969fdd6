//! A program in FFmpeg's place that logs every encode, and that a test can slow down, block, or let fail.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// An FFmpeg that logs its encodes.
#[derive(Debug)]
pub struct FfmpegWrapper {
    folder: tempfile::TempDir,
}

impl FfmpegWrapper {
    /// Creates a wrapper that runs FFmpeg.
    ///
    /// # Panics
    /// If the program cannot be written.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Under `make test` FFmpeg is on the path; the wrapper itself is started with hardly any environment.
        let real = which("ffmpeg");
        // Every encode, of rows and of the samples of `spool plan`, is timed by the source's own clock
        // (`-copyts`); no other invocation is.
        let script = format!(
            "#!/bin/sh\n\
             case \" $* \" in *' -copyts '*) ;; *) exec {real} \"$@\" ;; esac\n\
             cd -P {folder} && echo \"$(date +%s%N) $@\" >> encodes && n=$(wc -l < encodes)\n\
             [ -e slow ] && [ \"$n\" -gt \"$(cat slow)\" ] && cd -P \"$OLDPWD\" && exec {real} -readrate 0.02 \"$@\"\n\
             [ -e hook ] && . ./hook\n\
             cd -P \"$OLDPWD\" && exec {real} \"$@\"\n",
            real = real.display(),
            folder = folder.path().display(),
        );
        write_program(&folder.path().join("ffmpeg"), &script);
        Self { folder }
    }

    /// Creates a wrapper with a cache: an encode of equal bytes with equal arguments is answered with the
    /// files of the first one, so that it takes hardly any processor time. It logs nothing.
    ///
    /// # Panics
    /// If the program cannot be written.
    pub fn caching() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let real = which("ffmpeg");
        // A result is moved into its place as a whole: other encodes may look at the same time.
        let script = format!(
            "#!/bin/sh\n\
             case \" $* \" in *' -copyts '*) ;; *) exec {real} \"$@\" ;; esac\n\
             here=$(pwd -P)\n\
             key=$({{ printf '%s ' \"$@\" | sed \"s|$here|.|g\"; cat -- *; }} | md5sum | cut -c1-32)\n\
             kept={kept}/$key\n\
             if [ ! -d \"$kept\" ]; then\n\
             new={kept}/new-$$ && mkdir -p \"$new/files\" && ls > \"$new/before\" && {real} \"$@\" > \"$new/said\" || exit 1\n\
             for file in *; do grep -qxF -- \"$file\" \"$new/before\" || cp -- \"$file\" \"$new/files\"; done\n\
             mv -T -- \"$new\" \"$kept\" 2> {kept}/late || rm -r -- \"$new\"\n\
             fi\n\
             cp -- \"$kept\"/files/* . && exec cat -- \"$kept/said\"\n",
            real = real.display(),
            kept = folder.path().join("kept").display(),
        );
        write_program(&folder.path().join("ffmpeg"), &script);
        Self { folder }
    }

    /// Returns the number of encodes that a wrapper with a cache has run.
    pub fn cached_encodes(&self) -> usize {
        // Does not exist before the first encode.
        let kept = fs::read_dir(self.folder.path().join("kept"));
        kept.into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()).count()
    }

    /// Returns the path for `SPOOL_FFMPEG`.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ffmpeg")
    }

    /// Slows down encodes after the first `count`: to a fiftieth of a second of media per second.
    ///
    /// # Panics
    /// If the wrapper's folder cannot be written.
    pub fn slow_after(&self, count: usize) {
        fs::write(self.folder.path().join("slow"), count.to_string()).unwrap();
    }

    /// Lets encodes run at full speed again.
    ///
    /// # Panics
    /// If encodes are not slowed down.
    pub fn full_speed(&self) {
        fs::remove_file(self.folder.path().join("slow")).unwrap();
    }

    /// Sets a line of shell that runs before each encode. `$n` is the number of the encode, from 1.
    ///
    /// # Panics
    /// If the wrapper's folder cannot be written.
    pub fn before_each(&self, shell: &str) {
        fs::write(self.folder.path().join("hook"), format!("{shell}\n")).unwrap();
    }

    /// Blocks the encode of this number (from 1) until it is unblocked.
    ///
    /// # Panics
    /// If the wrapper's folder cannot be written.
    pub fn block_encode(&self, number: usize) {
        self.before_each(&format!("[ \"$n\" -eq {number} ] && until [ -e released ]; do sleep 0.02; done"));
    }

    /// Unblocks the encode that waits.
    ///
    /// # Panics
    /// If the wrapper's folder cannot be written.
    pub fn unblock(&self) {
        fs::write(self.folder.path().join("released"), "").unwrap();
    }

    /// Returns the arguments of the encodes so far.
    pub fn encodes(&self) -> Vec<String> {
        self.encodes_with_times().into_iter().map(|(_, line)| line).collect()
    }

    /// Returns the encodes so far, each with its start.
    ///
    /// # Panics
    /// If the log cannot be parsed.
    pub fn encodes_with_times(&self) -> Vec<(SystemTime, String)> {
        // Does not exist before the first encode.
        let text = fs::read_to_string(self.folder.path().join("encodes")).unwrap_or_default();
        let line = |line: &str| {
            let (ns, line) = line.split_once(' ').unwrap();
            (SystemTime::UNIX_EPOCH + Duration::from_nanos(ns.parse().unwrap()), line.to_owned())
        };
        text.lines().map(line).collect()
    }

    /// Clears the log of encodes.
    ///
    /// # Panics
    /// If the log is empty.
    pub fn clear_log(&self) {
        fs::remove_file(self.folder.path().join("encodes")).unwrap();
    }
}

impl Default for FfmpegWrapper {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes an executable program.
///
/// # Panics
/// If the program cannot be written.
pub fn write_program(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Returns the path of a program on `PATH`.
///
/// # Panics
/// If the program is not on `PATH`.
pub fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file()).unwrap()
}
