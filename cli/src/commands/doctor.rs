//! `spool doctor`: checks that this machine can transcode.

use std::{fmt::Display, sync::Arc, time::Instant};

use spool_jobs::Request;
use spool_media::{
    encode::worker::Worker,
    ffmpeg::{self, Encoder, Program, SandboxMode, sandbox},
};

use crate::{
    args::{GlobalArgs, SlotArgs},
    engine::Engine,
    error::CliError,
    output, signals, worker,
};

/// Free scratch space below which a long video may not fit.
const SCRATCH_WANTED_BYTES: u64 = 2 << 30;

/// Checks so far.
#[derive(Default)]
struct Checks {
    failed: usize,
}

impl Checks {
    fn report<T: Display, E: Display>(&mut self, check: &str, result: Result<T, E>) {
        match result {
            Ok(found) => println!("ok    {check}: {found}"),
            Err(problem) => {
                self.failed += 1;
                println!("FAIL  {check}: {problem}");
            }
        }
    }

    fn warn(check: &str, text: impl Display) {
        println!("warn  {check}: {text}");
    }
}

pub async fn run(global: &GlobalArgs) -> Result<(), CliError> {
    println!("spool {}", env!("CARGO_PKG_VERSION"));
    let mut checks = Checks::default();
    let slots = SlotArgs { slots: None, threads: 1 };
    println!("ok    slots: {} segments at once", slots.count());
    match worker::worker(global) {
        Err(error) => checks.report("scratch", Err::<&str, _>(error)),
        Ok(worker) => {
            let (tools, scratch) = (&worker.environment().tools, worker.environment().scratch());
            check_scratch(&mut checks, &worker);
            checks.report("ffmpeg", ffmpeg::version(tools, Program::Ffmpeg, scratch).await);
            checks.report(
                "encoders",
                worker.environment().default_encoder_build().await.map(|_| "libx264 and aac encode"),
            );
            check_optional_encoders(&worker).await;
            checks.report("ffprobe", ffmpeg::version(tools, Program::Ffprobe, scratch).await);
            check_sandbox(&mut checks, &worker).await;
            checks.report("engine", start_engine(&worker, slots).await);
        }
    }
    check_credentials();
    if checks.failed == 0 { Ok(()) } else { Err(CliError::Unfit(checks.failed)) }
}

/// Reports the encoders that only some ladders need. Without them a machine can still encode all other
/// ladders.
async fn check_optional_encoders(worker: &Worker) {
    for encoder in Encoder::ALL.into_iter().filter(|encoder| *encoder != Encoder::Default) {
        match worker.environment().encoder_build(encoder).await {
            Ok(_) => println!("ok    encoders: {} encodes", encoder.names()),
            Err(error) => println!(
                "note  encoders: {} does not encode; ladders that need it fail on this machine: {error}",
                encoder.names()
            ),
        }
    }
}

fn check_scratch(checks: &mut Checks, worker: &Worker) {
    let folder = worker.environment().scratch().display();
    match worker.environment().scratch_free_bytes() {
        Ok(free) if free < SCRATCH_WANTED_BYTES => {
            Checks::warn("scratch", format_args!("only {} free in {folder}", output::bytes(free)));
        }
        free => {
            checks.report("scratch", free.map(|free| format!("{} free in {folder}", output::bytes(free))));
        }
    }
}

/// Reports the confinement of FFmpeg that the kernel supports. No support is a warning, not a failure.
async fn check_sandbox(checks: &mut Checks, worker: &Worker) {
    let tools = &worker.environment().tools;
    if tools.confinement != SandboxMode::All {
        return Checks::warn("sandbox", "off: only resource limits confine FFmpeg");
    }
    if let Some(script) =
        [&tools.ffmpeg, &tools.ffprobe].into_iter().find(|program| sandbox::is_script(program))
    {
        return Checks::warn(
            "sandbox",
            format_args!("{} is a script, which cannot be confined", script.display()),
        );
    }
    match ffmpeg::check_sandbox(tools, worker.environment().scratch()).await {
        Err(error) => checks.report("sandbox", Err::<&str, _>(error)),
        Ok(tried) => {
            let not_enforced: Vec<&str> =
                tried.iter().filter(|(_, held)| !held).map(|(rule, _)| rule.as_str()).collect();
            if not_enforced.is_empty() {
                println!("ok    sandbox: FFmpeg opens its input and its folder, and reaches nothing else");
            } else {
                Checks::warn(
                    "sandbox",
                    format_args!("this system does not enforce it: {}", not_enforced.join("; ")),
                );
            }
        }
    }
}

async fn start_engine(worker: &Arc<Worker>, slots: SlotArgs) -> Result<String, CliError> {
    let started = Instant::now();
    let engine = Engine::embedded(worker, slots).await?;
    let request = Request::Sql { sql: "SELECT 1".to_owned(), threads: slots.threads };
    engine.run(&request, &signals::interrupt(), &|_| {}, None).await?;
    let elapsed = started.elapsed();
    engine.stop().await;
    Ok(format!("scheduler and executor respond in {} ms", elapsed.as_millis()))
}

fn check_credentials() {
    if std::env::var_os("AWS_ACCESS_KEY_ID").is_some() {
        println!("ok    s3: credentials are in the environment");
    } else {
        Checks::warn("s3", "AWS_ACCESS_KEY_ID is not set; s3:// works only if this machine has a role");
    }
}
