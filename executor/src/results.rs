//! How long does what tasks gave stay on disk? Until the scheduler says that it has it; what it says nothing of for some minutes after
//! the job's last task.
//!
//! Ballista's own sweep goes by the age of a job's folder alone, which is made when the task begins: it takes the folder away from under
//! a row that runs for longer than that.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::{task::spawn_blocking, time::interval};
use tracing::{debug, warn};

use crate::engine::Tasks;

/// How long results stay that nobody has fetched.
const KEEP: Duration = Duration::from_secs(300);

/// How often it is looked for those that are older.
const LOOK: Duration = Duration::from_secs(60);

/// The results of an executor's tasks: a folder for each job.
pub(crate) struct Results {
    folder: PathBuf,
    tasks: Tasks,
}

impl Results {
    /// Those that `tasks` leave in `folder`.
    pub(crate) fn of(folder: PathBuf, tasks: Tasks) -> Self {
        Self { folder, tasks }
    }

    /// Removes the results of jobs, beside what else is done.
    pub(crate) fn remove(&self, jobs: Vec<String>) {
        if jobs.is_empty() {
            return;
        }
        let folder = self.folder.clone();
        // It ends with the process at the latest.
        drop(spawn_blocking(move || remove_these(&folder, &jobs)));
    }

    /// Removes old results for as long as this is polled.
    pub(crate) async fn sweep(&self) -> ! {
        let mut look = interval(LOOK);
        loop {
            look.tick().await;
            let (folder, in_hand) = (self.folder.clone(), self.tasks.jobs());
            let _ = spawn_blocking(move || remove_old(&folder, &in_hand, KEEP)).await;
        }
    }

    /// Removes everything.
    pub(crate) fn remove_all(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.folder)
    }
}

fn remove_these(folder: &Path, jobs: &[String]) {
    for job in jobs {
        let mut components = Path::new(job).components();
        // A name from elsewhere: nothing but a folder right here.
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            warn!(job, "no name of a job");
            continue;
        }
        if let Err(error) = fs::remove_dir_all(folder.join(job)) {
            debug!(job, %error, "results that were fetched cannot be removed");
        }
    }
}

/// Removes the folders of jobs that are not in hand and in which nothing was written for so long.
fn remove_old(folder: &Path, in_hand: &[String], keep: Duration) {
    // Not there before the first task.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if in_hand.iter().any(|job| **job == *name) {
            continue;
        }
        // A clock that was set back makes everything new.
        let age =
            last_written(&path).map(|written| SystemTime::now().duration_since(written).unwrap_or_default());
        match age {
            Ok(age) if age <= keep => {}
            Ok(_) => match fs::remove_dir_all(&path) {
                Ok(()) => debug!(path = %path.display(), "old results removed"),
                Err(error) => warn!(path = %path.display(), %error, "old results cannot be removed"),
            },
            Err(error) => debug!(path = %path.display(), %error, "cannot tell how old results are"),
        }
    }
}

/// When something in a folder was written last.
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
    fn what_is_in_hand_or_new_stays() {
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
        remove_old(folder.path(), &["runs".to_owned()], KEEP);
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["new", "runs"]);
        remove_old(&folder.path().join("missing"), &[], KEEP);
    }

    #[test]
    fn what_was_fetched_goes_and_nothing_outside_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        for job in ["fetched", "other"] {
            fs::create_dir_all(inside.join(job).join("1")).unwrap();
        }
        fs::write(folder.path().join("outside"), "").unwrap();
        remove_these(&inside, &["fetched", "../outside", "..", "", "/", "missing"].map(str::to_owned));
        assert!(
            !inside.join("fetched").exists()
                && inside.join("other").exists()
                && folder.path().join("outside").exists()
        );
    }
}
