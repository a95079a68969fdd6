//! `spool`: distributed video transcoding from the command line.

mod api_client;
mod args;
mod commands;
mod engine;
mod error;
mod exit;
mod output;
mod paths;
mod ports;
mod profile;
mod progress;
mod report;
mod rows;
mod signals;
mod slurm_script;
mod start_gate;
mod token;
mod worker;

use std::{io::IsTerminal, process::ExitCode};

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use spool_media::ffmpeg::sandbox;

/// Allocator of the process. Planning and serialized plans are mostly small allocations: the system's
/// allocator took nearly half of a busy scheduler's time. An allocator with a heap for each thread spent as
/// much on clearing huge pages, for threads that start and end with the rows.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // A confined FFmpeg starts as this program, which confines itself and then executes FFmpeg.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == sandbox::COMMAND) {
        return sandbox::main(args);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results, not errors; clap knows the stream of each.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    // Long-running roles log at the level info by default.
    let quiet = !matches!(
        cli.command,
        Command::Serve(_) | Command::Api(_) | Command::Scheduler(_) | Command::Executor(_)
    );
    init_logging(&cli.global, quiet);
    log_panics_of_the_engine();
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK_BYTES).enable_all().build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("error: failed to start the runtime: {error}");
                return ExitCode::from(exit::FAILED);
            }
        };
    let result = runtime.block_on(run(cli));
    // Only background tasks of the engine still run, and no result depends on them.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    worker::remove_scratch();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.code())
        }
    }
}

/// Stack of each thread: statements are bounded (`spool_jobs::check_statement`) so that their trees take a
/// fraction of it, also in a debug build.
const STACK_BYTES: usize = 16 << 20;

/// Time that background tasks of the engine get to end.
const SHUTDOWN_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(500);

async fn run(cli: Cli) -> Result<(), error::CliError> {
    match cli.command {
        Command::Transcode(args) => commands::transcode::run(&cli.global, args).await,
        Command::Sql(args) => commands::sql::run(&cli.global, args).await,
        Command::Probe(args) => commands::probe::run(&cli.global, args).await,
        Command::Plan(args) => commands::plan::run(&cli.global, args).await,
        Command::Gc(args) => commands::gc::run(&cli.global, args).await,
        Command::Serve(args) => commands::serve::run(&cli.global, args).await,
        Command::Api(args) => commands::api::run(args).await,
        Command::Jobs(args) => commands::jobs::run(args).await,
        Command::Scheduler(args) => commands::scheduler::run(&cli.global, args).await,
        Command::Executor(args) => commands::executor::run(&cli.global, args).await,
        Command::Keys(args) => commands::credentials::keys(args).await,
        Command::Tenants(args) => commands::credentials::tenants(args).await,
        Command::Watches(args) => commands::watches::run(args).await,
        Command::Tls(command) => commands::tls::run(&command),
        Command::Slurm(args) => commands::slurm::run(args),
        Command::Health { url } => commands::health::run(url).await,
        Command::Man { folder } => commands::man::run(&folder),
        Command::Doctor => commands::doctor::run(&cli.global).await,
        Command::Completions { shell } => {
            // Rendered first: generating straight to stdout panics if the reader has closed the pipe.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "spool", &mut script);
            output::print(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

/// Spool's crates, as log filters name them.
const SPOOL_CRATES: [&str; 10] = [
    "spool",
    "spool_media",
    "spool_storage",
    "spool_tls",
    "spool_udfs",
    "spool_wire",
    "spool_jobs",
    "spool_server",
    "spool_scheduler",
    "spool_executor",
];

/// Logs panics of the engine like its errors, at a level that is off by default: the statement that depends
/// on it fails with an error of its own.
fn log_panics_of_the_engine() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|location| location.file().contains("/ballista-")) {
            tracing::error!(target: "ballista_core::panic", "{panic}");
        } else {
            default(panic);
        }
    }));
}

fn init_logging(global: &args::GlobalArgs, quiet: bool) {
    use tracing_subscriber::EnvFilter;
    // The engine logs the errors that it also returns; they are reported once, by the command.
    let engine_off = "ballista_scheduler=off,ballista_executor=off,ballista_core=off";
    let spool = |level: &str| SPOOL_CRATES.map(|name| format!("{name}={level}")).join(",");
    let default = match global.verbose + u8::from(!quiet) {
        0 => format!("error,{engine_off}"),
        1 => format!("warn,{engine_off},{}", spool("info")),
        2 => format!("info,{}", spool("debug")),
        _ => "debug".to_owned(),
    };
    let filter = EnvFilter::new(global.log.as_ref().unwrap_or(&default));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match global.log_format {
        args::LogFormat::Text => lines.with_ansi(colour).init(),
        args::LogFormat::Json => lines.json().init(),
    }
}
