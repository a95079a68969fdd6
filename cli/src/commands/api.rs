//! `spool api`: the HTTP API alone.

use std::sync::Arc;

use spool_jobs::SqlStore;
use spool_server::{Server, Settings};
use spool_storage::Stores;

use crate::{args::ApiArgs, error::CliError, paths, ports, signals};

pub async fn run(args: ApiArgs) -> Result<(), CliError> {
    let interrupted = signals::shutdown();
    // Before anything is opened or made: a refused address leaves nothing behind.
    let tls = ports::tls(args.listen.address, &args.listen.tls, &["http/1.1"])?;
    let database = Arc::new(SqlStore::open(&args.database).await?);
    let uploads = paths::absolute(&args.uploads)?;
    let media = args.media.map(|media| paths::absolute(&media)).transpose()?;
    let settings = Settings {
        tls,
        listen: args.listen.address,
        media,
        uploads,
        auth: args.auth.mode(),
        oidc: args.auth.oidc(),
        webhook_targets: args.auth.webhook_targets(),
        gc_grace: args.gc.grace(),
    };
    let mut server = Server::start(&settings, database, Stores::from_env()).await?;
    // On stdout: the result of this command, for scripts that let the system choose the port.
    println!("listening on {}", server.url());
    let ended = tokio::select! {
        error = server.stopped() => Err(error.into()),
        () = interrupted => Ok(()),
    };
    server.stop().await;
    ended
}
