//! What does this process bring? Its worker, with scratch space that goes when the process does, and an ear for signals.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use spool_media::{
    encode::worker::Worker,
    environment::Environment,
    ffmpeg::{SandboxMode, Tools},
};
use spool_storage::Stores;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Global, Sandbox, Share, Web},
    exit::CliError,
};

/// What this process works with, for its end.
static WORKER: OnceLock<Arc<Worker>> = OnceLock::new();

/// The worker of this process: stores from the environment, FFmpeg from the path, scratch where it was asked for.
pub fn worker(global: &Global) -> Result<Arc<Worker>, CliError> {
    new_worker(global, false).map(ours)
}

/// The same, with encodes limited to the slots that it gives; for strangers' jobs it reads nothing of this network.
pub fn worker_with_slots(global: &Global, share: Share, strangers: bool) -> Result<Arc<Worker>, CliError> {
    new_worker(global, strangers).map(|worker| ours(worker.with_slots(slots(share))))
}

/// Removes the scratch folder of this process, if it has one: at the very end, since what the engine still does in the background makes
/// its folders again.
pub fn leave() {
    if let Some(worker) = WORKER.get() {
        worker.environment().remove_scratch();
    }
}

fn ours(worker: Worker) -> Arc<Worker> {
    WORKER.get_or_init(|| Arc::new(worker)).clone()
}

fn new_worker(global: &Global, strangers: bool) -> Result<Worker, CliError> {
    let scratch: PathBuf = global.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let confinement = match global.sandbox {
        Sandbox::On => SandboxMode::All,
        Sandbox::Off => SandboxMode::Limits,
    };
    let stores = Stores::from_env();
    let stores = if strangers || global.web == Web::Public { stores.with_public_http_only() } else { stores };
    let libraries = global.sandbox_libraries.clone();
    let tools = Tools { confinement, libraries, ..Tools::from_env().map_err(spool_media::Error::from)? };
    let environment = Environment::new(stores, tools, &scratch)?.with_limits(global.limits.limits());
    let worker = Worker::new(environment);
    Ok(match state_folder() {
        Some(folder) => worker.with_cost_model_in(folder.join("costs.json")),
        None => worker,
    })
}

/// Where what was learned is kept from one command to the next.
///
/// Source: XDG Base Directory Specification, `XDG_STATE_HOME`.
fn state_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // A home that is named and not there is not for us to make.
    let home = || absolute("HOME").filter(|home| home.is_dir());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(home()?.join(".local/state")))?;
    Some(state.join("spool"))
}

/// A path as it is called elsewhere, on a file system that both see. What has a scheme is the same everywhere.
pub fn absolute(place: &str) -> Result<String, CliError> {
    if place.is_empty() || place.contains("://") {
        return Ok(place.to_owned());
    }
    let path =
        std::path::absolute(place).map_err(|source| CliError::Read { path: place.to_owned(), source })?;
    Ok(path.to_string_lossy().into_owned())
}

/// A length of time; nothing where it is none.
pub fn hours(hours: f64) -> Option<Duration> {
    Some(Duration::from_secs_f64(hours * 3600.0)).filter(|time| !time.is_zero())
}

/// Segments that are encoded at a time: as many as cores allow. One more would fill the gaps while a row is fetched or stored, but was no
/// faster (docs/decisions/0009).
pub fn slots(share: Share) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    share.slots.map_or_else(|| (cores / share.threads as usize).max(1), usize::from)
}

/// A token that fires at Ctrl-C or SIGTERM.
pub fn interrupt() -> CancellationToken {
    let token = CancellationToken::new();
    let fired = token.clone();
    tokio::spawn(async move {
        signal().await;
        fired.cancel();
    });
    token
}

/// Waits for Ctrl-C or SIGTERM.
pub async fn signal() {
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
}
