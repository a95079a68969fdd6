//! `spool executor`: encodes rows for a scheduler, until it is told to leave.

use std::time::Duration;

use spool_executor::{Executor, Settings};
use spool_media::ffmpeg;

use crate::{
    args::{Executor as Args, Global},
    exit::CliError,
    local,
};

/// How long FFmpegs that were told to stop may take to be gone.
const CHILDREN_GONE: Duration = Duration::from_secs(5);

pub async fn run(global: &Global, args: Args) -> Result<(), CliError> {
    let machine = local::machine_with_slots(global, args.share, false)?;
    let settings = Settings {
        scheduler: args.scheduler,
        slots: local::slots(args.share),
        work_dir: machine.scratch().join("engine"),
        address: args.address,
        token: args.token,
        drain_timeout: Duration::from_secs(args.grace),
        idle_timeout: args.leave_idle.map(Duration::from_secs),
    };
    println!(
        "{} slots, scratch in {}, working for {}",
        settings.slots,
        machine.scratch().display(),
        settings.scheduler
    );
    let mut executor = Executor::start(settings, machine.clone());
    let session_state = executor.session_state();
    let probes = async move {
        match args.http {
            Some(address) => spool_executor::serve_probes(address, session_state).await,
            None => std::future::pending().await,
        }
    };
    let mut probes = std::pin::pin!(probes);
    let mut told = std::pin::pin!(local::signal());
    let mut leaving = false;
    let ended = loop {
        tokio::select! {
            ended = executor.stopped() => break ended.map_err(CliError::from),
            Err(error) = &mut probes => break Err(error.into()),
            () = &mut told, if !leaving => {
                leaving = true;
                executor.drain();
            }
        }
    };
    executor.stop().await;
    ffmpeg::all_gone(CHILDREN_GONE).await;
    ended
}
