//! `spool scheduler`: runs statements of clients, and jobs of a database, on the executors that join.

use std::{sync::Arc, time::Duration};

use spool_jobs::{Dispatcher, SqlStore};
use spool_scheduler::{Service, Settings};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    args::{DispatcherArgs, GlobalArgs, SchedulerArgs},
    error::CliError,
    ports, signals, token, worker,
};

pub async fn run(global: &GlobalArgs, args: SchedulerArgs) -> Result<(), CliError> {
    let interrupted = signals::shutdown();
    let tls = ports::tls(args.listen, &args.tls, &["h2", "http/1.1"])?;
    let worker = worker::worker(global)?;
    // The builds of executors are compared with this machine's. A missing encoder fails the start rather than
    // the first join.
    worker.environment().default_encoder_build().await?;
    // Opened before anything listens, so that a wrong --database fails the start.
    let database = match &args.database {
        Some(database) => Some(Arc::new(SqlStore::open(database).await?)),
        None => None,
    };
    let settings = Settings {
        listen: Some(args.listen),
        executor_timeout: Duration::from_secs(args.executor_timeout),
        no_executor_timeout: Duration::from_secs(args.no_executor_timeout),
        token: Some(token::of_scheduler(&args.token)?),
        tls,
        probes: args.http,
        allow_version_skew: args.allow_version_skew,
    };
    let mut service = Service::start(settings, worker.clone()).await?;
    let address = service.address().clone();
    // On stdout: the result of this command, for scripts that let the system choose the port.
    println!("listening on {address}");
    eprintln!("executors join with: spool executor --scheduler {address}");
    let (shutdown, jobs) = (CancellationToken::new(), TaskTracker::new());
    if let Some(database) = database {
        let backend = Arc::new(service.scheduler().clone());
        let settings = dispatcher_settings(args.dispatcher, &worker.environment().host);
        jobs.spawn(Dispatcher::new(database, backend, settings).run(shutdown.clone()));
    }
    jobs.close();
    let ended = tokio::select! {
        error = service.stopped() => Err(error.into()),
        () = interrupted => Ok(()),
    };
    // Leases of running jobs are released, so that another dispatcher takes them over at once.
    shutdown.cancel();
    jobs.wait().await;
    ended
}

/// Returns the settings of this process's dispatcher. Its name differs from that of an earlier process on
/// this host.
pub fn dispatcher_settings(args: DispatcherArgs, host: &str) -> spool_jobs::DispatcherSettings {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let name = format!("{host}-{}-{}", std::process::id(), since_1970.as_millis());
    spool_jobs::DispatcherSettings {
        max_concurrent_jobs: args.max_concurrent_jobs.into(),
        lease_time: Duration::from_secs(args.lease),
        ..spool_jobs::DispatcherSettings::new(name)
    }
}
