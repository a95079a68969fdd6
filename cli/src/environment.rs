//! Environment of this process: object stores, FFmpeg, limits, and scratch space that is removed when the process ends.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use spool_media::{
    encode::worker::Machine,
    ffmpeg::{SandboxMode, Tools},
};
use spool_storage::Stores;

use crate::{
    args::{GlobalArgs, NetworkReach, Sandbox, SlotArgs},
    error::CliError,
};

/// Environment of this process, for its end.
static ENVIRONMENT: OnceLock<Arc<Machine>> = OnceLock::new();

/// Returns the environment of this process: object stores from the environment variables, FFmpeg from PATH, scratch space from
/// the flags.
pub fn environment(global: &GlobalArgs) -> Result<Arc<Machine>, CliError> {
    create(global, global.http_sources).map(keep)
}

/// Returns the environment of a process that encodes in slots, and reads http and https sources within `http_sources`.
pub fn environment_with_slots(
    global: &GlobalArgs,
    slots: SlotArgs,
    http_sources: NetworkReach,
) -> Result<Arc<Machine>, CliError> {
    create(global, http_sources).map(|environment| keep(environment.with_slots(slots.count())))
}

/// Removes the scratch folder of this process, if there is one. Must run last: background tasks of the engine may still
/// create their folders again.
pub fn remove_scratch() {
    if let Some(environment) = ENVIRONMENT.get() {
        environment.leave();
    }
}

fn keep(environment: Machine) -> Arc<Machine> {
    ENVIRONMENT.get_or_init(|| Arc::new(environment)).clone()
}

fn create(global: &GlobalArgs, http_sources: NetworkReach) -> Result<Machine, CliError> {
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
    let environment = Machine::new(stores, tools, &scratch)?.with_limits(global.limits.limits());
    Ok(match state_folder() {
        Some(folder) => environment.with_costs_in(folder.join("costs.json")),
        None => environment,
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
