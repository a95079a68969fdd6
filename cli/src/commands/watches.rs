//! `spool watches`: creates, lists and removes watches, which create jobs from files that arrive in a place.

use std::time::Duration;

use comfy_table::Cell;
use serde_json::{Value, json};
use spool_jobs::{Id, NewWatch, SqlStore, Watch, WatchStore as _};
use spool_storage::Stores;

use crate::{
    args::{DatabaseArgs, OutputFormat, WatchAddArgs, WatchListArgs, WatchRemoveArgs, WatchesCommand},
    error::CliError,
    output, paths,
};

pub async fn run(command: WatchesCommand) -> Result<(), CliError> {
    match command {
        WatchesCommand::Add(args) => add(args).await,
        WatchesCommand::Ls(WatchListArgs { tenant, database }) => {
            let watches = open(&database).await?.watches(tenant.as_deref()).await?;
            print(&watches, database.output)
        }
        WatchesCommand::Rm(WatchRemoveArgs { id, database }) => {
            let removed = open(&database).await?.delete_watch(&Id::from_text(id)).await?;
            print(&[removed], database.output)
        }
    }
}

async fn add(args: WatchAddArgs) -> Result<(), CliError> {
    let WatchAddArgs { prefix, tenant, job, queue, scan_interval, database } = args;
    let stores = Stores::from_env();
    let prefix = canonical_prefix(&stores, &prefix)?;
    spool_server::check_job_document(&job, true).map_err(|e| CliError::Usage(format!("--job: {e}")))?;
    if let Some(queue) = &queue {
        spool_server::check_queue(&stores, queue)
            .await
            .map_err(|e| CliError::Usage(format!("--queue {queue}: {e}")))?;
    }
    let needs_notifications = queue.is_none() && scan_interval.is_none();
    let scan_interval = scan_interval.map(Duration::from_secs);
    let new_watch = NewWatch { tenant, prefix, job, queue, scan_interval };
    let watch = open(&database).await?.create_watch(&new_watch).await?;
    print(std::slice::from_ref(&watch), database.output)?;
    if needs_notifications {
        eprintln!(
            "configure the object store to send notifications to POST /v1/events/s3, \
             with a key of tenant {} that has the scope write",
            watch.tenant
        );
    }
    Ok(())
}

/// Returns the URI of a place, the same for every API process.
fn canonical_prefix(stores: &Stores, prefix: &str) -> Result<String, CliError> {
    if ["http://", "https://"].iter().any(|scheme| prefix.starts_with(scheme)) {
        return Err(CliError::Usage(format!(
            "{prefix}: an address on the web cannot be watched: give a bucket or a folder"
        )));
    }
    let prefix = paths::absolute(prefix)?;
    let uri =
        stores.locate(&prefix).map_err(spool_media::Error::from)?.uri().trim_end_matches('/').to_owned();
    // With a slash, since `s3://in/acme` must not match `s3://in/acme-2/`.
    Ok(format!("{uri}/"))
}

async fn open(args: &DatabaseArgs) -> Result<SqlStore, CliError> {
    Ok(SqlStore::open(&args.database).await?)
}

fn print(watches: &[Watch], format: OutputFormat) -> Result<(), CliError> {
    if format == OutputFormat::Json {
        return output::print_json(&Value::Array(watches.iter().map(as_json).collect()));
    }
    let mut table = output::table(&["watch", "tenant", "place", "noticed by", "last error"]);
    for watch in watches {
        let listing = watch.scan_interval.map(|every| format!("a listing every {} s", every.as_secs()));
        let ways: Vec<String> = watch.queue.clone().into_iter().chain(listing).collect();
        let ways = if ways.is_empty() { "/v1/events/s3".to_owned() } else { ways.join("\n") };
        table.add_row([
            Cell::new(&watch.id),
            Cell::new(&watch.tenant),
            Cell::new(&watch.prefix),
            Cell::new(ways),
            Cell::new(watch.last_error.clone().unwrap_or_default()),
        ]);
    }
    output::print(&table.to_string())
}

fn as_json(watch: &Watch) -> Value {
    let job: Value = serde_json::from_str(&watch.job).unwrap_or_default();
    json!({
        "id": watch.id,
        "tenant": watch.tenant,
        "prefix": watch.prefix,
        "job": job,
        "queue": watch.queue,
        "scan_interval_s": watch.scan_interval.map(|every| every.as_secs()),
        "created_ms": watch.created_ms,
        "scanned_ms": watch.scanned_ms,
        "last_error": watch.last_error,
    })
}
