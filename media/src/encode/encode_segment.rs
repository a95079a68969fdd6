//! Encodes one row: runs FFmpeg once for the missing rungs, packages its output, uploads the objects, and
//! commits the part records, in this order.

mod package;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    Error, Result,
    codec::VideoCodec,
    encode::{
        events::{AttemptEvent, RowEventKind},
        timing::{self, Step, Stopwatch, Timing},
        worker::Worker,
    },
    ffmpeg::{self, Encode, Encoded, Invocation, Limits, Program},
    package::{
        cmaf::{self, MediaSegment},
        part_store,
        parts::{
            self, MediaSegmentRef, Output, Part, PartRecord, PartRendition, init_path, media_segment_path,
        },
    },
    plan::{
        args::{self, AudioEncode, VideoEncode},
        audio_label::AudioTrackLabel,
        input,
        ladder::{AudioRendition, Ladder, VideoRendition},
        segments::{Segment, SegmentTrack},
        timeline::Timeline,
    },
    predict::features::{self, EncodeFeatures},
    source::{self, source_cache::WholeFile},
};
use spool_storage::{ErrorKind, Location, ObjectKind, redact};

use package::{Spec, package, tokio_stream};

/// Part records that are looked up at a time.
const LOOK_UPS: usize = 8;

/// Rungs that are packaged and stored at a time, each with a thread of its own.
const STORES: usize = 2;

/// Media segments of one rung that are uploaded at a time. As many wait in the channel: some megabytes each.
const UPLOADS: usize = 4;

/// Interval at which a running row checks whether another attempt has committed its parts.
const LOOK_FOR_WINNER: Duration = Duration::from_secs(10);

/// One row to encode.
#[derive(Debug, Clone)]
pub struct Request {
    /// The row.
    pub segment: Segment,
    /// Ladder to encode the row at.
    pub ladder: Ladder,
    /// Path or URI of the folder to write to.
    pub destination: String,
    /// Threads of each encoder: a setting of the job, since the bytes depend on it.
    pub threads: u32,
    /// Whether damaged sources are refused.
    pub strict: bool,
    /// The engine's name of the job that the row runs for. Its events carry it.
    pub job: String,
    /// Fires when the row is canceled.
    pub cancel: CancellationToken,
}

impl Request {
    fn event(&self, kind: RowEventKind) -> AttemptEvent {
        AttemptEvent { job: self.job.clone(), kind }
    }
}

/// A rendition to encode the row at.
#[derive(Debug, Clone)]
enum Wanted {
    Video(VideoRendition),
    Audio(AudioRendition, AudioTrackLabel),
}

impl Wanted {
    fn output(&self) -> Output<'_> {
        match self {
            Self::Video(rendition) => Output::Video(rendition),
            Self::Audio(rendition, _) => Output::Audio(rendition),
        }
    }

    fn encoder(&self) -> ffmpeg::Encoder {
        match self {
            Self::Video(rendition) => rendition.codec.into(),
            Self::Audio(rendition, _) => rendition.codec.into(),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Video(rendition) => &rendition.name,
            Self::Audio(rendition, _) => &rendition.name,
        }
    }
}

/// One rung that has no part yet.
struct Missing {
    wanted: Wanted,
    key: String,
    file: PathBuf,
}

/// Encodes the rungs of a row that have no part yet, and returns the row's part. Idempotent: running it again
/// costs almost nothing.
///
/// # Errors
/// Returns any failure, with the segment that it concerns; an error of kind [`ErrorKind::Canceled`] once
/// `cancel` fires.
pub async fn run(worker: &Worker, request: Request) -> Result<Part> {
    let (segment, cancel) = (request.segment.clone(), request.cancel.clone());
    let work = async {
        tokio::select! {
            part = row(worker, request) => part,
            () = cancel.cancelled() => Err(ffmpeg::Error::Canceled { program: Program::Ffmpeg }.into()),
        }
    };
    work.await.map_err(|source| match source.kind() {
        ErrorKind::Canceled => source,
        _ => source.of_row(&segment),
    })
}

