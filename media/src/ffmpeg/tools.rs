//! Paths of FFmpeg and ffprobe, and the mode of their sandbox.

use std::{
    env,
    ffi::OsStr,
    fmt,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::Error;

/// One of FFmpeg's two programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The transcoder.
    Ffmpeg,
    /// The inspector.
    Ffprobe,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ffmpeg => "ffmpeg",
            Self::Ffprobe => "ffprobe",
        })
    }
}

/// Mode of the sandbox. All modes but `None` need a binary that starts programs in a
/// [sandbox](super::sandbox), as `spool` does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// No sandbox. Programs may even outlive this process.
    #[default]
    None,
    /// Programs die with this process, and have resource limits.
    Limits,
    /// Also denies other files, sockets and processes, unless the program is a script.
    All,
}

/// Paths of the programs on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// Path of `ffmpeg`.
    pub ffmpeg: PathBuf,
    /// Path of `ffprobe`.
    pub ffprobe: PathBuf,
    /// Mode of the sandbox.
    pub confinement: SandboxMode,
    /// Folders with libraries that the programs need, besides the system's and `lib` beside their own `bin`.
    pub libraries: Vec<PathBuf>,
}

impl Tools {
    /// Finds the programs: paths from `SPOOL_FFMPEG` and `SPOOL_FFPROBE`, else by name on `PATH`.
    ///
    /// # Errors
    /// Returns [`Error::Missing`] for the first program that is missing, with how to install it.
    pub fn from_env() -> Result<Self, Error> {
        Ok(Self {
            ffmpeg: find("ffmpeg", "SPOOL_FFMPEG")?,
            ffprobe: find("ffprobe", "SPOOL_FFPROBE")?,
            confinement: SandboxMode::None,
            libraries: Vec::new(),
        })
    }

    pub(super) fn path(&self, program: Program) -> &Path {
        match program {
            Program::Ffmpeg => &self.ffmpeg,
            Program::Ffprobe => &self.ffprobe,
        }
    }
}

fn find(program: &str, variable: &'static str) -> Result<PathBuf, Error> {
    resolve(program, variable, env::var_os(variable).as_deref(), env::var_os("PATH").as_deref())
}

fn resolve(
    program: &str,
    variable: &'static str,
    given: Option<&OsStr>,
    path: Option<&OsStr>,
) -> Result<PathBuf, Error> {
    let given = given.filter(|given| !given.is_empty());
    let wanted = given.unwrap_or_else(|| OsStr::new(program));
    let found = if wanted.as_encoded_bytes().contains(&b'/') {
        // The child's working folder is its scratch folder, so a relative path is made absolute.
        Some(PathBuf::from(wanted))
            .filter(|candidate| is_executable(candidate))
            .and_then(|path| std::path::absolute(path).ok())
    } else {
        env::split_paths(path.unwrap_or_default())
            .map(|folder| folder.join(wanted))
            .find(|candidate| is_executable(candidate))
    };
    found.ok_or_else(|| Error::Missing {
        program: wanted.to_string_lossy().into_owned(),
        package: "ffmpeg",
        variable,
    })
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spool_storage::ErrorKind;

    fn ffmpeg(given: Option<&str>, path: &str) -> Result<PathBuf, Error> {
        resolve("ffmpeg", "SPOOL_FFMPEG", given.map(OsStr::new), Some(OsStr::new(path)))
    }

    #[test]
    fn finds_by_name_and_by_path() {
        assert_eq!(ffmpeg(None, "/nonexistent:/usr/bin").unwrap(), Path::new("/usr/bin/ffmpeg"));
        assert_eq!(ffmpeg(Some(""), "/usr/bin").unwrap(), Path::new("/usr/bin/ffmpeg"));
        assert_eq!(ffmpeg(Some("/bin/sh"), "").unwrap(), Path::new("/bin/sh"));
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let error = ffmpeg(Some("ffmpeg-8"), "/usr/bin").unwrap_err();
        assert_eq!(
            error.to_string(),
            "ffmpeg-8 not found: install it with \"apt-get install ffmpeg\", or name its path in SPOOL_FFMPEG"
        );
        assert_eq!(error.kind(), ErrorKind::BadInput);
        // A file without execute permission is no program.
        assert!(ffmpeg(Some("/etc/passwd"), "").is_err());
    }
}
