//! Results of tasks: files on disk that are deleted once the scheduler has fetched them, or some minutes
//! after their job's last task.
//!
//! Ballista's own cleanup goes by the age of a job's folder alone. The folder is made when the task begins,
//! so Ballista deletes it under a row that runs for longer than that.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::{task::spawn_blocking, time::interval};
use tracing::{debug, warn};

use crate::tasks::Tasks;

/// How long results are kept that the scheduler has not fetched.
const RETENTION: Duration = Duration::from_secs(300);

/// How often expired results are deleted.
const EXPIRY_POLL_INTERVAL: Duration = Duration::from_secs(60);

/// The results of an executor's tasks: a folder for each job.
pub(crate) struct Results {
    folder: PathBuf,
    tasks: Tasks,
}

impl Results {
    /// Returns the results that `tasks` leave in `folder`.
    pub(crate) fn new(folder: PathBuf, tasks: Tasks) -> Self {
        Self { folder, tasks }
    }

    /// Deletes the results of these jobs, in the background.
    pub(crate) fn delete(&self, jobs: Vec<String>) {
        if jobs.is_empty() {
            return;
        }
        let folder = self.folder.clone();
        // Left to itself: the deletion ends with the process at the latest.
        drop(spawn_blocking(move || delete_jobs(&folder, &jobs)));
    }

    /// Deletes expired results for as long as this is polled.
    pub(crate) async fn delete_expired(&self) -> ! {
        let mut poll = interval(EXPIRY_POLL_INTERVAL);
        loop {
            poll.tick().await;
            let (folder, running) = (self.folder.clone(), self.tasks.jobs());
            let _ = spawn_blocking(move || delete_older(&folder, &running, RETENTION)).await;
        }
    }

    /// Deletes all results.
    pub(crate) fn delete_all(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.folder)
    }
}

fn delete_jobs(folder: &Path, jobs: &[String]) {
    for job in jobs {
        let mut components = Path::new(job).components();
        // The name came over the network: accept only a folder directly below this one.
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            warn!(job, "ignored an invalid job name");
            continue;
        }
        if let Err(error) = fs::remove_dir_all(folder.join(job)) {
            debug!(job, %error, "failed to delete fetched results");
        }
    }
}

/// Deletes the folders of jobs that do not run and in which nothing was written for `retention`.
fn delete_older(folder: &Path, running: &[String], retention: Duration) {
    // The folder does not exist before the first task.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if running.iter().any(|job| **job == *name) {
            continue;
        }
        // A clock that was set back makes everything new.
        let age =
            last_written(&path).map(|written| SystemTime::now().duration_since(written).unwrap_or_default());
        match age {
            Ok(age) if age <= retention => {}
            Ok(_) => match fs::remove_dir_all(&path) {
                Ok(()) => debug!(path = %path.display(), "deleted expired results"),
                Err(error) => warn!(path = %path.display(), %error, "failed to delete expired results"),
            },
            Err(error) => debug!(path = %path.display(), %error, "failed to read the age of results"),
        }
    }
}

/// Returns when anything in a folder was last written.
fn last_written(path: &Path) -> io::Result<SystemTime> {
    let metadata = fs::metadata(path)?;
    let mut last = metadata.modified()?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            last = last.max(last_written(&entry?.path())?);
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_expire_unless_their_job_runs_or_they_are_new() {
        let folder = tempfile::tempdir().unwrap();
        let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
        for (job, written) in [("runs", an_hour_ago), ("old", an_hour_ago), ("new", SystemTime::now())] {
            let stage = folder.path().join(job).join("1");
            fs::create_dir_all(&stage).unwrap();
            let file = fs::File::create(stage.join("data.arrow")).unwrap();
            file.set_modified(written).unwrap();
            for path in [&stage, &folder.path().join(job)] {
                fs::File::open(path).unwrap().set_modified(an_hour_ago).unwrap();
            }
        }
        delete_older(folder.path(), &["runs".to_owned()], RETENTION);
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["new", "runs"]);
        delete_older(&folder.path().join("missing"), &[], RETENTION);
    }

    #[test]
    fn fetched_results_are_deleted_and_nothing_outside_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        for job in ["fetched", "other"] {
            fs::create_dir_all(inside.join(job).join("1")).unwrap();
        }
        fs::write(folder.path().join("outside"), "").unwrap();
        delete_jobs(&inside, &["fetched", "../outside", "..", "", "/", "missing"].map(str::to_owned));
        assert!(
            !inside.join("fetched").exists()
                && inside.join("other").exists()
                && folder.path().join("outside").exists()
        );
    }
}
