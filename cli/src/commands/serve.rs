//! `spool serve`: everything on one machine. The HTTP API, the store of jobs, and what works them off.

use std::sync::Arc;

use spool_jobs::{Dispatcher, SqlStore};
use spool_server::{Server, Settings};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    args::{Access, Global, Serve as Args},
    cluster,
    commands::scheduler::dispatch,
    exit::CliError,
    local,
};

/// The file in the data folder that holds the jobs.
const JOBS: &str = "jobs.db";

/// The folders in it for videos that come without a destination, and for what is uploaded.
const MEDIA: &str = "media";
const UPLOADS: &str = "uploads";

pub async fn run(global: &Global, args: Args) -> Result<(), CliError> {
    let strangers = args.entry.access == Access::Keys;
    let worker = local::worker_with_slots(global, args.share, strangers)?;
    // What is missing is told now, and not by the first job.
    worker.environment().default_encoder_build().await?;
    let place = match &args.store {
        Some(store) => store.clone(),
        None => local::absolute(&format!("{}/{JOBS}", args.data))?,
    };
    let store = Arc::new(SqlStore::open(&place).await?);
    // It may hold a password.
    let place = args.store.map_or(place, |_| "\"$SPOOL_STORE\"".to_owned());
    let media = match args.media {
        Some(media) => media,
        None => local::absolute(&format!("{}/{MEDIA}", args.data))?,
    };
    let uploads = match args.uploads {
        Some(uploads) => uploads,
        None => local::absolute(&format!("{}/{UPLOADS}", args.data))?,
    };
    let (entry, oidc, reach) = (args.entry.entry(), args.entry.oidc(), args.entry.reach());
    let settings = Settings {
        listen: args.listen,
        media: Some(media),
        uploads,
        auth: entry,
        oidc,
        webhook_targets: reach,
        gc_grace: local::hours(args.sweep_hours),
    };
    let mut server = Server::start(&settings, store.clone(), worker.environment().stores.clone()).await?;
    let (service, mut executor) = cluster::roles(&worker, args.share).await?;
    let (leave, jobs) = (CancellationToken::new(), TaskTracker::new());
    let scheduler = Arc::new(service.scheduler().clone());
    jobs.spawn(
        Dispatcher::new(store, scheduler, dispatch(args.dispatch, &worker.environment().host))
            .run(leave.clone()),
    );
    jobs.close();
    let address = server.address();
    // On stdout: the result of this command, for scripts that let the system choose the port.
    println!("listening on http://{address}");
    if strangers {
        eprintln!("whoever brings a key may ask; make one with: spool keys create --store {place}");
    } else {
        eprintln!("whoever is on this machine may ask for jobs; nobody else can reach it");
        eprintln!(
            "open it in a browser, or try: curl --data-binary @video.mp4 'http://{address}/v1/uploads?name=video.mp4'"
        );
    }
    let ended = tokio::select! {
        error = server.stopped() => Err(error.into()),
        Err(error) = executor.stopped() => Err(error.into()),
        () = local::signal() => Ok(()),
    };
    // First nobody asks any more, then what is in hand goes back to the store, and then nothing runs for it any more.
    server.stop().await;
    leave.cancel();
    jobs.wait().await;
    cluster::stop(service, executor).await;
    ended
}
