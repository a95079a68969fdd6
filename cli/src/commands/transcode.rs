//! `spool transcode`: sources in, ladders out.

use std::{collections::HashSet, sync::Arc, time::Instant};

use futures::{StreamExt, TryStreamExt};
use spool_jobs::Request;
use spool_media::{
    encode::{events::RowEvent, worker::Worker},
    package::{
        early_playback::LIVE,
        publish::{self, Published},
    },
    plan::{
        deinterlace::Deinterlace,
        ladder::Ladder,
        rows,
        segments::{Lengths, Segment, SegmentTrack},
    },
    source::source_cache,
};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Format, Global, Progress, Transcode},
    cluster::Cluster,
    exit::CliError,
    local, output,
    profile::Profile,
    progress::{Reporter, Work},
};

/// Videos of one command that are worked on side by side: short ones would leave slots idle.
const VIDEOS_AT_A_TIME: usize = 4;

/// The stage before the engine starts, in a profile.
const CHECKING: &str = "opening and checking";

/// One video and where it goes.
struct Job {
    source: String,
    destination: String,
    segments: Vec<Segment>,
}

pub async fn run(global: &Global, args: Transcode) -> Result<(), CliError> {
    let cancel = local::interrupt();
    let profile = Profile::start();
    let ladder = Ladder::parse(&args.ladder).map_err(|e| CliError::Usage(format!("--ladder: {e}")))?;
    let lengths = Lengths::new(args.cut.segment(args.live), args.cut.media_segment)
        .map_err(|e| CliError::Usage(e.to_string()))?;
    let destinations = destinations(&args)?;
    // Whatever can be told to be wrong is told before anything is encoded or written.
    check_trace(&args)?;
    if let Some(address) = &args.engine.cluster {
        let cluster = Cluster::elsewhere(address, &args.engine);
        let jobs = profile.stage(CHECKING, planned_elsewhere(&cluster, &args, destinations, &cancel)).await?;
        return transcode(global, &args, cluster, &jobs, &cancel, &profile).await;
    }
    let worker = local::worker_with_slots(global, args.engine.share, false)?;
    let prepare = async {
        let open = async {
            let mut jobs = Vec::new();
            for (source, destination) in args.sources.iter().zip(destinations) {
                jobs.push(job(&worker, source, destination, &ladder, lengths, args.cut.deinterlace).await?);
            }
            Ok(jobs)
        };
        // Both start FFmpeg's programs, and wait for them.
        let encoder = async { Ok::<_, CliError>(worker.environment().default_encoder_build().await?) };
        let (_, jobs) = tokio::try_join!(encoder, open)?;
        // Every source is fine: now, and not before, something is written.
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
    let cluster = profile.stage("starting the engine", Cluster::here(&worker, args.engine.share)).await?;
    transcode(global, &args, cluster, &jobs, &cancel, &profile).await
}

/// Transcodes what is planned, shows how far it is, and tells what came of it.
async fn transcode(
    global: &Global,
    args: &Transcode,
    cluster: Cluster,
    jobs: &[Job],
    cancel: &CancellationToken,
    profile: &Profile,
) -> Result<(), CliError> {
    let work = jobs.iter().map(|job| Work { name: output::short_name(&job.source), segments: &job.segments });
    let reporter = Reporter::start(args.progress, global, work);
    let cluster = cluster.with_live(args.live).with_strict(args.strict);
    if args.live && args.progress != Progress::None {
        let pictures = |job: &&Job| job.segments.iter().any(|segment| segment.track == SegmentTrack::Video);
        for job in jobs.iter().filter(pictures) {
            eprintln!(
                "live: {}, once the sound and the first segment are encoded",
                output::display_uri(&live_uri(&job.destination))
            );
        }
    }
    let started = Instant::now();
    let result = transcode_all(&cluster, jobs, args, cancel, &reporter, profile).await;
    profile.stage("stopping", cluster.stop()).await;
    let tally = reporter.finish().await;
    // Also of a job that failed: that is when one wants to know.
    write_trace(args, &profile.trace().to_string())?;
    let published = result?;
    for (job, published) in jobs.iter().zip(&published) {
        output::warn(&output::short_name(&job.source), published);
    }
    let profile = args.profile.then(|| profile.summary());
    let report = output::Report { published: &published, wall: started.elapsed(), tally, profile };
    match args.output {
        Format::Table => output::print_report(&report),
        Format::Json => output::print_json(&report),
    }
}

/// RowEventKind plays what is encoded so far.
fn live_uri(destination: &str) -> String {
    format!("{}/{LIVE}", destination.trim_end_matches('/'))
}

/// Makes sure that the trace can be written, and leaves what is there.
fn check_trace(args: &Transcode) -> Result<(), CliError> {
    let Some(path) = &args.trace else { return Ok(()) };
    let failed = |source| CliError::Write { path: path.display().to_string(), source };
    std::fs::File::options().create(true).append(true).open(path).map(drop).map_err(failed)
}

/// Writes the trace, if one is wanted.
fn write_trace(args: &Transcode, text: &str) -> Result<(), CliError> {
    let Some(path) = &args.trace else { return Ok(()) };
    std::fs::write(path, text).map_err(|source| CliError::Write { path: path.display().to_string(), source })
}

async fn transcode_all(
    cluster: &Cluster,
    jobs: &[Job],
    args: &Transcode,
    cancel: &CancellationToken,
    reporter: &Reporter,
    profile: &Profile,
) -> Result<Vec<Published>, CliError> {
    let runs = jobs.iter().map(|job| async move {
        let sql = request(&job.source, &job.destination, args).statement();
        let sent = Instant::now();
        let tell = |event: Event| {
            profile.hear(&event);
            reporter.tell(event);
        };
        let outcome = cluster.run(&sql, cancel, &tell).await?;
        profile.statement(sent, outcome.spent);
        let published: Vec<Published> = outcome.structs("published")?;
        published
            .into_iter()
            .next()
            .ok_or_else(|| CliError::Print("the statement published nothing".to_owned()))
    });
    futures::stream::iter(runs).buffered(VIDEOS_AT_A_TIME).try_collect().await
}

/// Has a scheduler elsewhere cut the sources: it sees what this process may not.
async fn planned_elsewhere(
    cluster: &Cluster,
    args: &Transcode,
    destinations: Vec<String>,
    cancel: &CancellationToken,
) -> Result<Vec<Job>, CliError> {
    let mut jobs = Vec::new();
    for (source, destination) in args.sources.iter().zip(destinations) {
        let (source, destination) = (local::absolute(source)?, local::absolute(&destination)?);
        let rows = format!("SELECT segment FROM {}", args.cut.request().segments(&source, args.live));
        let segments: Vec<Segment> = cluster.run(&rows, cancel, &|_| {}).await?.structs("segment")?;
        jobs.push(Job { source, destination, segments });
    }
    Ok(jobs)
}

/// RowEventKind one video is to become.
fn request(source: &str, destination: &str, args: &Transcode) -> Request {
    Request::Transcode {
        source: source.to_owned(),
        destination: destination.to_owned(),
        ladder: args.ladder.clone(),
        cut: args.cut.request(),
        threads: args.engine.share.threads,
        strict: args.strict,
        live: args.live,
        delete_source: false,
    }
}

/// Opens a source, cuts it, and makes sure that there is a rung for it.
async fn job(
    worker: &Arc<Worker>,
    source: &str,
    destination: String,
    ladder: &Ladder,
    lengths: Lengths,
    deinterlace: Deinterlace,
) -> Result<Job, CliError> {
    let title = worker.open(source, deinterlace).await?;
    let segments = rows::rows(&title, lengths)?;
    if let Some(video) = &title.source.probe.video {
        ladder.fit(video, &title.grid).map_err(spool_media::Error::from)?;
    }
    Ok(Job { source: title.source.uri.clone(), destination, segments })
}

/// Where each source goes: the destination itself for one, a folder of its own for each of several.
fn destinations(args: &Transcode) -> Result<Vec<String>, CliError> {
    if args.sources.len() == 1 {
        return Ok(vec![args.destination.clone()]);
    }
    let mut taken = HashSet::new();
    args.sources
        .iter()
        .map(|source| {
            let name = output::short_name(source);
            let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem).to_owned();
            if taken.insert(stem.clone()) {
                Ok(format!("{}/{stem}/", args.destination.trim_end_matches('/')))
            } else {
                Err(CliError::Usage(format!(
                    "two sources are called {stem}: transcode them in two commands, with a destination each"
                )))
            }
        })
        .collect()
}
