//! Where do statements run? On a scheduler elsewhere, or in a whole cluster of this process: the same code path as with many machines.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use backon::BackoffBuilder;
use spool_executor::Executor;
use spool_media::{
    ffmpeg,
    machine::{Event, Machine},
};
use spool_scheduler::{Error, Outcome, Remote, Scheduler, Service};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Engine, Share},
    exit::CliError,
    local::slots,
};

/// How long FFmpegs that were told to stop may take to be gone.
const CHILDREN_GONE: Duration = Duration::from_secs(5);

/// How long it is tried to reach a scheduler that was never reached, and one that went away.
const FIRST_TRIES: Duration = Duration::from_secs(5);
const LATER_TRIES: Duration = Duration::from_secs(300);

/// The wait before a scheduler is asked again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// Whatever runs statements.
pub struct Cluster {
    place: Place,
    threads: String,
}

enum Place {
    Here { service: Service, executor: tokio::sync::Mutex<Executor> },
    Elsewhere { remote: Remote, reached: AtomicBool },
}

impl Cluster {
    /// A scheduler elsewhere.
    pub fn elsewhere(address: &str, engine: &Engine) -> Self {
        let remote = Remote::new(address, engine.token.clone());
        Self { place: Place::Elsewhere { remote, reached: AtomicBool::new(false) }, threads: engine.share.threads.to_string() }
    }

    /// Starts a scheduler and an executor in this process.
    pub async fn here(machine: &Arc<Machine>, share: Share) -> Result<Self, CliError> {
        let service = Scheduler::start(spool_scheduler::Settings::embedded(), machine.clone()).await?;
        let settings = spool_executor::Settings {
            scheduler: service.address().to_string(),
            slots: slots(share),
            work_dir: machine.scratch().join("engine"),
            address: None,
            token: None,
            grace: Duration::ZERO,
            leave_idle: None,
        };
        let executor = tokio::sync::Mutex::new(Executor::start(settings, machine.clone()));
        Ok(Self { place: Place::Here { service, executor }, threads: share.threads.to_string() })
    }

    /// Runs one statement; `tell` hears what happens to its rows.
    ///
    /// An executor that stops meanwhile is an error at once, not a wait; a scheduler elsewhere that goes away is waited for.
    pub async fn run(
        &self,
        sql: &str,
        cancel: &CancellationToken,
        tell: &(dyn Fn(Event) + Send + Sync),
    ) -> Result<Outcome, CliError> {
        let settings = [("spool.threads", self.threads.as_str())];
        match &self.place {
            Place::Here { service, executor } => tokio::select! {
                outcome = service.scheduler().run(sql, &settings, cancel, tell) => Ok(outcome?),
                Err(error) = async { executor.lock().await.stopped().await }, if !cancel.is_cancelled() => Err(error.into()),
            },
            Place::Elsewhere { remote, reached } => loop_until_done(remote, reached, sql, &settings, cancel, tell).await,
        }
    }

    /// Stops what runs in this process, and returns once nothing runs for it any more: no task, no FFmpeg.
    pub async fn stop(self) {
        if let Place::Here { service, executor } = self.place {
            executor.into_inner().stop().await;
            drop(service);
            ffmpeg::all_gone(CHILDREN_GONE).await;
        }
    }
}

/// Runs a statement elsewhere, again where the scheduler went away: rows that are done are found by their records.
async fn loop_until_done(
    remote: &Remote,
    reached: &AtomicBool,
    sql: &str,
    settings: &[(&str, &str)],
    cancel: &CancellationToken,
    tell: &(dyn Fn(Event) + Send + Sync),
) -> Result<Outcome, CliError> {
    let waits = || {
        let shape = backon::ExponentialBuilder::new().with_min_delay(RETRY_FIRST).with_max_delay(RETRY_MOST);
        shape.without_max_times().with_jitter().build()
    };
    let (mut backoff, mut away) = (waits(), Instant::now());
    loop {
        match remote.run(sql, settings, cancel, tell).await {
            Err(error @ Error::Unreachable { accepted, .. }) => {
                // It was there until now: what counts is how long it is away from here on.
                if accepted {
                    reached.store(true, Ordering::Relaxed);
                    (backoff, away) = (waits(), Instant::now());
                }
                let patience = if reached.load(Ordering::Relaxed) { LATER_TRIES } else { FIRST_TRIES };
                if away.elapsed() > patience {
                    return Err(error.into());
                }
                tracing::warn!(%error, "trying again");
                tokio::select! {
                    () = tokio::time::sleep(backoff.next().unwrap_or(RETRY_MOST)) => {}
                    () = cancel.cancelled() => return Err(Error::Canceled.into()),
                }
            }
            outcome => {
                reached.store(true, Ordering::Relaxed);
                return Ok(outcome?);
            }
        }
    }
}
