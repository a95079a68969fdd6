//! `spool server`: the HTTP API alone.

use std::sync::Arc;

use spool_jobs::SqlStore;
use spool_server::{Server, Settings};
use spool_storage::Stores;

use crate::{args::Server as Args, exit::CliError, local};

pub async fn run(args: Args) -> Result<(), CliError> {
    let store = Arc::new(SqlStore::open(&args.store).await?);
    let uploads = local::absolute(&args.uploads)?;
    let media = args.media.map(|media| local::absolute(&media)).transpose()?;
    let (entry, oidc, reach) = (args.entry.entry(), args.entry.oidc(), args.entry.reach());
    let settings = Settings {
        listen: args.listen,
        media,
        uploads,
        auth: entry,
        oidc,
        webhook_targets: reach,
        gc_grace: local::hours(args.sweep_hours),
    };
    let mut server = Server::start(&settings, store, Stores::from_env()).await?;
    // On stdout: the result of this command, for scripts that let the system choose the port.
    println!("listening on http://{}", server.address());
    let ended = tokio::select! {
        error = server.stopped() => Err(error.into()),
        () = local::signal() => Ok(()),
    };
    server.stop().await;
    ended
}
