//! `spool scheduler`: runs statements for clients, on the executors that join.

use std::time::Duration;

use spool_scheduler::{Scheduler, Settings};

use crate::{
    args::{Global, Scheduler as Args},
    exit::CliError,
    local,
};

pub async fn run(global: &Global, args: Args) -> Result<(), CliError> {
    let machine = local::machine(global)?;
    // What its executors' encoders are compared with; and what is missing is told now.
    machine.encoder().await?;
    let open = args.token.is_none() && !args.listen.ip().is_loopback();
    let settings = Settings {
        listen: args.listen,
        executor_timeout: Duration::from_secs(args.executor_timeout),
        patience: Duration::from_secs(args.patience),
        token: args.token,
        allow_others: args.allow_others,
    };
    let mut service = Scheduler::start(settings, machine.clone()).await?;
    let address = service.address();
    if open {
        tracing::warn!(%address, "whoever reaches this address can run statements: set SPOOL_TOKEN, or bind to a private address");
    }
    // On stdout: the result of this command, for scripts that let the system choose the port.
    println!("listening on {address}");
    eprintln!("executors join with: spool executor --scheduler {address}");
    tokio::select! {
        error = service.stopped() => Err(error.into()),
        () = local::signal() => Ok(()),
    }
}