async fn row(worker: &Worker, request: Request) -> Result<Part> {
    let watch = Stopwatch::start();
    let segment = &request.segment;
    if request.strict && segment.lost_ms > 0 {
        return Err(source::Error::CutOff { uri: redact(&segment.source), lost_ms: segment.lost_ms }.into());
    }
    let timeline = watch.time(Step::Open, worker.open_planned(segment)).await?;
    let destination = worker.environment().stores.locate(&request.destination)?;
    let wanted = wanted(&timeline, segment, &request.ladder)?;
    let mut keys = Vec::with_capacity(wanted.len());
    for wanted in &wanted {
        let encoder = worker.environment().encoder_build(wanted.encoder()).await?;
        keys.push(parts::key(segment, wanted.output(), request.threads, encoder));
    }
    // The futures are collected first: a closure that lives in the stream is not `Send`.
    let look_ups: Vec<_> = keys.iter().map(|key| part_store::read(&destination, key)).collect();
    let look_ups = futures::stream::iter(look_ups).buffered(LOOK_UPS).try_collect();
    let mut records: Vec<Option<PartRecord>> = watch.time(Step::LookUp, look_ups).await?;

    let scratch = worker.environment().scratch_folder()?;
    let missing: Vec<Missing> = std::iter::zip(&wanted, &keys)
        .zip(&records)
        .filter(|(_, record)| record.is_none())
        .map(|((wanted, key), _)| Missing {
            wanted: wanted.clone(),
            key: key.clone(),
            file: scratch.path().join(format!("{}.mp4", wanted.name())),
        })
        .collect();
    let mut encoded = missing.len();
    let mut ran = None;
    if !missing.is_empty() {
        let _slot = watch.time(Step::Slot, worker.slot()).await;
        let rungs = missing.iter().map(|m| m.wanted.name().to_owned()).collect();
        worker.emit(request.event(RowEventKind::Started { rungs }));
        let started = Instant::now();
        let gave: Vec<PartRecord> = tokio::select! {
            ended = encode(worker, &timeline, &request, &missing, scratch.path(), &watch) => {
                let (mut ended, damaged_frames) = ended?;
                check_whole(&request, damaged_frames)?;
                let encode_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                let summary = EncodeSummary { encode_ms, damaged_frames };
                let stores: Vec<_> =
                    missing
                        .iter()
                        .map(|m| store(worker, &destination, &timeline, segment, m, &summary, &watch))
                        .collect();
                let gave: Vec<PartRecord> =
                    futures::stream::iter(stores).buffered(STORES).try_collect().await?;
                let media_segments = gave.iter().flat_map(|record| &record.rendition.media_segments);
                ended.written_bytes = media_segments.map(|media_segment| media_segment.bytes).sum();
                ran = Some(ended);
                info!(track = ?segment.track, index = segment.index, encoded = missing.len(), encode_ms, "row encoded");
                gave
            }
            theirs = committed_by_another(&destination, &missing) => {
                info!(track = ?segment.track, index = segment.index, "row was encoded elsewhere meanwhile");
                encoded = 0;
                theirs
            }
        };
        for (record, gave) in records.iter_mut().filter(|record| record.is_none()).zip(gave) {
            *record = Some(gave);
        }
    }
    // Parts that existed may come from a run that was not strict.
    check_whole(
        &request,
        records.iter().flatten().map(|record| record.rendition.damaged_frames).max().unwrap_or(0),
    )?;
    let reused = wanted.len() - encoded;
    let timing = Timing { encode: ran, ..watch.timing(&worker.environment().host) };
    worker.emit(request.event(RowEventKind::Finished { encoded, reused, timing }));
    let fresh = |rendition: &PartRendition| encoded > 0 && missing.iter().any(|m| m.key == rendition.key);
    let renditions = records
        .into_iter()
        .flatten()
        .map(|record| PartRendition { encoded: fresh(&record.rendition), ..record.rendition });
    Ok(Part {
        destination: destination.uri().to_owned(),
        segment: segment.clone(),
        renditions: renditions.collect(),
    })
}

