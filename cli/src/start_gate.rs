//! Start gate of `spool transcode`: holds the rows of all videos until every source is planned and every
//! destination is known to be writable, so that errors of the request are reported before anything is encoded
//! or written.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use spool_media::{
    encode::worker::Worker,
    package::publish,
    plan::{
        ladder::Ladder,
        segments::{Segment, SegmentTrack},
    },
};
use spool_scheduler::{BeforeRows, Error};
use spool_udfs::error::Failure;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, watch};

use crate::profile::Profile;

/// Videos that are planned concurrently, and videos that are encoded concurrently: a single short video would
/// leave slots idle.
const CONCURRENT_VIDEOS: usize = 4;

/// Stage of a profile in which encoders and destinations are checked.
const CHECKING: &str = "checking";

/// Checks of a process that encodes itself.
pub struct Checks {
    pub worker: Arc<Worker>,
    pub ladder: Ladder,
    pub destinations: Vec<String>,
}

/// Start gate of the videos of one command.
pub struct StartGate {
    videos: usize,
    /// `None` if executors elsewhere read the sources and write to the destinations.
    checks: Option<Checks>,
    planning: Arc<Semaphore>,
    encoding: Arc<Semaphore>,
    planned: watch::Sender<usize>,
    checked: OnceCell<()>,
    profile: Arc<Profile>,
}

impl StartGate {
    pub fn new(videos: usize, checks: Option<Checks>, profile: Arc<Profile>) -> Arc<Self> {
        Arc::new(Self {
            videos,
            checks,
            planning: Arc::new(Semaphore::new(CONCURRENT_VIDEOS)),
            encoding: Arc::new(Semaphore::new(CONCURRENT_VIDEOS)),
            planned: watch::Sender::new(0),
            checked: OnceCell::new(),
            profile,
        })
    }

    /// Waits until a video may be planned.
    pub async fn enter(self: &Arc<Self>) -> Arc<VideoAtGate> {
        Arc::new(VideoAtGate {
            gate: self.clone(),
            row: Mutex::default(),
            is_planned: AtomicBool::new(false),
            permit: Mutex::new(permit(&self.planning).await),
        })
    }

    /// Checks that the ladder has a rung for the source of a row.
    async fn check_ladder(&self, row: &Segment) -> spool_media::Result<()> {
        let Some(Checks { worker, ladder, .. }) = &self.checks else { return Ok(()) };
        // In the source cache, since the row was planned a moment ago.
        let timeline = worker.open_planned(row).await?;
        if let Some(video) = &timeline.source.probe.video {
            ladder.fit(video, &timeline.grid)?;
        }
        Ok(())
    }

    /// Checks that FFmpeg has the encoders, and that every destination can be written.
    async fn check_environment(&self) -> spool_media::Result<()> {
        let Some(Checks { worker, destinations, .. }) = &self.checks else { return Ok(()) };
        let environment = worker.environment();
        environment.default_encoder_build().await?;
        for destination in destinations {
            publish::check_writable(&environment.stores.locate(destination)?).await?;
        }
        Ok(())
    }
}

/// Video that is being planned or encoded. Dropped when its statement ends, which makes room for another
/// video.
pub struct VideoAtGate {
    gate: Arc<StartGate>,
    /// A video row of it, if it has one.
    row: Mutex<Option<Segment>>,
    is_planned: AtomicBool,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl VideoAtGate {
    /// Records a planned row.
    pub fn on_planned(&self, row: &Segment) {
        if row.track == SegmentTrack::Video {
            self.row.lock().get_or_insert_with(|| row.clone());
        }
    }

    /// Returns the hook by which the video's statement waits at the gate.
    pub fn before_rows(self: &Arc<Self>) -> BeforeRows {
        let video = self.clone();
        Arc::new(move || {
            let video = video.clone();
            Box::pin(async move { video.pass().await })
        })
    }

    /// Waits until all videos are planned and checked, and until this one may be encoded.
    async fn pass(&self) -> Result<(), Error> {
        let failed = |error: spool_media::Error| Error::Failed(Failure::from_media(&error));
        let gate = &self.gate;
        let row = self.row.lock().clone();
        if let Some(row) = row {
            gate.check_ladder(&row).await.map_err(failed)?;
        }
        self.set_planned();
        // The sender lives as long as the gate.
        let _ = gate.planned.subscribe().wait_for(|planned| *planned >= gate.videos).await;
        let check = || gate.profile.stage(CHECKING, gate.check_environment());
        gate.checked.get_or_try_init(check).await.map_err(failed)?;
        // A statement that is sent again passes twice.
        if self.permit.lock().is_none() {
            let permit = permit(&gate.encoding).await;
            *self.permit.lock() = permit;
        }
        Ok(())
    }

    /// Counts the video as planned, once, and makes room for another to be planned.
    fn set_planned(&self) {
        if !self.is_planned.swap(true, Ordering::Relaxed) {
            self.permit.lock().take();
            self.gate.planned.send_modify(|planned| *planned += 1);
        }
    }
}

impl Drop for VideoAtGate {
    fn drop(&mut self) {
        self.set_planned();
    }
}

/// Waits for a permit. The semaphores are never closed.
async fn permit(semaphore: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    semaphore.clone().acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(videos: usize) -> Arc<StartGate> {
        StartGate::new(videos, None, Arc::new(Profile::start()))
    }

    #[tokio::test]
    async fn no_video_passes_before_all_are_planned() {
        let gate = gate(2);
        let (first, second) = (gate.enter().await, gate.enter().await);
        let mut passing = first.before_rows()();
        let waits = tokio::time::timeout(std::time::Duration::from_millis(20), &mut passing).await;
        assert!(waits.is_err());
        second.before_rows()().await.unwrap();
        passing.await.unwrap();
    }

    #[tokio::test]
    async fn more_videos_than_run_concurrently_pass_in_turn() {
        let gate = gate(3 * CONCURRENT_VIDEOS);
        let videos = (0..3 * CONCURRENT_VIDEOS).map(|_| async {
            let video = gate.enter().await;
            video.before_rows()().await.unwrap();
            assert!(gate.encoding.available_permits() < CONCURRENT_VIDEOS);
        });
        futures::future::join_all(videos).await;
        assert_eq!(gate.encoding.available_permits(), CONCURRENT_VIDEOS);
    }

    #[tokio::test]
    async fn a_statement_that_is_sent_again_passes_again() {
        let gate = gate(1);
        let video = gate.enter().await;
        for _ in 0..2 {
            video.before_rows()().await.unwrap();
        }
        assert_eq!(gate.encoding.available_permits(), CONCURRENT_VIDEOS - 1);
    }
}
