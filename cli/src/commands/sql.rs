//! `spool sql`: a statement in, rows out.

use std::io::Read;

use crate::{
    args::{Global, Sql},
    cluster::Cluster,
    exit::CliError,
    local, output,
};

pub async fn run(global: &Global, args: Sql) -> Result<(), CliError> {
    let sql = match (&args.statement.command, &args.statement.file) {
        (Some(sql), _) => sql.clone(),
        (None, Some(path)) => read(path)?,
        (None, None) => return Err(CliError::Usage("give a statement with -c or a file with -f".to_owned())),
    };
    let sql = sql.trim().trim_end_matches(';');
    let cancel = local::interrupt();
    if let Some(address) = &args.engine.cluster {
        let outcome = Cluster::elsewhere(address, &args.engine).run(sql, &cancel, &|_| {}).await?;
        return output::print_rows(&outcome, args.output);
    }
    let worker = local::worker_with_slots(global, args.engine.share, false)?;
    let cluster = Cluster::here(&worker, args.engine.share).await?;
    let result = cluster.run(sql, &cancel, &|_| {}).await;
    cluster.stop().await;
    output::print_rows(&result?, args.output)
}

fn read(path: &std::path::Path) -> Result<String, CliError> {
    let failed = |source| CliError::Read { path: path.display().to_string(), source };
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(failed)
}
