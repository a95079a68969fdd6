//! `spool`: distributed video transcoding from the command line.

mod args;
mod commands;
mod embedded;
mod exit;
mod output;
mod progress;

use std::{io::IsTerminal, process::ExitCode};

use clap::{CommandFactory, Parser};

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors; clap knows which stream each goes to.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    init_logging(&cli.global);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::from(exit::FAILED);
        }
    };
    let result = runtime.block_on(run(cli));
    // What still runs in the background is the engine's own; nothing waits for it.
    runtime.shutdown_timeout(SHUTDOWN);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.code())
        }
    }
}

/// How long background work of the engine may take to notice that the process ends.
const SHUTDOWN: std::time::Duration = std::time::Duration::from_millis(500);

async fn run(cli: Cli) -> Result<(), exit::CliError> {
    match cli.command {
        Command::Transcode(args) => commands::transcode::run(&cli.global, args).await,
        Command::Sql(args) => commands::sql::run(&cli.global, args).await,
        Command::Probe(args) => commands::probe::run(&cli.global, args).await,
        Command::Plan(args) => commands::plan::run(&cli.global, args).await,
        Command::Sweep(args) => commands::sweep::run(&cli.global, args).await,
        Command::Doctor => commands::doctor::run(&cli.global).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "spool", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn init_logging(global: &args::Global) {
    use tracing_subscriber::EnvFilter;
    let default = match global.verbose {
        // The engine logs what it also returns; we tell it once.
        0 => "error,ballista_scheduler=off,ballista_executor=off,ballista_core=off",
        1 => {
            "warn,ballista_scheduler=off,ballista_executor=off,ballista_core=off,spool=info,spool_media=info,spool_udfs=info,spool_scheduler=info,spool_executor=info"
        }
        2 => "info,spool_media=debug,spool_udfs=debug,spool_scheduler=debug,spool_executor=debug",
        _ => "debug",
    };
    let filter = match &global.log {
        Some(directives) => EnvFilter::new(directives),
        None => EnvFilter::new(default),
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).init();
}
