//! Where do statements run? On a scheduler elsewhere, or in a whole cluster of this process: the same code path as with many machines.

use std::{sync::Arc, time::Duration};

use spool_executor::Executor;
use spool_media::{
    encode::worker::{Machine, RowEvent},
    ffmpeg,
};
use spool_scheduler::{Outcome, Remote, Scheduler, Service};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Engine, Share},
    exit::CliError,
    local::slots,
};

/// How long FFmpegs that were told to stop may take to be gone.
const CHILDREN_GONE: Duration = Duration::from_secs(5);

/// A scheduler and an executor of this process.
pub async fn roles(machine: &Arc<Machine>, share: Share) -> Result<(Service, Executor), CliError> {
    let service = Scheduler::start(spool_scheduler::Settings::embedded(), machine.clone()).await?;
    let settings = spool_executor::Settings {
        scheduler: service.address().to_string(),
        slots: slots(share),
        work_dir: machine.scratch().join("engine"),
        address: None,
        token: None,
        drain_timeout: Duration::ZERO,
        idle_timeout: None,
    };
    let executor = Executor::start(settings, machine.clone());
    Ok((service, executor))
}

/// Stops them, and returns once nothing runs for them any more: no task, no FFmpeg.
pub async fn stop(service: Service, executor: Executor) {
    executor.stop().await;
    drop(service);
    ffmpeg::all_gone(CHILDREN_GONE).await;
}

/// Whatever runs statements.
pub struct Cluster {
    place: Place,
    threads: String,
    live: bool,
    strict: bool,
}

enum Place {
    Here { service: Service, executor: tokio::sync::Mutex<Executor> },
    Elsewhere(Remote),
}

impl Cluster {
    /// A scheduler elsewhere.
    pub fn elsewhere(address: &str, engine: &Engine) -> Self {
        let remote = Remote::new(address, engine.token.clone());
        Self {
            place: Place::Elsewhere(remote),
            threads: engine.share.threads.to_string(),
            live: false,
            strict: false,
        }
    }

    /// The same, with playlists of what is encoded so far.
    pub fn with_live(self, live: bool) -> Self {
        Self { live, ..self }
    }

    /// The same, and what is damaged is refused.
    pub fn with_strict(self, strict: bool) -> Self {
        Self { strict, ..self }
    }

    /// Starts a scheduler and an executor in this process.
    pub async fn here(machine: &Arc<Machine>, share: Share) -> Result<Self, CliError> {
        let (service, executor) = roles(machine, share).await?;
        let executor = tokio::sync::Mutex::new(executor);
        Ok(Self {
            place: Place::Here { service, executor },
            threads: share.threads.to_string(),
            live: false,
            strict: false,
        })
    }

    /// Runs one statement; `tell` hears what happens to its rows.
    ///
    /// An executor that stops meanwhile is an error at once, not a wait; a scheduler elsewhere that goes away is waited for.
    pub async fn run(
        &self,
        sql: &str,
        cancel: &CancellationToken,
        tell: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<Outcome, CliError> {
        let (live, strict) = (self.live.to_string(), self.strict.to_string());
        let settings = [
            ("spool.threads", self.threads.as_str()),
            ("spool.live", live.as_str()),
            ("spool.strict", strict.as_str()),
        ];
        match &self.place {
            Place::Here { service, executor } => tokio::select! {
                outcome = service.scheduler().run(sql, &settings, cancel, tell) => Ok(outcome?),
                Err(error) = async { executor.lock().await.stopped().await }, if !cancel.is_cancelled() => Err(error.into()),
            },
            Place::Elsewhere(remote) => Ok(remote.run(sql, &settings, cancel, tell).await?),
        }
    }

    /// Stops what runs in this process, and returns once nothing runs for it any more: no task, no FFmpeg.
    pub async fn stop(self) {
        if let Place::Here { service, executor } = self.place {
            stop(service, executor.into_inner()).await;
        }
    }
}
