//! A file system for one test, of limited size or options.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::privilege::Missing;

/// A mounted file system, which is unmounted when this is dropped.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts a file system in memory on a folder, with these options. Needs the privilege to mount.
    ///
    /// # Errors
    /// If mounting is not allowed.
    ///
    /// # Panics
    /// If there is no `mount`.
    pub fn tmpfs(folder: &Path, options: &str) -> Result<Self, Missing> {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).output().unwrap();
        if mounted.status.success() {
            return Ok(Self(folder.to_owned()));
        }
        Err(Missing(format!(
            "failed to mount a file system: {}",
            String::from_utf8_lossy(&mounted.stderr).trim()
        )))
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Remounts with other options, such as another size.
    ///
    /// # Panics
    /// If the file system cannot have these options.
    pub fn remount(&self, options: &str) {
        let changed =
            Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status().unwrap();
        assert!(changed.success(), "cannot remount {}", self.0.display());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that still uses it must not keep it for ever.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
