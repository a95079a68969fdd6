//! `spool sweep`: what nothing refers to any more goes.

use std::time::Duration;

use spool_media::package::gc;

use crate::{
    args::{Format, Global, Sweep},
    exit::CliError,
    local, output,
};

/// Seconds of an hour.
const HOUR: f64 = 3600.0;

pub async fn run(global: &Global, args: Sweep) -> Result<(), CliError> {
    let grace = Duration::try_from_secs_f64(args.grace_hours * HOUR).map_err(|_| {
        CliError::Usage(format!(
            "--grace-hours {} is no length of time: give hours, such as 24",
            args.grace_hours
        ))
    })?;
    let worker = local::worker(global)?;
    let swept = gc::run(
        &worker.environment().stores,
        &args.destination,
        gc::Options { grace, dry_run: args.dry_run },
    )
    .await?;
    match args.output {
        Format::Json => output::print_json(&swept),
        Format::Table => {
            let verb = if args.dry_run { "would delete" } else { "deleted" };
            println!(
                "{verb} {} part records and {} objects ({}); {} objects wait for the next sweep after the grace, {} stay",
                swept.records,
                swept.objects,
                output::bytes(swept.bytes),
                swept.waiting,
                swept.kept
            );
            Ok(())
        }
    }
}
