//! Early playback: playlists that grow as rows finish, over the same objects that are published at the end.

use std::time::Duration;

use crate::{
    Result,
    package::{
        merge::{self, HlsLadder},
        parts::Part,
        playlists::{self, PlaylistKind},
        publish,
    },
    plan::segments::{Segment, SegmentTrack},
};
use spool_storage::{ObjectKind, Stores};

/// Name of the multivariant playlist and of every media playlist of early playback.
pub const EARLY_MASTER: &str = "early.m3u8";

/// Duration of an AAC frame at the lowest sample rate that is encoded. A media segment of sound may be longer
/// than one of video by this much.
const SOUND_FRAME_SECONDS: f64 = 1024.0 / 44_100.0;

/// The finished rows of one video.
#[derive(Debug)]
pub struct Live {
    sounds: usize,
    target_seconds: u64,
    parts: Vec<Part>,
}

impl Live {
    /// Creates the state for a video with these rows, of which none is finished; `None` without video rows.
    pub fn of(rows: &[Segment]) -> Option<Self> {
        let first = rows.iter().find(|row| row.track == SegmentTrack::Video)?;
        let seconds = f64::from(first.media_segment_frames) * first.timebase.to_f64();
        Some(Self {
            sounds: rows.iter().filter(|row| row.track == SegmentTrack::Audio).count(),
            target_seconds: ((seconds + SOUND_FRAME_SECONDS).round() as u64).max(1),
            parts: Vec::new(),
        })
    }

    /// Adds the part of a finished row. Adding the same row again changes nothing.
    pub fn add(&mut self, part: Part) {
        let row = |part: &Part| (part.segment.track, part.segment.index);
        if !self.parts.iter().any(|known| row(known) == row(&part)) {
            self.parts.push(part);
        }
    }

    /// Returns the ladder that can be played now, and its kind of playlist: ended if all rows are done, or if
    /// `ended`. `None` if nothing can be played.
    ///
    /// # Errors
    /// Returns an error if the parts do not join.
    pub fn ladder(&self, ended: bool) -> Result<Option<(HlsLadder, PlaylistKind)>> {
        let target_seconds = self.target_seconds;
        let pictures = || {
            self.parts.iter().map(|part| &part.segment).filter(|segment| segment.track == SegmentTrack::Video)
        };
        let whole = pictures()
            .next()
            .is_some_and(|row| pictures().map(|row| row.frames).sum::<u64>() == row.title_frames);
        let extent = if ended || whole {
            PlaylistKind::EventEnded { target_seconds }
        } else {
            PlaylistKind::EventOpen { target_seconds }
        };
        Ok(merge::merge_begin(&self.parts, self.sounds)?.map(|ladder| (ladder, extent)))
    }

    /// Returns the time between two versions of a playlist: half the target duration (RFC 8216 section
    /// 6.2.2).
    pub fn pause(&self) -> Duration {
        Duration::from_secs(self.target_seconds) / 2
    }
}

/// Writes the playlists of early playback: the media playlists first, so that a client that reads the
/// multivariant playlist can play all of it. Returns the multivariant playlist's URI.
///
/// # Errors
/// Returns an error if the store cannot be written.
pub async fn write(stores: &Stores, ladder: &HlsLadder, extent: PlaylistKind) -> Result<String> {
    let destination = stores.locate(&ladder.destination)?;
    let mut tracks = Vec::with_capacity(ladder.renditions.len());
    for rendition in &ladder.renditions {
        let mut track = publish::track(rendition);
        track.declared_bps = Some(rendition.max_bitrate_bps);
        track.uri = format!("{}/{EARLY_MASTER}", rendition.name);
        let text = playlists::media_playlist(&track, extent)?;
        let location = destination.child(&track.uri);
        // An earlier run may have advanced further: a playlist must not shrink for a player that has read it.
        let before =
            if matches!(extent, PlaylistKind::EventOpen { .. }) { location.read().await? } else { None };
        if !before.is_some_and(|(before, _)| before.starts_with(text.as_bytes())) {
            // Not cached, like the multivariant playlist, since it changes.
            location.put(text.into(), ObjectKind::MutablePlaylist).await?;
        }
        tracks.push(track);
    }
    let text = publish::multivariant(ladder, &tracks)?;
    let location = destination.child(EARLY_MASTER);
    location.put(text.into(), ObjectKind::MutablePlaylist).await?;
    Ok(location.uri().to_owned())
}

#[cfg(test)]
mod tests {
    use crate::{
        package::{merge::Rendition, parts::MediaSegmentRef},
        time::Rational,
    };
    use spool_storage::Stores;

    use super::*;

    fn ladder(destination: &str, media_segments: u32) -> HlsLadder {
        let media_segment = |number| MediaSegmentRef {
            number,
            path: format!("180p/{number:05}-0123456789abcdef.m4s"),
            start_ticks: u64::from(number) * 25_600,
            duration_ticks: 25_600,
            bytes: 10_000,
        };
        HlsLadder {
            destination: destination.to_owned(),
            source: "file:///talk.mp4".to_owned(),
            duration_ms: 10_000,
            lost_ms: 0,
            damaged_frames: 0,
            renditions: vec![Rendition {
                track: SegmentTrack::Video,
                name: "180p".to_owned(),
                codecs: "avc1.64001f".to_owned(),
                timescale: 12_800,
                width: 320,
                height: 180,
                max_bitrate_bps: 300_000,
                frame_rate: Some(Rational::new(25, 1).unwrap()),
                channels: 0,
                label: None,
                init: "180p/init-0123456789abcdef.mp4".to_owned(),
                init_bytes: 800,
                media_segments: (0..media_segments).map(media_segment).collect(),
            }],
        }
    }

    #[tokio::test]
    async fn what_a_player_has_read_does_not_become_less() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::from_env();
        let out = folder.path().join("out");
        let growing = PlaylistKind::EventOpen { target_seconds: 2 };
        let mut seen = Vec::new();
        // A second run starts again from the first row.
        for (media_segments, extent) in [
            (3, growing),
            (1, growing),
            (4, growing),
            (5, PlaylistKind::EventEnded { target_seconds: 2 }),
            (2, growing),
        ] {
            write(&stores, &ladder(out.to_str().unwrap(), media_segments), extent).await.unwrap();
            let text = std::fs::read_to_string(out.join("180p").join(EARLY_MASTER)).unwrap();
            seen.push((text.matches("#EXTINF").count(), text.contains("#EXT-X-ENDLIST")));
        }
        assert_eq!(seen, [(3, false), (3, false), (4, false), (5, true), (5, true)]);
        let master = std::fs::read_to_string(out.join(EARLY_MASTER)).unwrap();
        assert!(master.contains("180p/early.m3u8") && master.contains("BANDWIDTH=300000,"), "{master}");
    }
}
