//! `spool scheduler`: runs statements for clients, on the executors that join.

use std::{sync::Arc, time::Duration};

use spool_jobs::{Dispatcher, SqlStore};
use spool_scheduler::{Scheduler, Settings};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    args::{Dispatch, Global, Scheduler as Args},
    exit::CliError,
    local,
};

pub async fn run(global: &Global, args: Args) -> Result<(), CliError> {
    let machine = local::machine(global)?;
    // What its executors' encoders are compared with; and what is missing is told now.
    machine.encoder().await?;
    // Before anybody joins: what is wrong with it is told now.
    let store = match &args.store {
        Some(store) => Some(Arc::new(SqlStore::open(store).await?)),
        None => None,
    };
    let open = args.token.is_none() && !args.listen.ip().is_loopback();
    let settings = Settings {
        listen: args.listen,
        executor_timeout: Duration::from_secs(args.executor_timeout),
        no_executor_timeout: Duration::from_secs(args.patience),
        token: args.token,
        allow_version_skew: args.allow_others,
    };
    let mut service = Scheduler::start(settings, machine.clone()).await?;
    let address = service.address();
    if open {
        tracing::warn!(%address, "whoever reaches this address can run statements: set SPOOL_TOKEN, or bind to a private address");
    }
    // On stdout: the result of this command, for scripts that let the system choose the port.
    println!("listening on {address}");
    eprintln!("executors join with: spool executor --scheduler {address}");
    let (leave, jobs) = (CancellationToken::new(), TaskTracker::new());
    if let Some(store) = store {
        let cluster = Arc::new(service.scheduler().clone());
        jobs.spawn(
            Dispatcher::new(store, cluster, dispatch(args.dispatch, &machine.host)).run(leave.clone()),
        );
    }
    jobs.close();
    let ended = tokio::select! {
        error = service.stopped() => Err(error.into()),
        () = local::signal() => Ok(()),
    };
    // What is in hand goes back to the store, where others find it at once.
    leave.cancel();
    jobs.wait().await;
    ended
}

/// How a dispatcher of this process works. Its name is not that of one which died here before.
pub fn dispatch(args: Dispatch, host: &str) -> spool_jobs::Settings {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let name = format!("{host}-{}-{}", std::process::id(), since_1970.as_millis());
    spool_jobs::Settings {
        active: args.active.into(),
        lease: Duration::from_secs(args.lease),
        ..spool_jobs::Settings::new(name)
    }
}
