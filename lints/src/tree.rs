//! The text files of the repository, read once.

use std::{collections::BTreeMap, io, path::Path, process::Command};

/// Text files by their path from the root of the repository.
#[derive(Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, String>,
}

/// Failure to read the repository.
#[derive(Debug)]
pub enum Error {
    /// Git could not be started.
    Start(io::Error),
    /// Git failed; its standard error.
    Git(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(error) => write!(f, "failed to start git: {error}; install it"),
            Self::Git(stderr) => write!(f, "failed to list files: git: {}", stderr.trim()),
        }
    }
}

impl std::error::Error for Error {}

impl Tree {
    /// Reads the files of the working tree at `root` that git tracks or would track. Binary files are left
    /// out.
    ///
    /// # Errors
    /// If git cannot list the files.
    #[expect(clippy::disallowed_methods, reason = "git knows which files belong to the repository")]
    pub fn read(root: &Path) -> Result<Self, Error> {
        let output = Command::new("git")
            // CI checks out as one user and builds as another.
            .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .map_err(Error::Start)?;
        if !output.status.success() {
            return Err(Error::Git(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let names = String::from_utf8_lossy(&output.stdout);
        let read = |name: &str| {
            // A tracked file may be gone from the working tree.
            let text = std::fs::read_to_string(root.join(name)).ok()?;
            (!text.contains('\0')).then(|| (name.to_owned(), text))
        };
        Ok(Self { files: names.split('\0').filter(|name| !name.is_empty()).filter_map(read).collect() })
    }

    /// Returns a tree of these files, for tests of the rules.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self { files: files.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect() }
    }

    /// Returns the text of a file.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(String::as_str)
    }

    /// Iterates over all files, path and text, by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }
}
