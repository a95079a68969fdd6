//! `spool man`: writes the manual pages, which contain the help texts.

use std::path::Path;

use clap::CommandFactory;

use crate::{args::Cli, error::CliError};

pub fn run(folder: &Path) -> Result<(), CliError> {
    let failed = |source| CliError::Write { path: folder.display().to_string(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(failed)
}
