//! How does one process run a whole cluster? A scheduler and an executor of its own: the same code path as with many machines.

use std::{path::PathBuf, sync::Arc, time::Duration};

use spool_executor::Executor;
use spool_media::{
    ffmpeg::{self, Tools},
    machine::Machine,
    store::Stores,
};
use spool_scheduler::{Outcome, Scheduler};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Engine, Global},
    exit::CliError,
};

/// How long FFmpegs that were told to stop may take to be gone.
const CHILDREN_GONE: Duration = Duration::from_secs(5);

/// The machine of this process. When it goes, so does its scratch folder, even where a task of the engine still holds the machine.
pub struct Local(Arc<Machine>);

impl std::ops::Deref for Local {
    type Target = Arc<Machine>;

    fn deref(&self) -> &Arc<Machine> {
        &self.0
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The machine of this process: stores from the environment, FFmpeg from the path, scratch where it was asked for.
pub fn machine(global: &Global) -> Result<Local, CliError> {
    let scratch: PathBuf = global.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let tools = Tools::from_env().map_err(spool_media::Error::from)?;
    Ok(Local(Arc::new(Machine::new(Stores::from_env(), tools, &scratch)?)))
}

/// Segments that are encoded at a time: as many as cores allow.
pub fn slots(engine: &Engine) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    engine.slots.map_or_else(|| (cores / engine.threads as usize).max(1), usize::from)
}

/// A scheduler and an executor in this process.
pub struct Cluster {
    scheduler: Scheduler,
    executor: tokio::sync::Mutex<Executor>,
    threads: String,
}

impl Cluster {
    /// Starts both.
    pub async fn start(machine: &Arc<Machine>, engine: &Engine) -> Result<Self, CliError> {
        let scheduler = Scheduler::start(&spool_scheduler::Settings::embedded(), machine.clone()).await?;
        let settings = spool_executor::Settings {
            scheduler: scheduler.address(),
            slots: slots(engine),
            work_dir: machine.scratch().join("engine"),
        };
        let executor = tokio::sync::Mutex::new(Executor::start(&settings, machine).await?);
        Ok(Self { scheduler, executor, threads: engine.threads.to_string() })
    }

    /// Runs one statement; an executor that stops meanwhile is an error at once, not a wait.
    pub async fn run(&self, sql: &str, cancel: &CancellationToken) -> Result<Outcome, CliError> {
        let settings = [("spool.threads", self.threads.as_str())];
        tokio::select! {
            outcome = self.scheduler.run(sql, &settings, cancel) => Ok(outcome?),
            stopped = async { self.executor.lock().await.stopped().await }, if !cancel.is_cancelled() => Err(stopped.into()),
        }
    }
}

impl Cluster {
    /// Stops both, and returns once nothing runs for them any more: no task, no FFmpeg.
    pub async fn stop(self) {
        self.executor.into_inner().stop().await;
        drop(self.scheduler);
        ffmpeg::all_gone(CHILDREN_GONE).await;
    }
}

/// A token that fires at Ctrl-C or SIGTERM.
pub fn interrupt() -> CancellationToken {
    let token = CancellationToken::new();
    let fired = token.clone();
    tokio::spawn(async move {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
        let terminated = async {
            match &mut terminate {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated => {}
        }
        fired.cancel();
    });
    token
}
