//! `spool`: distributed video transcoding from the command line.

mod api;
mod args;
mod cluster;
mod commands;
mod exit;
mod local;
mod output;
mod profile;
mod progress;
mod slurm;

use std::{io::IsTerminal, process::ExitCode};

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use spool_media::ffmpeg::sandbox;

/// Planning and plans on their way are mostly small allocations: the system's allocator took nearly half of a busy scheduler's time. One with
/// a heap for each thread spent as much on clearing huge pages, for threads that come and go with the rows.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // FFmpeg's first instructions are ours: it is what this process is about to become.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == sandbox::COMMAND) {
        return sandbox::main(args);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors; clap knows which stream each goes to.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    // What runs for long tells more.
    let quiet = !matches!(
        cli.command,
        Command::Serve(_) | Command::Server(_) | Command::Scheduler(_) | Command::Executor(_)
    );
    init_logging(&cli.global, quiet);
    leave_panics_of_the_engine_to_its_log();
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
    local::leave();
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
        Command::Serve(args) => commands::serve::run(&cli.global, args).await,
        Command::Server(args) => commands::server::run(args).await,
        Command::Jobs(args) => commands::jobs::run(args).await,
        Command::Scheduler(args) => commands::scheduler::run(&cli.global, args).await,
        Command::Executor(args) => commands::executor::run(&cli.global, args).await,
        Command::Keys(args) => commands::access::keys(args).await,
        Command::Tenants(args) => commands::access::tenants(args).await,
        Command::Watches(args) => commands::watches::run(args).await,
        Command::Slurm(args) => commands::slurm::run(args),
        Command::Health { url } => commands::health::run(url).await,
        Command::Man { folder } => commands::man::run(&folder),
        Command::Doctor => commands::doctor::run(&cli.global).await,
        Command::Completions { shell } => {
            // At once: what is written by and by breaks off where the reader has enough.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "spool", &mut script);
            output::print(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

/// Our own crates, as log filters name them.
const OURS: [&str; 8] = [
    "spool",
    "spool_media",
    "spool_udfs",
    "spool_wire",
    "spool_jobs",
    "spool_server",
    "spool_scheduler",
    "spool_executor",
];

/// A panic of the engine is told like its errors: what hangs on it fails, and that is told anyway.
fn leave_panics_of_the_engine_to_its_log() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|location| location.file().contains("/ballista-")) {
            tracing::error!(target: "ballista_core::panic", "{panic}");
        } else {
            usual(panic);
        }
    }));
}

fn init_logging(global: &args::Global, quiet: bool) {
    use tracing_subscriber::EnvFilter;
    // The engine logs what it also returns; we tell it once.
    let engine_off = "ballista_scheduler=off,ballista_executor=off,ballista_core=off";
    let ours = |level: &str| OURS.map(|name| format!("{name}={level}")).join(",");
    let default = match global.verbose + u8::from(!quiet) {
        0 => format!("error,{engine_off}"),
        1 => format!("warn,{engine_off},{}", ours("info")),
        2 => format!("info,{}", ours("debug")),
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
