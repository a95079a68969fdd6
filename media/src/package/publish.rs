//! Publishing: checks that every object exists, then writes the playlists, the multivariant playlist last.

use std::collections::HashMap;

use bytes::Bytes;
use futures::TryStreamExt;
use tracing::info;

use crate::{
    Result,
    package::{
        merge::{HlsLadder, Rendition},
        part_store,
        parts::playlist_path,
        playlists::{self, AudioEntry, MediaEntry, PlaylistKind, RenditionTrack, VideoEntry},
    },
    plan::{
        audio_label::AudioTrackLabel,
        ladder::{SURROUND, audio_name},
        segments::SegmentTrack,
    },
    source::language,
    time::Rational,
};
use spool_storage::{ErrorKind, Location, ObjectKind, PutOutcome, Stores};

/// Name of the multivariant playlist: the one object that changes.
pub const MASTER: &str = "master.m3u8";

/// Object that [`check_writable`] writes and deletes.
const TRIAL: &str = "writable.tmp";

/// Prefix of an audio `GROUP-ID`.
const AUDIO_GROUP: &str = "audio";

/// The published ladder.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Published {
    /// URI of the multivariant playlist.
    pub master: String,
    /// Length of the video in milliseconds.
    pub duration_ms: i64,
    /// Bytes of all media and initialization segments.
    pub bytes: u64,
    /// Milliseconds that are missing from the source, according to its declared length.
    #[serde(default)]
    pub lost_ms: i64,
    /// Frames of the source that were decoded with errors, or not at all.
    #[serde(default)]
    pub damaged_frames: u64,
    /// Renditions.
    pub renditions: Vec<PublishedRendition>,
}

/// A published rendition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PublishedRendition {
    /// Folder name, such as `1080p`.
    pub name: String,
    /// RFC 6381 codec string.
    pub codecs: String,
    /// Width in pixels; 0 for sound.
    pub width: u32,
    /// Height in pixels; 0 for sound.
    pub height: u32,
    /// Frames per second; `None` for sound.
    #[serde(default)]
    pub frame_rate: Option<Rational>,
    /// Average rate of the rendition alone, in bits per second.
    pub average_bps: u64,
    /// Peak rate of the rendition alone in bits per second, over 0.5 to 1.5 target durations.
    pub peak_bps: u64,
    /// Number of media segments.
    pub media_segments: u64,
    /// Bytes of the media segments.
    pub bytes: u64,
    /// Media playlist, relative to the multivariant playlist.
    pub playlist: String,
}

/// Failure to publish a ladder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object that the ladder names is not in the store, or has another size.
    #[error(
        "{uri} should hold {expected} bytes but {found}: run the transcode again, it encodes only what is missing"
    )]
    Object {
        /// The object.
        uri: String,
        /// Bytes that were written.
        expected: u64,
        /// Description of the object that was found.
        found: String,
    },
    /// Another job published meanwhile.
    #[error(
        "{uri} was published by another job meanwhile and is left as that one made it: run this one again to replace it"
    )]
    Superseded {
        /// The multivariant playlist.
        uri: String,
    },
    /// The ladder has no renditions.
    #[error("there is nothing to publish at {uri}: the ladder has no renditions")]
    Nothing {
        /// The destination.
        uri: String,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            // Not transient: a retry would read the newer playlist as the one to replace, and missing objects
            // do not come back by publishing.
            Self::Object { .. } | Self::Superseded { .. } | Self::Nothing { .. } => ErrorKind::BadInput,
        }
    }
}

