//! `spool doctor`: is this machine able to transcode?

use std::fmt::Display;

use spool_media::{
    encode::worker::Worker,
    ffmpeg::{self, Encoder, Program, SandboxMode, sandbox},
};

use crate::{
    args::{Global, Share},
    cluster::Cluster,
    exit::CliError,
    local,
};

/// Free scratch space below which a long video may not fit.
const SCRATCH_WANTED_BYTES: u64 = 2 << 30;

/// What the checks found so far.
#[derive(Default)]
struct Checks {
    failed: usize,
}

impl Checks {
    fn say<T: Display, E: Display>(&mut self, what: &str, result: Result<T, E>) {
        match result {
            Ok(found) => println!("ok    {what}: {found}"),
            Err(problem) => {
                self.failed += 1;
                println!("FAIL  {what}: {problem}");
            }
        }
    }

    fn warn(what: &str, text: impl Display) {
        println!("warn  {what}: {text}");
    }
}

pub async fn run(global: &Global) -> Result<(), CliError> {
    println!("spool {}", env!("CARGO_PKG_VERSION"));
    let mut checks = Checks::default();
    let share = Share { slots: None, threads: 1 };
    println!("ok    slots: {} segments at a time", local::slots(share));
    match local::worker(global) {
        Err(error) => checks.say("scratch", Err::<&str, _>(error)),
        Ok(worker) => {
            scratch(&mut checks, &worker);
            checks.say(
                "ffmpeg",
                ffmpeg::version(&worker.environment().tools, Program::Ffmpeg, worker.environment().scratch())
                    .await,
            );
            checks.say(
                "encoders",
                worker.environment().default_encoder_build().await.map(|_| "libx264 and aac encode"),
            );
            more_encoders(&worker).await;
            checks.say(
                "ffprobe",
                ffmpeg::version(
                    &worker.environment().tools,
                    Program::Ffprobe,
                    worker.environment().scratch(),
                )
                .await,
            );
            sandbox(&mut checks, &worker).await;
            checks.say("engine", start_engine(&worker, share).await);
        }
    }
    credentials();
    if checks.failed == 0 { Ok(()) } else { Err(CliError::Unfit(checks.failed)) }
}

/// Encoders that only some ladders ask for: a worker without them is able for all others.
async fn more_encoders(worker: &Worker) {
    for encoder in Encoder::ALL.into_iter().filter(|encoder| *encoder != Encoder::Default) {
        match worker.environment().encoder_build(encoder).await {
            Ok(_) => println!("ok    encoders: {} encodes", encoder.names()),
            Err(error) => println!(
                "note  encoders: {} does not, and ladders that need it fail here: {error}",
                encoder.names()
            ),
        }
    }
}

fn scratch(checks: &mut Checks, worker: &Worker) {
    match worker.environment().scratch_free_bytes() {
        Ok(free) if free < SCRATCH_WANTED_BYTES => {
            Checks::warn(
                "scratch",
                format_args!(
                    "only {} free in {}",
                    crate::output::bytes(free),
                    worker.environment().scratch().display()
                ),
            );
        }
        free => checks.say(
            "scratch",
            free.map(|free| {
                format!("{} free in {}", crate::output::bytes(free), worker.environment().scratch().display())
            }),
        ),
    }
}

/// What FFmpeg is kept from here. What the kernel lacks makes no worker unfit.
async fn sandbox(checks: &mut Checks, worker: &Worker) {
    let tools = &worker.environment().tools;
    if tools.confinement != SandboxMode::All {
        return Checks::warn("sandbox", "off: FFmpeg is kept from nothing but its limits");
    }
    if let Some(script) =
        [&tools.ffmpeg, &tools.ffprobe].into_iter().find(|program| sandbox::is_script(program))
    {
        return Checks::warn(
            "sandbox",
            format_args!("{} is a script, which cannot be confined", script.display()),
        );
    }
    match sandbox::check(tools, worker.environment().scratch()).await {
        Err(error) => checks.say("sandbox", Err::<&str, _>(error)),
        Ok(tried) => {
            let lacks: Vec<&str> =
                tried.iter().filter(|(_, held)| !held).map(|(what, _)| what.as_str()).collect();
            if lacks.is_empty() {
                println!("ok    sandbox: FFmpeg opens its input and its folder, and reaches nothing else");
            } else {
                Checks::warn(
                    "sandbox",
                    format_args!("this system does not keep FFmpeg to it: {}", lacks.join("; ")),
                );
            }
        }
    }
}

async fn start_engine(worker: &std::sync::Arc<Worker>, share: Share) -> Result<String, CliError> {
    let started = std::time::Instant::now();
    let cluster = Cluster::here(worker, share).await?;
    cluster.run("SELECT 1", &local::interrupt(), &|_| {}).await?;
    let answered = started.elapsed();
    cluster.stop().await;
    Ok(format!("scheduler and executor answer in {} ms", answered.as_millis()))
}

fn credentials() {
    let set = |name| std::env::var_os(name).is_some();
    if set("AWS_ACCESS_KEY_ID") {
        println!("ok    s3: credentials are in the environment");
    } else {
        Checks::warn(
            "s3",
            "no AWS_ACCESS_KEY_ID in the environment; s3:// works only with a role of this machine",
        );
    }
}
