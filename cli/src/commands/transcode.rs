//! `spool transcode`: transcodes sources into published ladders.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;
use spool_jobs::Request;
use spool_media::{
    encode::events::{RowEvent, RowEventKind},
    package::{early_playback::EARLY_MASTER, publish::Published},
    plan::{
        ladder::Ladder,
        segments::{Lengths, Segment},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{GlobalArgs, OutputFormat, TranscodeArgs},
    engine::Engine,
    error::CliError,
    output,
    paths::{self, display_uri, short_name},
    profile::Profile,
    progress::{Reporter, VideoEvent, VideoLabel},
    report::{self, Report},
    signals,
    start_gate::{Checks, StartGate},
    worker,
};

/// A video and its destination.
struct Job {
    source: String,
    destination: String,
}

pub async fn run(global: &GlobalArgs, args: TranscodeArgs) -> Result<(), CliError> {
    let cancel = signals::interrupt();
    let profile = Arc::new(Profile::start());
    let ladder = Ladder::parse(&args.ladder).map_err(|e| CliError::Usage(format!("--ladder: {e}")))?;
    Lengths::new(args.segmentation.segment(args.early_playback), args.segmentation.media_segment)
        .map_err(|e| CliError::Usage(e.to_string()))?;
    let mut jobs = jobs(&args)?;
    check_trace(&args)?;
    let (engine, checks) = match &args.engine.cluster {
        Some(address) => {
            for Job { source, destination } in &mut jobs {
                (*source, *destination) = (paths::absolute(source)?, paths::absolute(destination)?);
            }
            (Engine::remote(address, &args.engine)?, None)
        }
        None => {
            let slots = args.engine.slots;
            let worker = worker::worker_with_slots(global, slots, global.http_sources)?;
            let destinations = jobs.iter().map(|job| job.destination.clone()).collect();
            let engine = profile.stage("starting the engine", Engine::embedded(&worker, slots)).await?;
            (engine, Some(Checks { worker, ladder, destinations }))
        }
    };
    let gate = StartGate::new(jobs.len(), checks, profile.clone());
    let labels = jobs.iter().map(|job| VideoLabel {
        name: short_name(&job.source),
        early_playlist: args.early_playback.then(|| display_uri(&early_playlist(&job.destination))),
    });
    let reporter = Reporter::start(args.progress, global, labels.collect());
    let started = Instant::now();
    let result = transcode_all(&engine, &gate, &jobs, &args, &cancel, &reporter, &profile).await;
    profile.stage("stopping", engine.stop()).await;
    let tally = reporter.finish().await;
    // Written for a failed job too, since a trace helps most to explain a failure.
    write_trace(&args, &profile.trace().to_string())?;
    let published = result?;
    for (job, published) in jobs.iter().zip(&published) {
        report::warn_of_defects(&short_name(&job.source), published);
    }
    let profile = args.profile.then(|| profile.summary());
    let report = Report { published: &published, wall: started.elapsed(), tally, profile };
    match args.output {
        OutputFormat::Table => report.print(),
        OutputFormat::Json => output::print_json(&report),
    }
}

/// Returns the URI of the playlist of early playback.
fn early_playlist(destination: &str) -> String {
    format!("{}/{EARLY_MASTER}", destination.trim_end_matches('/'))
}

/// Checks that the trace can be written, without changing an existing file.
fn check_trace(args: &TranscodeArgs) -> Result<(), CliError> {
    let Some(path) = &args.trace else { return Ok(()) };
    let failed = |source| CliError::Write { path: path.display().to_string(), source };
    std::fs::File::options().create(true).append(true).open(path).map(drop).map_err(failed)
}

/// Writes the trace, if one is requested.
fn write_trace(args: &TranscodeArgs, text: &str) -> Result<(), CliError> {
    let Some(path) = &args.trace else { return Ok(()) };
    std::fs::write(path, text).map_err(|source| CliError::Write { path: path.display().to_string(), source })
}

/// Runs a statement per video, and returns the published ladders in the order of the command line.
async fn transcode_all(
    engine: &Engine,
    gate: &Arc<StartGate>,
    jobs: &[Job],
    args: &TranscodeArgs,
    cancel: &CancellationToken,
    reporter: &Reporter,
    profile: &Profile,
) -> Result<Vec<Published>, CliError> {
    let runs = jobs.iter().enumerate().map(|(video, job)| async move {
        let at_gate = gate.enter().await;
        let request = request(job, args);
        let submitted = Instant::now();
        let segments: Mutex<HashMap<u32, Arc<Segment>>> = Mutex::default();
        let on_event = |event: RowEvent| {
            let RowEvent { ordinal, kind } = event;
            if let RowEventKind::Planned { segment } = &kind {
                at_gate.on_planned(segment);
                segments.lock().insert(ordinal, Arc::new(Segment::clone(segment)));
            }
            let Some(segment) = segments.lock().get(&ordinal).cloned() else { return };
            let event = VideoEvent { video, ordinal, segment, kind };
            profile.on_event(&event);
            reporter.on_event(event);
        };
        let result = engine.run(&request, cancel, &on_event, Some(at_gate.before_rows())).await?;
        profile.statement(submitted, result.timing);
        let published: Vec<Published> = result.structs("published")?;
        published
            .into_iter()
            .next()
            .ok_or_else(|| CliError::Print("the statement published nothing".to_owned()))
    });
    futures::future::try_join_all(runs).await
}

/// Returns the request that transcodes a video.
fn request(job: &Job, args: &TranscodeArgs) -> Request {
    Request::Transcode {
        source: job.source.clone(),
        destination: job.destination.clone(),
        ladder: args.ladder.clone(),
        cut: args.segmentation.request(),
        threads: args.engine.slots.threads,
        strict: args.strict,
        early_playback: args.early_playback,
        delete_source: false,
    }
}

/// Returns the videos with their destinations: the given one for a single source, a subfolder of it for each
/// of several.
fn jobs(args: &TranscodeArgs) -> Result<Vec<Job>, CliError> {
    let job = |source: &String, destination| Job { source: source.clone(), destination };
    if let [source] = args.sources.as_slice() {
        return Ok(vec![job(source, args.destination.clone())]);
    }
    let mut taken = HashSet::new();
    args.sources
        .iter()
        .map(|source| {
            let name = short_name(source);
            let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem).to_owned();
            if taken.insert(stem.clone()) {
                Ok(job(source, format!("{}/{stem}/", args.destination.trim_end_matches('/'))))
            } else {
                Err(CliError::Usage(format!(
                    "two sources are called {stem}: transcode them in two commands with a destination each"
                )))
            }
        })
        .collect()
}