/// Publishes a ladder, the multivariant playlist last. Publishing the same ladder again changes nothing.
///
/// # Errors
/// Returns an error if an object is missing, the store cannot be written, or another job published meanwhile.
pub async fn run(stores: &Stores, ladder: &HlsLadder) -> Result<Published> {
    let destination = stores.locate(&ladder.destination)?;
    if ladder.renditions.is_empty() {
        return Err(Error::Nothing { uri: destination.to_string() }.into());
    }
    let master = destination.child(MASTER);
    // Read first: the version to replace is the one from before this run.
    let before = master.read().await?;
    for rendition in &ladder.renditions {
        check_objects(&destination, rendition).await?;
    }
    let mut tracks = Vec::with_capacity(ladder.renditions.len());
    for rendition in &ladder.renditions {
        let mut track = track(rendition);
        let text = playlists::media_playlist(&track, PlaylistKind::Vod)?;
        track.uri = playlist_path(&rendition.name, text.as_bytes());
        destination.child(&track.uri).put(text.into(), ObjectKind::MediaPlaylist).await?;
        tracks.push(track);
    }
    let text = multivariant(ladder, &tracks)?;
    let unchanged = before.as_ref().is_some_and(|(bytes, _)| bytes == text.as_bytes());
    if !unchanged {
        let replaced = master
            .replace(
                text.clone().into(),
                ObjectKind::MultivariantPlaylist,
                before.as_ref().map(|(_, version)| version),
            )
            .await?;
        // A retried replace may find its own playlist.
        if replaced == PutOutcome::PreconditionFailed
            && master.read().await?.is_none_or(|(bytes, _)| bytes != text.as_bytes())
        {
            return Err(Error::Superseded { uri: master.to_string() }.into());
        }
    }
    info!(%master, renditions = tracks.len(), unchanged, "ladder published");
    let renditions: Result<Vec<_>> =
        ladder.renditions.iter().zip(tracks).map(|(rendition, track)| published(rendition, track)).collect();
    Ok(Published {
        lost_ms: ladder.lost_ms,
        damaged_frames: ladder.damaged_frames,
        master: master.uri().to_owned(),
        duration_ms: ladder.duration_ms,
        bytes: ladder.renditions.iter().map(|r| r.bytes() + r.init_bytes).sum(),
        renditions: renditions?,
    })
}

/// Checks that a destination can be written, before hours of encoding.
///
/// # Errors
/// Returns the store's error if it cannot be written.
pub async fn check_writable(destination: &Location) -> Result<()> {
    let trial = destination.child(TRIAL);
    trial.put(Bytes::new(), ObjectKind::Record).await?;
    Ok(trial.delete().await?)
}

/// Checks that every object of a rendition exists with its size. One listing instead of a request per object.
async fn check_objects(destination: &Location, rendition: &Rendition) -> Result<()> {
    let folder = destination.child(&rendition.name);
    let found: HashMap<String, u64> = folder
        .list()
        .map_ok(|entry| (format!("{}/{}", rendition.name, entry.relative), entry.bytes))
        .try_collect()
        .await?;
    let objects = rendition.media_segments.iter().map(|s| (&s.path, s.bytes));
    for (path, expected) in objects.chain([(&rendition.init, rendition.init_bytes)]) {
        let bytes = found.get(path);
        if bytes != Some(&expected) {
            // Invalidates the records, so that the next transcode encodes the segments again.
            let is_gone = |other: &str| other == path || !found.contains_key(other);
            part_store::invalidate(destination, is_gone, &rendition.name).await?;
            let found = bytes.map_or_else(|| "is not there".to_owned(), |bytes| format!("holds {bytes}"));
            return Err(Error::Object { uri: destination.child(path).to_string(), expected, found }.into());
        }
    }
    Ok(())
}

/// Returns a rendition's track for playlists. Its `uri` is empty: the name of a media playlist follows from
/// its text.
pub(crate) fn track(rendition: &Rendition) -> RenditionTrack {
    let inside = |path: &str| path.strip_prefix(&format!("{}/", rendition.name)).unwrap_or(path).to_owned();
    RenditionTrack {
        name: rendition.name.clone(),
        uri: String::new(),
        codecs: rendition.codecs.clone(),
        timescale: rendition.timescale,
        init_uri: inside(&rendition.init),
        entries: rendition
            .media_segments
            .iter()
            .map(|s| MediaEntry { uri: inside(&s.path), duration_ticks: s.duration_ticks, bytes: s.bytes })
            .collect(),
        declared_bps: None,
    }
}

