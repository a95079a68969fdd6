//! The worker of this process and its environment: object stores, FFmpeg, limits, and scratch space that is
//! removed when the process ends.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use spool_media::{
    encode::worker::Worker,
    environment::Environment,
    ffmpeg::{SandboxMode, Tools},
};
use spool_storage::Stores;

use crate::{
    args::{GlobalArgs, NetworkReach, Sandbox, SlotArgs},
    error::CliError,
};

/// The worker of this process, for the removal of its scratch folder.
static WORKER: OnceLock<Arc<Worker>> = OnceLock::new();

/// Returns the worker of this process: object stores from the environment variables, FFmpeg from PATH,
/// scratch space from the flags.
pub fn worker(global: &GlobalArgs) -> Result<Arc<Worker>, CliError> {
    create(global, global.http_sources).map(keep)
}

/// Returns the worker of a process that encodes in slots, and reads http and https sources within
/// `http_sources`.
pub fn worker_with_slots(
    global: &GlobalArgs,
    slots: SlotArgs,
    http_sources: NetworkReach,
) -> Result<Arc<Worker>, CliError> {
    create(global, http_sources).map(|worker| keep(worker.with_slots(slots.count())))
}

/// Removes the scratch folder of this process, if there is one. Must run last: background tasks of the engine
/// may still create their folders again.
pub fn remove_scratch() {
    if let Some(worker) = WORKER.get() {
        worker.environment().remove_scratch();
    }
}

fn keep(worker: Worker) -> Arc<Worker> {
    WORKER.get_or_init(|| Arc::new(worker)).clone()
}

fn create(global: &GlobalArgs, http_sources: NetworkReach) -> Result<Worker, CliError> {
    let scratch: PathBuf = global.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let confinement = match global.sandbox {
        Sandbox::On => SandboxMode::All,
        Sandbox::Off => SandboxMode::Limits,
    };
    let stores = Stores::from_env();
    let stores = match http_sources {
        NetworkReach::Any => stores,
        NetworkReach::Public => stores.with_public_http_only(),
    };
    let libraries = global.sandbox_libraries.clone();
    let tools = Tools { confinement, libraries, ..Tools::from_env().map_err(spool_media::Error::from)? };
    let environment = Environment::new(stores, tools, &scratch)?.with_limits(global.limits.limits());
    let worker = Worker::new(environment);
    Ok(match state_folder() {
        Some(folder) => worker.with_cost_model_in(folder.join("costs.json")),
        None => worker,
    })
}

/// Returns the folder that keeps the cost model from one command to the next.
///
/// Source: XDG Base Directory Specification, `XDG_STATE_HOME`.
fn state_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // A missing home folder is not created.
    let home = || absolute("HOME").filter(|home| home.is_dir());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(home()?.join(".local/state")))?;
    Some(state.join("spool"))
}
