//! `spool sql`: a statement in, rows out.

use std::io::Read;

use crate::{
    args::{Global, Sql},
    embedded::{self, Cluster},
    exit::CliError,
    output,
};

pub async fn run(global: &Global, args: Sql) -> Result<(), CliError> {
    let sql = match (&args.statement.command, &args.statement.file) {
        (Some(sql), _) => sql.clone(),
        (None, Some(path)) => read(path)?,
        (None, None) => return Err(CliError::Usage("give a statement with -c or a file with -f".to_owned())),
    };
    let machine = embedded::machine(global)?;
    let cancel = embedded::interrupt();
    let cluster = Cluster::start(&machine, &args.engine).await?;
    let result = cluster.run(sql.trim().trim_end_matches(';'), &cancel).await;
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
