//! What does `spool` ask of FFmpeg? A program in its place writes down every encode, and can be told to be slow.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// An FFmpeg that writes down what it is asked to encode.
#[derive(Debug)]
pub struct Wrapper {
    folder: tempfile::TempDir,
}

impl Wrapper {
    /// One that works like FFmpeg itself.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Under `make test` FFmpeg is on the path; the wrapper itself is started with hardly any environment.
        let real = which("ffmpeg");
        // Every encode, of rows and of what `spool plan` looks at, is timed by the source's own clock; nothing else is.
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

    /// One that remembers: an encode that was run before, of the same bytes, is answered with what it gave then, so that it takes hardly
    /// any of the processors. It writes nothing down.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn remembering() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let real = which("ffmpeg");
        // What is given is put in its place whole: others may look at the same time.
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

    /// How many encodes one that remembers has run itself.
    pub fn remembered(&self) -> usize {
        // Not there before the first.
        let kept = fs::read_dir(self.folder.path().join("kept"));
        kept.into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()).count()
    }

    /// What `SPOOL_FFMPEG` names.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ffmpeg")
    }

    /// From now on, encodes after the first `count` hardly get on: a fiftieth of a second of media for each second.
    ///
    /// # Panics
    /// Where it cannot be told.
    pub fn slow_after(&self, count: usize) {
        fs::write(self.folder.path().join("slow"), count.to_string()).unwrap();
    }

    /// From now on, encodes run as they should.
    ///
    /// # Panics
    /// Where they do already.
    pub fn hurry(&self) {
        fs::remove_file(self.folder.path().join("slow")).unwrap();
    }

    /// A line of shell that runs before each encode. `$n` is the number of the encode, from 1.
    ///
    /// # Panics
    /// Where it cannot be told.
    pub fn before_each(&self, shell: &str) {
        fs::write(self.folder.path().join("hook"), format!("{shell}\n")).unwrap();
    }

    /// From now on, the encode of this number (from 1) waits until it is released.
    ///
    /// # Panics
    /// Where it cannot be told.
    pub fn hold(&self, number: usize) {
        self.before_each(&format!("[ \"$n\" -eq {number} ] && until [ -e released ]; do sleep 0.02; done"));
    }

    /// Lets the encode go on that waits.
    ///
    /// # Panics
    /// Where it cannot be told.
    pub fn release(&self) {
        fs::write(self.folder.path().join("released"), "").unwrap();
    }

    /// The encodes so far: what FFmpeg was asked for, a line each.
    pub fn encodes(&self) -> Vec<String> {
        self.started().into_iter().map(|(_, line)| line).collect()
    }

    /// The same, each with when it started.
    ///
    /// # Panics
    /// Where the clock went wrong.
    pub fn started(&self) -> Vec<(SystemTime, String)> {
        // Not there before the first.
        let text = fs::read_to_string(self.folder.path().join("encodes")).unwrap_or_default();
        let line = |line: &str| {
            let (ns, line) = line.split_once(' ').unwrap();
            (SystemTime::UNIX_EPOCH + Duration::from_nanos(ns.parse().unwrap()), line.to_owned())
        };
        text.lines().map(line).collect()
    }

    /// Forgets the encodes so far.
    ///
    /// # Panics
    /// Where there were none.
    pub fn forget(&self) {
        fs::remove_file(self.folder.path().join("encodes")).unwrap();
    }
}

impl Default for Wrapper {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes a program that can be started.
///
/// # Panics
/// Where it cannot be written.
pub fn write_program(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Where a program lies on the path.
///
/// # Panics
/// Where it does not.
pub fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file()).unwrap()
}
