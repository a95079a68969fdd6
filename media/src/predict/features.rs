//! Features of a row that determine its cost: megapixels decoded, scaled, encoded and coded, and seconds of
//! sound.

use serde::{Deserialize, Serialize};

use crate::{
    Result,
    plan::{
        ladder::{ENCODER_PRESETS, Ladder, VideoCodec, VideoRendition},
        segments::{Segment, SegmentTrack},
        timeline::Timeline,
    },
    predict::complexity::Complexity,
    source::window,
};

/// Number of weights in the model.
pub(crate) const WEIGHTS: usize = 7;

/// Assumed coded share of pictures that were not sampled.
pub(crate) const INITIAL_CODED_SHARE: f64 = 0.3;

/// The bits of a rendition are proportional to its pixels to this power: a small picture has more detail per
/// pixel.
const DETAIL_EXPONENT: f64 = 0.75;

/// Initial ratio of the bytes written to those at the source's own rate.
pub(crate) const INITIAL_FILL: f64 = 0.5;

/// Processor time of encoders relative to x264's `veryfast`, by preset. Measured for x264 on 5 s of the
/// demo's footage at 720p with each preset, less 0.7 s for decoding and scaling; for the others on 8 s at
/// 720p with some presets, and on 4 s at 360p with all.
const EFFORTS: [(VideoCodec, [f64; ENCODER_PRESETS.len()]); 4] = [
    (VideoCodec::H264, [0.25, 0.45, 1.0, 1.9, 2.6, 2.7, 4.6, 8.3, 16.0]),
    (VideoCodec::Hevc, [1.5, 2.3, 3.1, 3.1, 3.6, 3.6, 10.0, 50.0, 75.0]),
    (VideoCodec::Av1, [0.8, 1.4, 2.0, 3.1, 4.0, 5.5, 14.0, 25.0, 40.0]),
    (VideoCodec::Vp9, [0.7, 1.1, 1.3, 1.7, 5.5, 5.5, 12.0, 16.0, 45.0]),
];

/// Returns the encoder's time per pixel, relative to x264's `veryfast`.
pub(crate) fn effort(rendition: &VideoRendition) -> f64 {
    let preset = ENCODER_PRESETS.iter().position(|preset| *preset == rendition.preset).unwrap_or(0);
    EFFORTS.iter().find(|(codec, _)| *codec == rendition.codec).map_or(1.0, |(_, efforts)| efforts[preset])
}

/// Features of a row for the cost model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EncodeFeatures {
    /// Megapixels that are decoded, preroll included.
    pub decoded_mpx: f64,
    /// Megapixels that are read or written by scalers.
    pub scaled_mpx: f64,
    /// Megapixels that are encoded, weighted by their encoder's time relative to x264's `veryfast`.
    pub encoded_mpx: f64,
    /// The part of `encoded_mpx` that is coded and not skipped.
    pub coded_mpx: f64,
    /// The part of `encoded_mpx` in pictures that refer to no other.
    pub key_mpx: f64,
    /// Seconds of sound that are encoded.
    pub sound_s: f64,
    /// Megabytes of the renditions at the source's own rate, capped by their peaks.
    pub source_rate_mb: f64,
    /// Bytes that are read from the store.
    pub read_bytes: u64,
    /// Processor time of the source's samples as a multiple of the prediction, if it is known.
    #[serde(skip)]
    pub sampled: Option<f64>,
}

impl EncodeFeatures {
    /// Returns the features of a row for a ladder, refined by the source's complexity.
    ///
    /// # Errors
    /// Returns an error if the ladder does not fit, or there is no such row.
    pub fn of(
        timeline: &Timeline,
        segment: &Segment,
        ladder: &Ladder,
        complexity: Option<&Complexity>,
    ) -> Result<Self> {
        let renditions = match &timeline.source.probe.video {
            Some(video) => ladder.fit(video, &timeline.grid)?,
            None => Vec::new(),
        };
        let full = key_share(segment);
        let coded = |rendition: &VideoRendition| {
            complexity?.coded_share(rendition).map(|share| full + (1.0 - full) * share)
        };
        let renditions: Vec<_> =
            renditions.iter().map(|rendition| (rendition.clone(), coded(rendition))).collect();
        let sampled = complexity
            .filter(|_| segment.track == SegmentTrack::Video)
            .and_then(|complexity| complexity.sampled_ratio);
        Ok(Self { sampled, ..Self::at(timeline, segment, &renditions, ladder.stereo_bps())? })
    }

