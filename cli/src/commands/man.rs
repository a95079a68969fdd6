//! `spool man`: writes the manual pages, which say what `--help` says.

use std::path::Path;

use clap::CommandFactory;

use crate::{args::Cli, exit::CliError};

pub fn run(folder: &Path) -> Result<(), CliError> {
    let fault = |source| CliError::Write { path: folder.display().to_string(), source };
    std::fs::create_dir_all(folder).map_err(fault)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(fault)
}