/// Returns an error if frames are damaged and the request is strict.
fn check_whole(request: &Request, damaged_frames: u64) -> Result<()> {
    if !request.strict || damaged_frames == 0 {
        return Ok(());
    }
    Err(source::Error::Damaged { uri: redact(&request.segment.source), damaged_frames }.into())
}

/// Facts about an FFmpeg run for the part records.
struct EncodeSummary {
    encode_ms: u64,
    damaged_frames: u64,
}

/// Waits until another attempt has committed every missing rung: of two attempts, the slower one yields.
async fn committed_by_another(destination: &Location, missing: &[Missing]) -> Vec<PartRecord> {
    loop {
        tokio::time::sleep(LOOK_FOR_WINNER).await;
        let mut theirs = Vec::with_capacity(missing.len());
        for missing in missing {
            // A record that cannot be read now may be readable the next time.
            match part_store::read(destination, &missing.key).await {
                Ok(Some(record)) => theirs.push(record),
                Ok(None) | Err(_) => break,
            }
        }
        if theirs.len() == missing.len() {
            return theirs;
        }
    }
}

/// Returns the renditions to encode a row at, in the ladder's order.
fn wanted(timeline: &Timeline, segment: &Segment, ladder: &Ladder) -> Result<Vec<Wanted>> {
    let none =
        |track| source::Error::NoSuchTrack { uri: segment.source.clone(), track, index: segment.index };
    match segment.track {
        SegmentTrack::Video => {
            let video = timeline.source.probe.video.as_ref().ok_or_else(|| none("video track"))?;
            Ok(ladder.fit(video, &timeline.grid)?.into_iter().map(Wanted::Video).collect())
        }
        SegmentTrack::Audio => {
            let track =
                timeline.source.probe.audio.get(segment.index as usize).ok_or_else(|| none("sound track"))?;
            let renditions = ladder.audio(track, segment.index).into_iter();
            Ok(renditions
                .map(|rendition| Wanted::Audio(rendition, AudioTrackLabel::of(track, segment.index)))
                .collect())
        }
    }
}