fn published(rendition: &Rendition, track: RenditionTrack) -> Result<PublishedRendition> {
    Ok(PublishedRendition {
        name: rendition.name.clone(),
        codecs: rendition.codecs.clone(),
        width: rendition.width,
        height: rendition.height,
        frame_rate: rendition.frame_rate,
        average_bps: playlists::average_bps(&track)?,
        peak_bps: playlists::peak_bps(&track)?,
        media_segments: track.entries.len() as u64,
        bytes: rendition.bytes(),
        playlist: track.uri,
    })
}

/// Returns the text of the multivariant playlist. There is an audio group for each codec and channel layout,
/// and each group has all audio tracks: a variant names its group, and a player chooses a track of it. A
/// track without surround is in a surround group as stereo.
pub(crate) fn multivariant(ladder: &HlsLadder, tracks: &[RenditionTrack]) -> Result<String> {
    let pairs = || ladder.renditions.iter().zip(tracks);
    let videos: Vec<VideoEntry> = pairs()
        .filter_map(|(rendition, track)| {
            let frame_rate = rendition.frame_rate?;
            Some(VideoEntry {
                track: track.clone(),
                width: rendition.width,
                height: rendition.height,
                frame_rate,
            })
        })
        .collect();
    let sounds: Vec<Sound<'_>> =
        pairs().filter_map(|(rendition, track)| Sound::of(rendition, track)).collect();
    let mut labels: Vec<&AudioTrackLabel> = sounds.iter().map(|sound| sound.label).collect();
    labels.dedup_by_key(|label| label.track);
    let of_pictures = || labels.iter().find(|label| label.role.is_none());
    let default = labels
        .iter()
        .find(|label| label.default)
        .or_else(of_pictures)
        .or(labels.first())
        .map(|label| label.track);
    let names = names(&labels);
    let mut groups: Vec<&str> = Vec::new();
    for sound in &sounds {
        if !groups.contains(&sound.kind) {
            groups.push(sound.kind);
        }
    }
    let mut audios = Vec::new();
    for kind in groups {
        for (label, name) in labels.iter().zip(&names) {
            let of_kind = |kind: &str| {
                sounds.iter().find(|sound| sound.label.track == label.track && sound.kind == kind)
            };
            let Some(sound) = of_kind(kind).or_else(|| of_kind(kind.strip_suffix(SURROUND)?)) else {
                continue;
            };
            audios.push(AudioEntry {
                track: RenditionTrack { name: name.clone(), ..sound.track.clone() },
                group: format!("{AUDIO_GROUP}{kind}"),
                language: label.language.as_deref().and_then(language::bcp_47),
                channels: sound.rendition.channels,
                role: label.role,
                default: default == Some(label.track),
            });
        }
    }
    Ok(playlists::multivariant_playlist(&videos, &audios)?)
}

/// An audio rendition.
struct Sound<'a> {
    rendition: &'a Rendition,
    track: &'a RenditionTrack,
    label: &'a AudioTrackLabel,
    /// Suffix of its name after the track, such as `-opus-5.1`; empty for stereo in AAC.
    kind: &'a str,
}

impl<'a> Sound<'a> {
    fn of(rendition: &'a Rendition, track: &'a RenditionTrack) -> Option<Self> {
        let label = rendition.label.as_ref().filter(|_| rendition.track == SegmentTrack::Audio)?;
        let kind = rendition.name.strip_prefix(&audio_name(label.track)).unwrap_or_default();
        Some(Self { rendition, track, label, kind })
    }
}

/// Returns the names of the tracks, made unique.
fn names(labels: &[&AudioTrackLabel]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for label in labels {
        let name = label.name();
        let mut other = name.clone();
        let mut number = 2;
        while names.contains(&other) {
            other = format!("{name} {number}");
            number += 1;
        }
        names.push(other);
    }
    names
}
