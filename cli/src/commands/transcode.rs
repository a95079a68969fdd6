//! `spool transcode`: transcodes sources into published ladders.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use spool_jobs::Request;
use spool_media::{
    encode::{
        events::{RowEvent, RowEventKind},
        worker::Worker,
    },
    package::{
        early_playback::LIVE,
        publish::{self, Published},
    },
    plan::{
        deinterlace::Deinterlace,
        ladder::Ladder,
        rows,
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
    signals, worker,
};

/// Videos that are transcoded concurrently: a single short video would leave slots idle.
const CONCURRENT_VIDEOS: usize = 4;

/// Stage of a profile before the engine starts.
const CHECKING: &str = "opening and checking";

/// A video and its destination.
struct Job {
    source: String,
    destination: String,
}

pub async fn run(global: &GlobalArgs, args: TranscodeArgs) -> Result<(), CliError> {
    let cancel = signals::interrupt();
    let profile = Profile::start();
    let ladder = Ladder::parse(&args.ladder).map_err(|e| CliError::Usage(format!("--ladder: {e}")))?;
    let lengths =
        Lengths::new(args.segmentation.segment(args.early_playback), args.segmentation.media_segment)
            .map_err(|e| CliError::Usage(e.to_string()))?;
    let destinations = destinations(&args)?;
    // Errors of the request are reported before anything is encoded or written.
    check_trace(&args)?;
    if let Some(address) = &args.engine.cluster {
        let engine = Engine::remote(address, &args.engine);
        let jobs = profile.stage(CHECKING, planned_elsewhere(&engine, &args, destinations, &cancel)).await?;
        return transcode(global, &args, engine, &jobs, &cancel, &profile).await;
    }
    let worker = worker::worker_with_slots(global, args.engine.slots, global.http_sources)?;
    let prepare = async {
        let open = async {
            let mut jobs = Vec::new();
            for (source, destination) in args.sources.iter().zip(destinations) {
                let deinterlace = args.segmentation.deinterlace;
                jobs.push(job(&worker, source, destination, &ladder, lengths, deinterlace).await?);
            }
            Ok(jobs)
        };
        // Both start FFmpeg's programs, and wait for them.
        let encoder = async { Ok::<_, CliError>(worker.environment().default_encoder_build().await?) };
        let (_, jobs) = tokio::try_join!(encoder, open)?;
        // Written to only once every source is known to be fine.
        for job in &jobs {
            publish::check_writable(
                &worker.environment().stores.locate(&job.destination).map_err(spool_media::Error::from)?,
            )
            .await?;
        }
        Ok::<_, CliError>(jobs)
    };
    let jobs = tokio::select! {
        jobs = profile.stage(CHECKING, prepare) => jobs?,
        () = cancel.cancelled() => return Err(CliError::interrupted()),
    };
    let engine = profile.stage("starting the engine", Engine::embedded(&worker, args.engine.slots)).await?;
    transcode(global, &args, engine, &jobs, &cancel, &profile).await
}

/// Transcodes the jobs, shows their progress, and reports the result.
async fn transcode(
    global: &GlobalArgs,
    args: &TranscodeArgs,
    engine: Engine,
    jobs: &[Job],
    cancel: &CancellationToken,
    profile: &Profile,
) -> Result<(), CliError> {
    let labels = jobs.iter().map(|job| VideoLabel {
        name: short_name(&job.source),
        early_playlist: args.early_playback.then(|| display_uri(&early_playlist(&job.destination))),
    });
    let reporter = Reporter::start(args.progress, global, labels.collect());
    let started = Instant::now();
    let result = transcode_all(&engine, jobs, args, cancel, &reporter, profile).await;
    profile.stage("stopping", engine.stop()).await;
    let tally = reporter.finish().await;
    // Written for a failed job too, which is when a trace is needed most.
    write_trace(args, &profile.trace().to_string())?;
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
    format!("{}/{LIVE}", destination.trim_end_matches('/'))
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

async fn transcode_all(
    engine: &Engine,
    jobs: &[Job],
    args: &TranscodeArgs,
    cancel: &CancellationToken,
    reporter: &Reporter,
    profile: &Profile,
) -> Result<Vec<Published>, CliError> {
    let runs = jobs.iter().enumerate().map(|(video, job)| async move {
        let request = request(&job.source, &job.destination, args);
        let submitted = Instant::now();
        let segments = Mutex::new(HashMap::new());
        let on_event = |event: RowEvent| {
            let RowEvent { ordinal, kind } = event;
            if let RowEventKind::Planned { segment } = &kind {
                segments.lock().insert(ordinal, Arc::new(Segment::clone(segment)));
            }
            let Some(segment) = segments.lock().get(&ordinal).cloned() else { return };
            let event = VideoEvent { video, ordinal, segment, kind };
            profile.on_event(&event);
            reporter.on_event(event);
        };
        let result = engine.run(&request, cancel, &on_event).await?;
        profile.statement(submitted, result.timing);
        let published: Vec<Published> = result.structs("published")?;
        published
            .into_iter()
            .next()
            .ok_or_else(|| CliError::Print("the statement published nothing".to_owned()))
    });
    futures::stream::iter(runs).buffered(CONCURRENT_VIDEOS).try_collect().await
}

/// Plans the sources on a scheduler elsewhere, which may read what this process cannot.
async fn planned_elsewhere(
    engine: &Engine,
    args: &TranscodeArgs,
    destinations: Vec<String>,
    cancel: &CancellationToken,
) -> Result<Vec<Job>, CliError> {
    let mut jobs = Vec::new();
    for (source, destination) in args.sources.iter().zip(destinations) {
        let (source, destination) = (paths::absolute(source)?, paths::absolute(&destination)?);
        let segments = args.segmentation.request().segments(&source, args.early_playback);
        let sql = format!("SELECT segment FROM {segments}");
        let request = Request::Sql { sql, threads: args.engine.slots.threads };
        engine.run(&request, cancel, &|_| {}).await?.structs::<Segment>("segment")?;
        jobs.push(Job { source, destination });
    }
    Ok(jobs)
}

/// Returns the request that transcodes a video.
fn request(source: &str, destination: &str, args: &TranscodeArgs) -> Request {
    Request::Transcode {
        source: source.to_owned(),
        destination: destination.to_owned(),
        ladder: args.ladder.clone(),
        cut: args.segmentation.request(),
        threads: args.engine.slots.threads,
        strict: args.strict,
        early_playback: args.early_playback,
        delete_source: false,
    }
}

/// Opens and cuts a source, and checks that a rung fits it.
async fn job(
    worker: &Arc<Worker>,
    source: &str,
    destination: String,
    ladder: &Ladder,
    lengths: Lengths,
    deinterlace: Deinterlace,
) -> Result<Job, CliError> {
    let timeline = worker.open(source, deinterlace).await?;
    rows::rows(&timeline, lengths)?;
    if let Some(video) = &timeline.source.probe.video {
        ladder.fit(video, &timeline.grid).map_err(spool_media::Error::from)?;
    }
    Ok(Job { source: timeline.source.source.uri.clone(), destination })
}

/// Returns the destination of each source: the given one for a single source, a subfolder of it for each of
/// several.
fn destinations(args: &TranscodeArgs) -> Result<Vec<String>, CliError> {
    if args.sources.len() == 1 {
        return Ok(vec![args.destination.clone()]);
    }
    let mut taken = HashSet::new();
    args.sources
        .iter()
        .map(|source| {
            let name = short_name(source);
            let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem).to_owned();
            if taken.insert(stem.clone()) {
                Ok(format!("{}/{stem}/", args.destination.trim_end_matches('/')))
            } else {
                Err(CliError::Usage(format!(
                    "two sources are called {stem}: transcode them in two commands with a destination each"
                )))
            }
        })
        .collect()
}