/// Runs FFmpeg once over the row, for all missing rungs. Returns the features of the run, and the number of
/// damaged frames.
async fn encode(
    worker: &Worker,
    timeline: &Timeline,
    request: &Request,
    missing: &[Missing],
    scratch: &std::path::Path,
    watch: &Stopwatch,
) -> Result<(timing::Encode, u64)> {
    let segment = &request.segment;
    let window = scratch.join("window.mp4");
    let input = watch.time(Step::Fetch, input::fetch(timeline, segment, &window)).await?;
    let args = match segment.track {
        SegmentTrack::Video => {
            let none =
                || source::Error::NoSuchTrack { uri: segment.source.clone(), track: "video track", index: 0 };
            let video = |m: &Missing| match &m.wanted {
                Wanted::Video(rendition) => Some((rendition.clone(), m.file.clone())),
                Wanted::Audio(..) => None,
            };
            let outputs: Vec<(VideoRendition, PathBuf)> = missing.iter().filter_map(video).collect();
            args::encode_video(&VideoEncode {
                input: &input.path,
                demuxer: input.demuxer,
                stream: input.stream,
                seek: input.seek,
                grid: &timeline.grid,
                first_frame: segment.first_frame,
                frames: segment.frames,
                media_segment_frames: segment.media_segment_frames,
                source: timeline.source.probe.video.as_ref().ok_or_else(none)?,
                fields: timeline.fields,
                outputs: &outputs,
                max_pixels: worker.environment().limits.pixels,
                threads: request.threads,
            })
        }
        SegmentTrack::Audio => {
            let audio = |m: &Missing| match &m.wanted {
                Wanted::Audio(rendition, _) => Some((rendition.clone(), m.file.clone())),
                Wanted::Video(_) => None,
            };
            let outputs: Vec<(AudioRendition, PathBuf)> = missing.iter().filter_map(audio).collect();
            let track = timeline.source.probe.audio.get(segment.index as usize);
            args::encode_audio(&AudioEncode {
                input: &input.path,
                demuxer: input.demuxer,
                stream: input.stream,
                discrete_channels: track.filter(|track| track.discrete).map(|track| track.channels),
                grid: &timeline.grid,
                outputs: &outputs,
            })
        }
    };
    let media = Duration::from_millis(u64::try_from(segment.duration_ms).unwrap_or(0));
    let run = Encode {
        job: Invocation {
            tools: &worker.environment().tools,
            program: Program::Ffmpeg,
            args: &args,
            scratch,
            input: Some(&input.path),
            limits: Limits::for_encode(
                media,
                peak_bps(missing),
                effort(missing),
                &worker.environment().limits,
            ),
            cancel: &request.cancel,
            report: true,
        },
        segment: segment.index,
        rungs: missing.len(),
        frames: (segment.track == SegmentTrack::Video).then_some(segment.frames),
    };
    let started = Instant::now();
    // FFmpeg's first report comes when its outputs are set up, which needs a first frame.
    let mut first_report = None;
    let finished = run
        .run(|progress| {
            first_report.get_or_insert_with(|| started.elapsed());
            let done_ms = (progress.out_time_us / 1000).clamp(0, segment.duration_ms);
            worker.emit(request.event(RowEventKind::Progress { done_ms }));
        })
        .await?;
    // Windows are read under an ETag condition. FFmpeg reads a whole local file without one.
    if matches!(timeline.source.whole, Some(WholeFile::Source(_))) {
        timeline.source.reader.inner().location().open_pinned(&timeline.source.source).await?;
    }
    let first_report = first_report.unwrap_or(finished.wall);
    watch.note(Step::Start, started, first_report);
    watch.note(Step::Encode, started + first_report, finished.wall.saturating_sub(first_report));
    let cpu_us = finished.cpu.and_then(|cpu| u64::try_from(cpu.as_micros()).ok()).unwrap_or(0);
    let (mut renditions, mut audio_bps) = (Vec::new(), 0);
    for missing in missing {
        match &missing.wanted {
            Wanted::Video(rendition) => renditions.push(rendition.clone()),
            Wanted::Audio(rendition, _) => audio_bps += rendition.bitrate_bps,
        }
    }
    let coded =
        finished.report.of(&codecs(&renditions)).into_iter().map(|encoded| encoded.and_then(Encoded::coded));
    let renditions: Vec<_> = std::iter::zip(renditions.clone(), coded).collect();
    let features = EncodeFeatures::at(timeline, segment, &renditions, audio_bps)?;
    let encode = timing::Encode {
        cpu_us,
        preroll_frames: preroll_frames(timeline, segment),
        features,
        written_bytes: 0,
    };
    Ok((encode, finished.report.damaged_frames))
}

fn codecs(renditions: &[VideoRendition]) -> Vec<VideoCodec> {
    renditions.iter().map(|rendition| rendition.codec).collect()
}

/// Returns the highest bit rate among these rungs, in bits per second.
fn peak_bps(missing: &[Missing]) -> u64 {
    let peak = |missing: &Missing| match &missing.wanted {
        Wanted::Video(rendition) => rendition.max_bitrate_bps,
        Wanted::Audio(rendition, _) => rendition.bitrate_bps,
    };
    missing.iter().map(peak).max().unwrap_or_default().into()
}

