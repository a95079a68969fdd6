//! `spool probe`: what is in a video?

use spool_media::listing;

use crate::{
    args::{Format, Global, Probe},
    exit::CliError,
    local, output,
};

pub async fn run(global: &Global, args: Probe) -> Result<(), CliError> {
    let worker = local::worker(global)?;
    let file = listing::file(worker.timelines(), &args.source).await?;
    match args.output {
        Format::Json => output::print_json(&file),
        Format::Table => {
            output::print_file(&file);
            Ok(())
        }
    }
}
