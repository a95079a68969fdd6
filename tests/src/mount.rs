//! A file system of a test's own, which is as small as it should be.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// It; unmounted when dropped.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts one in memory on a folder, with these options; `None`, and a message, where mounting is not allowed.
    ///
    /// # Panics
    /// Where there is no `mount`.
    pub fn tmpfs(folder: &Path, options: &str) -> Option<Self> {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).output().unwrap();
        if mounted.status.success() {
            return Some(Self(folder.to_owned()));
        }
        eprintln!("skipped: mounting is not allowed here: {}", String::from_utf8_lossy(&mounted.stderr));
        None
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Gives it other options, such as another size.
    ///
    /// # Panics
    /// Where it cannot have them.
    pub fn change(&self, options: &str) {
        let changed =
            Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status().unwrap();
        assert!(changed.success(), "cannot remount {}", self.0.display());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: whatever still looks at it must not keep it for ever.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
