//! `spool sql`: runs a statement and prints its rows.

use std::io::Read;

use spool_jobs::Request;

use crate::{
    args::{GlobalArgs, SqlArgs},
    engine::Engine,
    error::CliError,
    rows, signals, worker,
};

pub async fn run(global: &GlobalArgs, args: SqlArgs) -> Result<(), CliError> {
    let sql = match (&args.statement.command, &args.statement.file) {
        (Some(sql), _) => sql.clone(),
        (None, Some(path)) => read(path)?,
        (None, None) => return Err(CliError::Usage("give a statement with -c or a file with -f".to_owned())),
    };
    let sql = sql.trim().trim_end_matches(';').to_owned();
    let request = Request::Sql { sql, threads: args.engine.slots.threads };
    let cancel = signals::interrupt();
    let engine = match &args.engine.cluster {
        Some(address) => Engine::remote(address, &args.engine)?,
        None => {
            let slots = args.engine.slots;
            let worker = worker::worker_with_slots(global, slots, global.http_sources)?;
            Engine::embedded(&worker, slots).await?
        }
    };
    let result = engine.run(&request, &cancel, &|_| {}, None).await;
    engine.stop().await;
    rows::print_rows(&result?, args.output)
}

/// Reads a file of the command line; `-` is standard input.
fn read(path: &std::path::Path) -> Result<String, CliError> {
    let failed = |source| CliError::Read { path: path.display().to_string(), source };
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(failed)
}
