//! `spool watches`: says where files arrive that jobs are made of.

use std::time::Duration;

use comfy_table::Cell;
use serde_json::{Value, json};
use spool_jobs::{Id, NewWatch, SqlStore, Watch, Watches as _};
use spool_storage::Stores;

use crate::{
    args::{Format, Kept, WatchAdd, WatchList, WatchRemove, Watches},
    exit::CliError,
    local, output,
};

pub async fn run(command: Watches) -> Result<(), CliError> {
    match command {
        Watches::Add(args) => add(args).await,
        Watches::Ls(WatchList { tenant, kept }) => {
            let watches = open(&kept).await?.watches(tenant.as_deref()).await?;
            show(&kept, &watches)
        }
        Watches::Rm(WatchRemove { id, kept }) => {
            let removed = open(&kept).await?.remove_watch(&Id::from_text(id)).await?;
            show(&kept, &[removed])
        }
    }
}

async fn add(args: WatchAdd) -> Result<(), CliError> {
    let WatchAdd { prefix, tenant, job, queue, list_every, kept } = args;
    let stores = Stores::from_env();
    let prefix = place(&stores, &prefix)?;
    spool_server::check_job_document(&job, true).map_err(|why| CliError::Usage(format!("--job: {why}")))?;
    if let Some(queue) = &queue {
        spool_server::check_queue(&stores, queue)
            .await
            .map_err(|why| CliError::Usage(format!("--queue {queue}: {why}")))?;
    }
    let tells = queue.is_none() && list_every.is_none();
    let list_every = list_every.map(Duration::from_secs);
    let watch = open(&kept).await?.create_watch(&NewWatch { tenant, prefix, job, queue, list_every }).await?;
    show(&kept, std::slice::from_ref(&watch))?;
    if tells {
        eprintln!(
            "have the store tell a server what arrives: POST /v1/events/s3, as a key of tenant {} with the scope write",
            watch.tenant
        );
    }
    Ok(())
}

/// A place as every server calls it.
fn place(stores: &Stores, prefix: &str) -> Result<String, CliError> {
    if ["http://", "https://"].iter().any(|scheme| prefix.starts_with(scheme)) {
        return Err(CliError::Usage(format!(
            "{prefix}: nothing can be seen to arrive on the web: watch a bucket or a folder"
        )));
    }
    let prefix = local::absolute(prefix)?;
    let uri =
        stores.locate(&prefix).map_err(spool_media::Error::from)?.uri().trim_end_matches('/').to_owned();
    // A folder: `s3://in/acme` is not to mean `s3://in/acme-2/`.
    Ok(format!("{uri}/"))
}

async fn open(kept: &Kept) -> Result<SqlStore, CliError> {
    Ok(SqlStore::open(&kept.store).await?)
}

fn show(kept: &Kept, watches: &[Watch]) -> Result<(), CliError> {
    if kept.output == Format::Json {
        return output::print_json(&Value::Array(watches.iter().map(as_json).collect()));
    }
    let mut table = output::table(&["watch", "tenant", "place", "told by", "trouble"]);
    for watch in watches {
        let listed = watch.list_every.map(|every| format!("a listing every {} s", every.as_secs()));
        let told: Vec<String> = watch.queue.clone().into_iter().chain(listed).collect();
        let told = if told.is_empty() { "/v1/events/s3".to_owned() } else { told.join("\n") };
        let trouble = watch.trouble.clone().unwrap_or_default();
        table.add_row([
            Cell::new(&watch.id),
            Cell::new(&watch.tenant),
            Cell::new(&watch.prefix),
            Cell::new(told),
            Cell::new(trouble),
        ]);
    }
    output::print(&table.to_string())
}

fn as_json(watch: &Watch) -> Value {
    let job: Value = serde_json::from_str(&watch.job).unwrap_or_default();
    json!({
        "id": watch.id, "tenant": watch.tenant, "prefix": watch.prefix, "job": job, "queue": watch.queue,
        "list_every_s": watch.list_every.map(|every| every.as_secs()), "created_ms": watch.created_ms, "looked_ms": watch.looked_ms,
        "trouble": watch.trouble,
    })
}
