//! Merge: joins parts into one ladder. Pure, and strict about gaps, duplicates and decoder configurations.

use std::collections::BTreeMap;

use crate::{
    package::parts::{MediaSegmentRef, Part, PartRendition},
    plan::{
        audio_label::AudioTrackLabel,
        segments::{Segment, SegmentTrack},
    },
    time::Rational,
};
use spool_storage::ErrorKind;

/// The contents of one video's playlists.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HlsLadder {
    /// Absolute URI of the destination folder.
    pub destination: String,
    /// The video that was encoded.
    pub source: String,
    /// Length of the video in milliseconds.
    pub duration_ms: i64,
    /// Milliseconds that are missing from the source, according to its declared length.
    #[serde(default)]
    pub lost_ms: i64,
    /// Frames of the source that were decoded with errors, or not at all: a frame that two rows decode counts
    /// twice.
    #[serde(default)]
    pub damaged_frames: u64,
    /// Video renditions in the ladder's order, then audio renditions in track order.
    pub renditions: Vec<Rendition>,
}

/// The whole video at one rung, or one whole audio track.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rendition {
    /// Kind of track.
    pub track: SegmentTrack,
    /// Folder name, such as `1080p`.
    pub name: String,
    /// RFC 6381 codec string.
    pub codecs: String,
    /// Ticks per second of every time below.
    pub timescale: u32,
    /// Width in pixels; 0 for sound.
    pub width: u32,
    /// Height in pixels; 0 for sound.
    pub height: u32,
    /// Frames per second of the pictures; `None` for sound.
    #[serde(default)]
    pub frame_rate: Option<Rational>,
    /// Peak rate of the rung in bits per second.
    #[serde(default)]
    pub max_bitrate_bps: u64,
    /// Number of channels; 0 for pictures.
    pub channels: u16,
    /// The audio track's label; `None` for pictures.
    #[serde(default)]
    pub label: Option<AudioTrackLabel>,
    /// Initialization segment, relative to the destination.
    pub init: String,
    /// Bytes of the initialization segment.
    pub init_bytes: u64,
    /// Media segments in order, contiguous from 0.
    pub media_segments: Vec<MediaSegmentRef>,
}

impl Rendition {
    /// Returns the length in ticks of the rendition's timescale.
    pub fn duration_ticks(&self) -> u64 {
        self.media_segments.iter().map(|s| s.duration_ticks).sum()
    }

    /// Returns the bytes of the media segments.
    pub fn bytes(&self) -> u64 {
        self.media_segments.iter().map(|s| s.bytes).sum()
    }
}

/// Merges the parts of one video, in any order, into a ladder.
///
/// # Errors
/// Returns an [`Error`] if the parts do not join.
pub fn merge(mut parts: Vec<Part>) -> Result<HlsLadder, Error> {
    parts.sort_by_key(|part| {
        (part.segment.track == SegmentTrack::Audio, part.segment.first_frame, part.segment.index)
    });
    let first = parts.first().ok_or(Error::Empty)?;
    let (destination, title) = (first.destination.clone(), first.segment.clone());
    for part in &parts {
        same_title(&title, &destination, part)?;
    }
    let video: Vec<&Part> = parts.iter().filter(|part| part.segment.track == SegmentTrack::Video).collect();
    let mut renditions = Vec::new();
    if !video.is_empty() {
        covers(&title, &video)?;
        renditions.extend(join(&title, &video)?);
    }
    let mut tracks: BTreeMap<u32, Vec<&Part>> = BTreeMap::new();
    for part in parts.iter().filter(|part| part.segment.track == SegmentTrack::Audio) {
        tracks.entry(part.segment.index).or_default().push(part);
    }
    for (index, runs) in tracks {
        if runs.len() > 1 {
            return Err(Error::DuplicateAudio { source_uri: title.source, index });
        }
        renditions.extend(join(&title, &runs)?);
    }
    let duration_ms = title.timebase.to_ms(i64::try_from(title.title_frames).unwrap_or(i64::MAX));
    // One FFmpeg run decodes for all rungs of a row.
    let damaged =
        |part: &Part| part.renditions.iter().map(|rendition| rendition.damaged_frames).max().unwrap_or(0);
    let damaged_frames = parts.iter().map(damaged).sum();
    Ok(HlsLadder {
        destination,
        source: title.source,
        duration_ms,
        lost_ms: title.lost_ms,
        damaged_frames,
        renditions,
    })
}

