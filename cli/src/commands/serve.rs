//! `spool serve`: the HTTP API, the database of jobs, a scheduler and an executor on one machine.

use std::sync::Arc;

use spool_jobs::{Dispatcher, SqlStore};
use spool_server::{Server, Settings};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    args::{AuthMode, GlobalArgs, NetworkReach, ServeArgs},
    commands::scheduler::dispatcher_settings,
    engine,
    error::CliError,
    paths, ports, signals, worker,
};

/// Name of the database in the data folder.
const DATABASE: &str = "jobs.db";

/// Folders in the data folder: videos of jobs without a destination, and uploaded files.
const MEDIA: &str = "media";
const UPLOADS: &str = "uploads";

pub async fn run(global: &GlobalArgs, args: ServeArgs) -> Result<(), CliError> {
    let interrupted = signals::shutdown();
    // Before anything is opened or made: a refused address leaves nothing behind.
    let tls = ports::tls(args.listen.address, &args.listen.tls, &["http/1.1"])?;
    let needs_key = args.auth.auth == AuthMode::Keys;
    // Jobs of tenants must not read what only this machine's network can reach.
    let http_sources = if needs_key { NetworkReach::Public } else { global.http_sources };
    let worker = worker::worker_with_slots(global, args.slots, http_sources)?;
    // A missing encoder fails the start rather than the first job.
    worker.environment().default_encoder_build().await?;
    let in_data = |name: &str| paths::absolute(&format!("{}/{name}", args.data));
    // A given database is shown by the name of its variable, since it may hold a password.
    let (database, shown_database) = match args.database {
        Some(database) => (database, "\"$SPOOL_DATABASE\"".to_owned()),
        None => {
            let path = in_data(DATABASE)?;
            (path.clone(), path)
        }
    };
    let store = Arc::new(SqlStore::open(&database).await?);
    let media = args.media.map_or_else(|| in_data(MEDIA), Ok)?;
    let uploads = args.uploads.map_or_else(|| in_data(UPLOADS), Ok)?;
    let settings = Settings {
        tls,
        listen: args.listen.address,
        media: Some(media),
        uploads,
        auth: args.auth.mode(),
        oidc: args.auth.oidc(),
        webhook_targets: args.auth.webhook_targets(),
        gc_grace: args.gc.grace(),
    };
    let mut server = Server::start(&settings, store.clone(), worker.environment().stores.clone()).await?;
    let (service, mut executor) = engine::start_roles(&worker, args.slots).await?;
    let (shutdown, jobs) = (CancellationToken::new(), TaskTracker::new());
    let scheduler = Arc::new(service.scheduler().clone());
    let dispatcher =
        Dispatcher::new(store, scheduler, dispatcher_settings(args.dispatcher, &worker.environment().host));
    jobs.spawn(dispatcher.run(shutdown.clone()));
    jobs.close();
    let url = server.url();
    // On stdout: the result of this command, for scripts that let the system choose the port.
    println!("listening on {url}");
    if needs_key {
        eprintln!("requests need an API key; create one with: spool keys create --database {shown_database}");
    } else {
        eprintln!("only programs on this machine can reach the API, and they need no key");
        eprintln!(
            "open it in a browser, or run: curl --data-binary @video.mp4 '{url}/v1/uploads?name=video.mp4'"
        );
    }
    let ended = tokio::select! {
        error = server.stopped() => Err(error.into()),
        Err(error) = executor.stopped() => Err(error.into()),
        () = interrupted => Ok(()),
    };
    // In this order: no more requests arrive, leases of running jobs are released, and then nothing runs for
    // them.
    server.stop().await;
    shutdown.cancel();
    jobs.wait().await;
    engine::stop_roles(service, executor).await;
    ended
}