/// Returns the time that the slowest of these encoders takes, as a multiple of x264's `veryfast`.
fn effort(missing: &[Missing]) -> u32 {
    let effort = |missing: &Missing| match &missing.wanted {
        Wanted::Video(rendition) => features::effort(rendition).ceil() as u32,
        Wanted::Audio(..) => 1,
    };
    missing.iter().map(effort).max().unwrap_or(1)
}

/// Returns the number of frames between the keyframe at which decoding starts and the row's first frame.
fn preroll_frames(timeline: &Timeline, segment: &Segment) -> u64 {
    let first = timeline.reads(segment).start;
    let Some(track) = timeline.source.video_track().filter(|_| segment.track == SegmentTrack::Video) else {
        return 0;
    };
    let key = track
        .samples
        .iter()
        .filter(|sample| sample.key && sample.pts <= first)
        .map(|sample| sample.pts)
        .max();
    let before = |pts: i64| pts < first && key.is_some_and(|key| pts >= key);
    track.samples.iter().filter(|sample| before(sample.pts)).count() as u64
}

/// Packages FFmpeg's output of one rung, uploads it, and commits its part record last.
async fn store(
    worker: &Worker,
    destination: &Location,
    timeline: &Timeline,
    segment: &Segment,
    missing: &Missing,
    summary: &EncodeSummary,
    watch: &Stopwatch,
) -> Result<PartRecord> {
    let begun = Instant::now();
    let (sender, receiver) = mpsc::channel::<MediaSegment>(UPLOADS);
    let file = missing.file.clone();
    let spec = Spec::of(timeline, segment, &missing.wanted);
    let packaging = tokio::task::spawn_blocking(move || package(&file, &spec, &sender));
    let name = missing.wanted.name();
    let uploads = tokio_stream(receiver).map(|media_segment| async move {
        let path = media_segment_path(name, media_segment.number, &media_segment.bytes);
        let stored = MediaSegmentRef {
            number: media_segment.number,
            path: path.clone(),
            start_ticks: media_segment.start_ticks,
            duration_ticks: media_segment.duration_ticks,
            bytes: media_segment.bytes.len() as u64,
        };
        destination.child(&path).put(media_segment.bytes, ObjectKind::MediaSegment).await?;
        Ok::<_, Error>(stored)
    });
    // A failed upload drops the receiver, which ends the packager; the upload's own error is the one to
    // report.
    let media_segments: Result<Vec<MediaSegmentRef>> = uploads.buffered(UPLOADS).try_collect().await;
    let init = packaging.await.map_err(|e| cmaf::Error::Read(std::io::Error::other(e)))?;
    let (media_segments, (init, packaged)) = (media_segments?, init?);
    watch.note(Step::Package, begun, packaged);
    let init_path = init_path(name, &init.bytes);
    let init_bytes = init.bytes.len() as u64;
    destination.child(&init_path).put(init.bytes, ObjectKind::InitSegment).await?;
    watch.note(Step::Upload, begun + packaged, begun.elapsed().saturating_sub(packaged));
    let (max_bitrate_bps, channels, label) = match &missing.wanted {
        Wanted::Video(rendition) => (rendition.max_bitrate_bps, 0, None),
        Wanted::Audio(rendition, label) => (rendition.bitrate_bps, rendition.channels, Some(label.clone())),
    };
    let rendition = PartRendition {
        key: missing.key.clone(),
        name: name.to_owned(),
        codecs: init.codecs,
        timescale: init.timescale,
        width: init.width,
        height: init.height,
        max_bitrate_bps: u64::from(max_bitrate_bps),
        channels,
        label,
        init: init_path,
        init_bytes,
        media_segments,
        encode_ms: summary.encode_ms,
        host: worker.environment().host.clone(),
        damaged_frames: summary.damaged_frames,
        encoded: true,
    };
    watch
        .time(
            Step::Commit,
            part_store::commit(destination, PartRecord { segment: segment.without_secrets(), rendition }),
        )
        .await
}