/// Merges the part of a video that can be played so far: its video rows up to the first missing one, and as
/// much of its sound. `None` if nothing can be played: the first video row is missing, or one of the `sounds`
/// audio tracks.
///
/// # Errors
/// Returns the errors of [`merge`], for the existing parts.
pub fn merge_begin(parts: &[Part], sounds: usize) -> Result<Option<HlsLadder>, Error> {
    let (mut pictures, mut sound): (Vec<Part>, Vec<Part>) =
        parts.iter().cloned().partition(|part| part.segment.track == SegmentTrack::Video);
    pictures.sort_by_key(|part| part.segment.first_frame);
    let mut frames = 0;
    let begin = pictures.iter().take_while(|part| {
        let joins = part.segment.first_frame == frames;
        frames += part.segment.frames;
        joins
    });
    let rows = begin.count();
    pictures.truncate(rows);
    let Some(title) = pictures.first().map(|part| part.segment.clone()).filter(|_| sound.len() == sounds)
    else {
        return Ok(None);
    };
    let end: u64 = pictures.iter().map(|part| part.segment.frames).sum();
    if end < title.title_frames {
        // Media segments with the same number start at the same time on every rendition.
        let known = u32::try_from(end.div_ceil(u64::from(title.media_segment_frames))).unwrap_or(u32::MAX);
        for rendition in sound.iter_mut().flat_map(|part| &mut part.renditions) {
            rendition.media_segments.retain(|media_segment| media_segment.number < known);
        }
        // The merge treats these rows as the whole video.
        pictures.iter_mut().chain(&mut sound).for_each(|part| part.segment.title_frames = end);
    }
    merge(pictures.into_iter().chain(sound).collect()).map(Some)
}

/// Refuses parts of another source, plan, clock or destination.
fn same_title(title: &Segment, destination: &str, part: &Part) -> Result<(), Error> {
    let other = &part.segment;
    if other.source != title.source {
        return Err(Error::TwoSources { first: title.source.clone(), second: other.source.clone() });
    }
    if part.destination != destination {
        return Err(Error::TwoDestinations {
            first: destination.to_owned(),
            second: part.destination.clone(),
        });
    }
    let clock = |s: &Segment| (s.etag.clone(), s.timebase, s.title_frames, s.media_segment_frames);
    if clock(other) != clock(title) {
        return Err(Error::TwoPlans { source_uri: title.source.clone() });
    }
    Ok(())
}

/// Checks that the sorted video rows cover the grid exactly once.
fn covers(title: &Segment, video: &[&Part]) -> Result<(), Error> {
    let mut next = 0;
    for part in video {
        let segment = &part.segment;
        if segment.first_frame > next {
            return Err(Error::Gap {
                source_uri: title.source.clone(),
                first_frame: next,
                end_frame: segment.first_frame,
            });
        }
        if segment.first_frame < next {
            return Err(Error::Overlap {
                source_uri: title.source.clone(),
                index: segment.index,
                first_frame: segment.first_frame,
            });
        }
        next += segment.frames;
    }
    if next != title.title_frames {
        return Err(Error::Gap {
            source_uri: title.source.clone(),
            first_frame: next,
            end_frame: title.title_frames,
        });
    }
    Ok(())
}

/// Joins the parts at each rung. Every part must have the same rungs with the same decoder configuration.
fn join(title: &Segment, parts: &[&Part]) -> Result<Vec<Rendition>, Error> {
    let Some(first) = parts.first() else { return Ok(Vec::new()) };
    let mut joined: Vec<Rendition> =
        first.renditions.iter().map(|r| empty(&first.segment, title.timebase, r)).collect();
    for part in parts {
        if part.renditions.len() != joined.len() {
            return Err(Error::Rungs { source_uri: title.source.clone(), index: part.segment.index });
        }
        for (whole, piece) in joined.iter_mut().zip(&part.renditions) {
            append(whole, part, piece)?;
        }
    }
    Ok(joined)
}

