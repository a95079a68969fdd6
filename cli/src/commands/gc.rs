//! `spool gc`: deletes part records and media objects that no published playlist refers to.

use std::time::Duration;

use spool_media::package::gc;

use crate::{
    args::{GcArgs, GlobalArgs, OutputFormat},
    error::CliError,
    output, worker,
};

const SECONDS_PER_HOUR: f64 = 3600.0;

pub async fn run(global: &GlobalArgs, args: GcArgs) -> Result<(), CliError> {
    let grace = Duration::try_from_secs_f64(args.grace_hours * SECONDS_PER_HOUR).map_err(|_| {
        CliError::Usage(format!(
            "--grace-hours {} is not a length of time: give hours, such as 24",
            args.grace_hours
        ))
    })?;
    let worker = worker::worker(global)?;
    let options = gc::Options { grace, dry_run: args.dry_run };
    let report = gc::run(&worker.environment().stores, &args.destination, options).await?;
    match args.output {
        OutputFormat::Json => output::print_json(&report),
        OutputFormat::Table => output::print(&format!(
            "{} {} part records and {} objects ({}); {} objects wait for the grace period; kept {} objects",
            if args.dry_run { "would delete" } else { "deleted" },
            report.records,
            report.objects,
            output::bytes(report.bytes),
            report.waiting,
            report.kept
        )),
    }
}
