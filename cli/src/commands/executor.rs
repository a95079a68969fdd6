//! `spool executor`: encodes rows for a scheduler until a signal, the idle timeout or the scheduler ends it.

use std::time::Duration;

use spool_executor::{Executor, Settings};
use spool_media::ffmpeg;

use crate::{
    args::{ExecutorArgs, GlobalArgs},
    engine::{self, CHILDREN_EXIT_TIMEOUT},
    error::CliError,
    signals, token, worker,
};

pub async fn run(global: &GlobalArgs, args: ExecutorArgs) -> Result<(), CliError> {
    let shutdown = signals::shutdown();
    let worker = worker::worker_with_slots(global, args.slots, global.http_sources)?;
    let settings = Settings {
        scheduler: engine::address_of(&args.scheduler, &args.tls)?,
        slots: args.slots.count(),
        work_dir: worker.environment().scratch().join("engine"),
        token: token::of_executor(args.token),
        drain_timeout: Duration::from_secs(args.drain_timeout),
        idle_timeout: args.idle_timeout.map(Duration::from_secs),
    };
    println!(
        "{} slots, scratch in {}, working for {}",
        settings.slots,
        worker.environment().scratch().display(),
        settings.scheduler
    );
    let mut executor = Executor::start(settings, worker.clone());
    let session_state = executor.session_state();
    let probes = async move {
        match args.http {
            Some(address) => spool_executor::serve_probes(address, session_state).await,
            None => std::future::pending().await,
        }
    };
    let mut probes = std::pin::pin!(probes);
    let mut shutdown = std::pin::pin!(shutdown);
    let mut draining = false;
    let ended = loop {
        tokio::select! {
            ended = executor.stopped() => break ended.map_err(CliError::from),
            Err(error) = &mut probes => break Err(error.into()),
            () = &mut shutdown, if !draining => {
                draining = true;
                executor.drain();
            }
        }
    };
    executor.stop().await;
    ffmpeg::all_gone(CHILDREN_EXIT_TIMEOUT).await;
    ended
}