fn empty(segment: &Segment, timebase: Rational, piece: &PartRendition) -> Rendition {
    let track = segment.track;
    // Parts of older versions may have no label.
    let unlabelled =
        || AudioTrackLabel { track: segment.index, language: None, title: None, role: None, default: false };
    let label = piece.label.clone().or_else(|| (track == SegmentTrack::Audio).then(unlabelled));
    Rendition {
        track,
        name: piece.name.clone(),
        codecs: piece.codecs.clone(),
        timescale: piece.timescale,
        width: piece.width,
        height: piece.height,
        max_bitrate_bps: piece.max_bitrate_bps,
        frame_rate: (track == SegmentTrack::Video).then(|| timebase.inverse()),
        channels: piece.channels,
        label,
        init: piece.init.clone(),
        init_bytes: piece.init_bytes,
        media_segments: Vec::new(),
    }
}

fn append(whole: &mut Rendition, part: &Part, piece: &PartRendition) -> Result<(), Error> {
    let segment = &part.segment;
    if piece.name != whole.name {
        return Err(Error::Rungs { source_uri: segment.source.clone(), index: segment.index });
    }
    // Initialization segments are named by their content: another name means another decoder configuration.
    if (&piece.init, piece.timescale) != (&whole.init, whole.timescale) {
        return Err(Error::DecoderConfiguration {
            rendition: whole.name.clone(),
            index: segment.index,
            expected: whole.init.clone(),
            found: piece.init.clone(),
        });
    }
    for media_segment in &piece.media_segments {
        let (number, start) =
            whole.media_segments.last().map_or((0, 0), |s| (s.number + 1, s.start_ticks + s.duration_ticks));
        if media_segment.number != number || media_segment.start_ticks != start {
            return Err(Error::MediaSegment {
                rendition: whole.name.clone(),
                expected: number,
                expected_ticks: start,
                found: media_segment.number,
                found_ticks: media_segment.start_ticks,
            });
        }
        whole.media_segments.push(media_segment.clone());
    }
    if segment.track == SegmentTrack::Video {
        // Integers throughout: frames / rate == ticks / timescale.
        let ticks: u64 = piece.media_segments.iter().map(|s| s.duration_ticks).sum();
        let rate = segment.timebase.inverse();
        let frames = u128::from(ticks) * u128::from(rate.num())
            / (u128::from(piece.timescale) * u128::from(rate.den()));
        if frames != u128::from(segment.frames) {
            return Err(Error::Frames {
                rendition: whole.name.clone(),
                index: segment.index,
                expected: segment.frames,
                found: frames,
            });
        }
    }
    Ok(())
}