    /// Returns the features of a video row for these renditions, or of an audio row for this rate in bits per
    /// second. Each rendition has its coded share, if it is known.
    ///
    /// # Errors
    /// Returns an error if there is no such row.
    pub fn at(
        timeline: &Timeline,
        segment: &Segment,
        renditions: &[(VideoRendition, Option<f64>)],
        audio_bps: u32,
    ) -> Result<Self> {
        let seconds = segment.duration_ms as f64 / 1000.0;
        let read_bytes = read_bytes(timeline, segment)?;
        let video = match (segment.track, &timeline.source.probe.video) {
            (SegmentTrack::Video, Some(video)) => video,
            (SegmentTrack::Audio, _) => {
                // The rate of audio is that of its rung, whatever the source's is. The model learns the share
                // that is written.
                let source_rate_mb = f64::from(audio_bps) * seconds / 8e6 / INITIAL_FILL;
                return Ok(Self { sound_s: seconds, source_rate_mb, read_bytes, ..Self::default() });
            }
            (SegmentTrack::Video, None) => return Ok(Self::default()),
        };
        let shown = timeline.reads(segment);
        let samples = timeline.source.video_track().map_or(&[][..], |track| &track.samples);
        let key = samples
            .iter()
            .filter(|sample| sample.key && sample.pts <= shown.start)
            .map(|sample| sample.pts)
            .max();
        let decoded = || samples.iter().filter(|s| s.pts < shown.end && key.is_none_or(|key| s.pts >= key));
        let source_mpx = mpx(video.width, video.height);
        let decoded_mb = decoded().map(|sample| f64::from(sample.size)).sum::<f64>() / 1e6;
        let mut features =
            Self { decoded_mpx: decoded().count() as f64 * source_mpx, read_bytes, ..Self::default() };
        let frames = segment.frames as f64;
        for (rendition, coded) in renditions {
            let pixels = mpx(rendition.width, rendition.height);
            let effort = effort(rendition);
            if (rendition.width, rendition.height) != (video.width, video.height) {
                features.scaled_mpx += frames * (source_mpx + pixels);
            }
            features.encoded_mpx += frames * pixels * effort;
            features.coded_mpx += frames * pixels * effort * coded.unwrap_or(INITIAL_CODED_SHARE);
            features.key_mpx += frames * pixels * effort * key_share(segment);
            let at_source_rate =
                decoded_mb * (pixels / source_mpx.max(f64::MIN_POSITIVE)).powf(DETAIL_EXPONENT);
            features.source_rate_mb +=
                at_source_rate.min(f64::from(rendition.max_bitrate_bps) * seconds / 8e6 / INITIAL_FILL);
        }
        Ok(features)
    }

    pub(crate) fn vector(&self) -> [f64; WEIGHTS] {
        [1.0, self.decoded_mpx, self.scaled_mpx, self.encoded_mpx, self.coded_mpx, self.key_mpx, self.sound_s]
    }
}

/// Returns the share of a row's pictures that refer to no other: one at the start of each media segment.
/// Scene cuts add some.
fn key_share(segment: &Segment) -> f64 {
    1.0 / f64::from(segment.media_segment_frames.max(1))
}

fn mpx(width: u32, height: u32) -> f64 {
    f64::from(width) * f64::from(height) / 1e6
}

/// Returns the bytes that a row reads from the store.
pub(crate) fn read_bytes(timeline: &Timeline, segment: &Segment) -> Result<u64> {
    if timeline.source.whole.is_some() {
        // Read once per process, not by rows.
        return Ok(0);
    }
    let (stream, span) = match segment.track {
        SegmentTrack::Video => {
            let reads = timeline.reads(segment);
            (
                timeline.source.probe.video.as_ref().map(|video| video.stream),
                window::Span::Pts { first: reads.start, end: reads.end },
            )
        }
        SegmentTrack::Audio => (
            timeline.source.probe.audio.get(segment.index as usize).map(|audio| audio.stream),
            window::Span::All,
        ),
    };
    let Some(stream) = stream else { return Ok(0) };
    Ok(window::plan(&timeline.source.index, stream as usize, span)?.bytes_read())
}
