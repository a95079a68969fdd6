//! What can be played while the rest is still encoded? Playlists that grow with the rows that are done, over the same objects that are
//! published at the end.

use crate::{
    Result,
    machine::Machine,
    merge::{self, HlsLadder},
    parts::Part,
    playlists::{self, Extent},
    publish,
    segments::{Segment, SegmentTrack},
    store::Content,
};

/// Name of the multivariant playlist and of every media playlist of what grows.
pub const LIVE: &str = "live.m3u8";

/// A frame of sound at the lowest rate that is encoded: by so much a media segment of sound may be longer than one of pictures.
const SOUND_FRAME_SECONDS: f64 = 1024.0 / 8000.0;

/// What is done of one title.
#[derive(Debug)]
pub struct Live {
    sounds: usize,
    target_seconds: u64,
    parts: Vec<Part>,
}

impl Live {
    /// Nothing yet of a title with these rows; `None` for one without pictures, which is one row.
    pub fn of(rows: &[Segment]) -> Option<Self> {
        let first = rows.iter().find(|row| row.track == SegmentTrack::Video)?;
        let seconds = f64::from(first.media_segment_frames) * first.timebase.to_f64();
        Some(Self {
            sounds: rows.iter().filter(|row| row.track == SegmentTrack::Audio).count(),
            target_seconds: ((seconds + SOUND_FRAME_SECONDS).round() as u64).max(1),
            parts: Vec::new(),
        })
    }

    /// Takes in what a row gave. The same row again changes nothing.
    pub fn add(&mut self, part: Part) {
        let row = |part: &Part| (part.segment.track, part.segment.index);
        if !self.parts.iter().any(|known| row(known) == row(&part)) {
            self.parts.push(part);
        }
    }

    /// What can be played by now, and its extent; `None` where nothing can.
    ///
    /// # Errors
    /// Where the parts do not join.
    pub fn ladder(&self, ended: bool) -> Result<Option<(HlsLadder, Extent)>> {
        let target_seconds = self.target_seconds;
        let extent = if ended { Extent::Grown { target_seconds } } else { Extent::Growing { target_seconds } };
        Ok(merge::merge_begin(&self.parts, self.sounds)?.map(|ladder| (ladder, extent)))
    }
}

/// Writes the playlists of what can be played: the media playlists first, so that whoever can read the multivariant one can play all of it.
/// Gives its URI.
///
/// # Errors
/// Where the store cannot be written.
pub async fn write(machine: &Machine, ladder: &HlsLadder, extent: Extent) -> Result<String> {
    let destination = machine.stores.locate(&ladder.destination)?;
    let mut tracks = Vec::with_capacity(ladder.renditions.len());
    for rendition in &ladder.renditions {
        let mut track = publish::track(rendition);
        track.declared_bps = Some(rendition.max_bitrate_bps);
        track.uri = format!("{}/{LIVE}", rendition.name);
        let text = playlists::media_playlist(&track, extent)?;
        // Not to be kept by anybody, as the multivariant one: it changes.
        destination.child(&track.uri).put(text.into(), Content::MultivariantPlaylist).await?;
        tracks.push(track);
    }
    let text = publish::multivariant(ladder, &tracks)?;
    let location = destination.child(LIVE);
    location.put(text.into(), Content::MultivariantPlaylist).await?;
    Ok(location.uri().to_owned())
}