/// Reason why parts do not join.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("no parts to merge: the statement selected no rows")]
    Empty,
    #[error(
        "hls_ladder was given parts of two sources, {first} and {second}: add GROUP BY and a destination that depends on the source"
    )]
    TwoSources { first: String, second: String },
    #[error(
        "hls_ladder was given parts in two destinations, {first} and {second}: add GROUP BY the destination"
    )]
    TwoDestinations { first: String, second: String },
    #[error(
        "parts of {source_uri} come from different plans or versions of it: use one segments() call for all of them"
    )]
    TwoPlans { source_uri: String },
    #[error(
        "parts of {source_uri} leave a gap: frames {first_frame} to {end_frame} are in none; merge all rows of segments()"
    )]
    Gap { source_uri: String, first_frame: u64, end_frame: u64 },
    #[error(
        "parts of {source_uri} overlap: segment {index} starts at frame {first_frame}, which an earlier one holds already"
    )]
    Overlap { source_uri: String, index: u32, first_frame: u64 },
    #[error("sound track {index} of {source_uri} is there twice")]
    DuplicateAudio { source_uri: String, index: u32 },
    #[error(
        "segment {index} of {source_uri} was encoded with other rungs than the first: use one ladder for all rows"
    )]
    Rungs { source_uri: String, index: u32 },
    #[error(
        "segment {index} at {rendition} has another decoder configuration ({found}) than the first ({expected})"
    )]
    DecoderConfiguration { rendition: String, index: u32, expected: String, found: String },
    #[error(
        "media segments of {rendition} do not join: number {expected} at tick {expected_ticks} was due, {found} at {found_ticks} came"
    )]
    MediaSegment { rendition: String, expected: u32, expected_ticks: u64, found: u32, found_ticks: u64 },
    #[error("segment {index} at {rendition} holds {found} frames, not {expected}")]
    Frames { rendition: String, index: u32, expected: u64, found: u128 },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::DecoderConfiguration { .. } | Self::MediaSegment { .. } | Self::Frames { .. } => {
                ErrorKind::Bug
            }
            _ => ErrorKind::BadInput,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAMES_PER_MEDIA_SEGMENT: u64 = 100;

    fn rate() -> Rational {
        Rational::new(25, 1).unwrap()
    }

    fn segment(track: SegmentTrack, index: u32, first_frame: u64, frames: u64, title_frames: u64) -> Segment {
        Segment {
            source: "file:///talk.mp4".to_owned(),
            etag: "e".to_owned(),
            track,
            index,
            first_frame,
            frames,
            timebase: rate().inverse(),
            start_ms: 0,
            duration_ms: 0,
            media_segment_frames: 100,
            title_frames,
            lost_ms: 0,
            deinterlace: Default::default(),
        }
    }

    /// Media segments as the packager makes them of these frames at 12,800 ticks a second.
    fn rendition(name: &str, first_frame: u64, frames: u64) -> PartRendition {
        const FRAME_TICKS: u64 = 512;
        let end = first_frame + frames;
        let starts = (first_frame..end).step_by(usize::try_from(FRAMES_PER_MEDIA_SEGMENT).unwrap());
        let media_segments = starts.map(|start| MediaSegmentRef {
            number: u32::try_from(start / FRAMES_PER_MEDIA_SEGMENT).unwrap(),
            path: format!("{name}/{start}.m4s"),
            start_ticks: start * FRAME_TICKS,
            duration_ticks: (end - start).min(FRAMES_PER_MEDIA_SEGMENT) * FRAME_TICKS,
            bytes: 1000 + start,
        });
        PartRendition {
            key: format!("{name}-{first_frame}"),
            name: name.to_owned(),
            codecs: "avc1.64001f".to_owned(),
            timescale: 12_800,
            width: 1280,
            height: 720,
            max_bitrate_bps: 2_800_000,
            channels: 0,
            label: None,
            init: format!("{name}/init.mp4"),
            init_bytes: 800,
            media_segments: media_segments.collect(),
            encode_ms: 1,
            host: "h".to_owned(),
            damaged_frames: 0,
            encoded: true,
        }
    }

    fn part(index: u32, first_frame: u64, frames: u64, title_frames: u64) -> Part {
        Part {
            destination: "file:///out".to_owned(),
            segment: segment(SegmentTrack::Video, index, first_frame, frames, title_frames),
            renditions: ["720p", "480p"].map(|name| rendition(name, first_frame, frames)).to_vec(),
        }
    }

    /// Parts of a video that is cut into runs of these many media segments, and a last frame count.
    fn parts(runs: &[u64], tail: u64) -> Vec<Part> {
        let title = runs.iter().sum::<u64>() * FRAMES_PER_MEDIA_SEGMENT + tail;
        let mut first = 0;
        let lengths = runs.iter().map(|run| run * FRAMES_PER_MEDIA_SEGMENT).chain((tail > 0).then_some(tail));
        lengths
            .enumerate()
            .map(|(index, frames)| {
                let part = part(u32::try_from(index).unwrap(), first, frames, title);
                first += frames;
                part
            })
            .collect()
    }

    proptest! {
        /// The ladder does not depend on the cuts or on the order of the parts.
        #[test]
        fn any_split_in_any_order_merges_to_the_same_ladder(
            runs in prop::collection::vec(1_u64..4, 1..8),
            tail in 0_u64..FRAMES_PER_MEDIA_SEGMENT,
            rotate in 0_usize..8,
        ) {
            let total = runs.iter().sum::<u64>();
            let whole = merge(parts(&[total], tail)).unwrap();
            let mut split = parts(&runs, tail);
            let turn = rotate % split.len();
            split.rotate_left(turn);
            prop_assert_eq!(merge(split).unwrap(), whole);
        }

        /// A missing part is always detected.
        #[test]
        fn a_lost_part_is_refused(runs in prop::collection::vec(1_u64..4, 2..8), lost in 0_usize..8) {
            let mut split = parts(&runs, 7);
            split.remove(lost % split.len());
            let refused = matches!(merge(split), Err(Error::Gap { .. }));
            prop_assert!(refused, "a lost part was overlooked");
        }
    }

    #[test]
    fn parts_that_do_not_join_are_refused() {
        let good = parts(&[2, 2], 30);
        assert!(matches!(merge(Vec::new()), Err(Error::Empty)));
        let with = |change: fn(&mut Vec<Part>)| {
            let mut bad = good.clone();
            change(&mut bad);
            merge(bad).unwrap_err()
        };
        assert!(matches!(with(|p| p.push(p[1].clone())), Error::Overlap { .. }));
        assert!(matches!(with(|p| p[1].segment.source.push('x')), Error::TwoSources { .. }));
        assert!(matches!(with(|p| p[1].segment.etag.push('x')), Error::TwoPlans { .. }));
        assert!(matches!(with(|p| p[1].destination.push('x')), Error::TwoDestinations { .. }));
        assert!(matches!(with(|p| p[1].renditions.truncate(1)), Error::Rungs { .. }));
        assert!(matches!(with(|p| p[1].renditions.reverse()), Error::Rungs { .. }));
        assert!(matches!(with(|p| p[1].renditions[0].init.push('x')), Error::DecoderConfiguration { .. }));
        assert!(matches!(
            with(|p| p[1].renditions[0].media_segments[0].number += 1),
            Error::MediaSegment { .. }
        ));
        assert!(matches!(
            with(|p| p[2].renditions[0].media_segments[0].duration_ticks -= 512),
            Error::Frames { .. }
        ));
    }

    #[test]
    fn sound_tracks_follow_the_pictures_and_come_once() {
        let mut all = parts(&[2], 0);
        let audio = |index| Part {
            destination: "file:///out".to_owned(),
            segment: segment(SegmentTrack::Audio, index, 0, 205, 200),
            renditions: vec![rendition(&format!("audio-{index}"), 0, 205)],
        };
        all.insert(0, audio(1));
        all.insert(0, audio(0));
        let names: Vec<String> = merge(all.clone()).unwrap().renditions.into_iter().map(|r| r.name).collect();
        assert_eq!(names, ["720p", "480p", "audio-0", "audio-1"]);
        all.push(audio(1));
        assert!(matches!(merge(all), Err(Error::DuplicateAudio { index: 1, .. })));
    }

    #[test]
    fn what_can_be_played_ends_where_a_row_is_missing() {
        let whole = parts(&[2, 1, 1], 30);
        let sound = Part {
            destination: "file:///out".to_owned(),
            segment: segment(SegmentTrack::Audio, 0, 0, 530, 430),
            renditions: vec![rendition("audio-0", 0, 530)],
        };
        let numbers = |rows: &[usize], sound: Option<&Part>, sounds: usize| {
            let known: Vec<Part> = rows.iter().map(|row| whole[*row].clone()).chain(sound.cloned()).collect();
            let ladder = merge_begin(&known, sounds).unwrap()?;
            Some(ladder.renditions.iter().map(|r| r.media_segments.len()).collect::<Vec<_>>())
        };
        assert_eq!(numbers(&[1, 2], Some(&sound), 1), None, "the first row is missing");
        assert_eq!(numbers(&[0, 1], None, 1), None, "the sound is missing");
        assert_eq!(numbers(&[0], None, 0), Some(vec![2, 2]));
        assert_eq!(numbers(&[2, 0], Some(&sound), 1), Some(vec![2, 2, 2]));
        assert_eq!(numbers(&[1, 0, 3], Some(&sound), 1), Some(vec![3, 3, 3]));
        assert_eq!(
            numbers(&[3, 2, 1, 0], Some(&sound), 1),
            Some(vec![5, 5, 6]),
            "all of it, and its sound to the end"
        );
    }
}
