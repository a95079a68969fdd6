//! Reader of a published folder: the files that the multivariant playlist leads to, each rendition joined
//! into one file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Check, Flaw, tools::Packets};

/// A published ladder.
#[derive(Debug)]
pub struct Ladder {
    /// Renditions with pictures, in the playlist's order.
    pub videos: Vec<Rendition>,
    /// Renditions with sound alone.
    pub sounds: Vec<Rendition>,
    /// Part records.
    pub parts: Vec<Part>,
    _scratch: tempfile::TempDir,
}

/// One rendition.
#[derive(Debug)]
pub struct Rendition {
    /// Name of its folder.
    pub name: String,
    /// Path of its folder.
    pub folder: PathBuf,
    /// Width and height, by the multivariant playlist.
    pub size: Option<(usize, usize)>,
    /// Frames per second, by the multivariant playlist.
    pub frame_rate: Option<f64>,
    /// Initialization segments that the media playlist names.
    pub inits: Vec<String>,
    /// Media segments in order.
    pub media_segments: Vec<MediaSegment>,
    /// `EXT-X-TARGETDURATION`.
    pub target_seconds: u64,
    /// Initialization segment and all media segments in one file.
    pub whole: PathBuf,
    /// Whether it is sound in Opus.
    pub is_opus: bool,
    /// Its encoded frames.
    pub packets: Packets,
}

/// One media segment of a rendition.
#[derive(Debug)]
pub struct MediaSegment {
    /// File name.
    pub name: String,
    /// `EXTINF`.
    pub seconds: f64,
    /// Position in the file that joins all media segments.
    pub position: u64,
}

/// One segment at one rung, by its part record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Name of the rendition.
    pub rendition: String,
    /// First frame.
    pub first_frame: u64,
    /// Number of frames.
    pub frames: u64,
}

impl Ladder {
    /// Reads a published folder.
    ///
    /// # Errors
    /// A flaw if a playlist or a file that it names cannot be read.
    pub fn open(folder: &Path) -> Result<Self, Flaw> {
        let scratch = tempfile::tempdir().unwrap();
        let text = read(&folder.join("master.m3u8"))?;
        let master = m3u8_rs::parse_master_playlist_res(&text)
            .map_err(|e| Check::Playlists.flaw(format!("master: {e}")))?;
        let mut videos = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        // A variant for each audio group leads to the same pictures.
        for variant in master.variants.iter().filter(|variant| seen.insert(variant.uri.clone())) {
            let mut rendition = Rendition::open(folder, &variant.uri, scratch.path())?;
            rendition.size = variant.resolution.map(|size| (size.width as usize, size.height as usize));
            rendition.frame_rate = variant.frame_rate;
            videos.push(rendition);
        }
        let mut uris: Vec<&String> =
            master.alternatives.iter().filter_map(|media| media.uri.as_ref()).collect();
        // A track without surround stands in that group too.
        uris.retain(|uri| seen.insert((*uri).clone()));
        let sounds = uris
            .into_iter()
            .map(|uri| Rendition::open(folder, uri, scratch.path()))
            .collect::<Result<_, _>>()?;
        let mut parts = Vec::new();
        for entry in
            fs::read_dir(folder.join("parts")).map_err(|e| Check::Frames.flaw(format!("parts: {e}")))?
        {
            parts.push(Part::parse(&read(&entry.unwrap().path())?));
        }
        parts.sort_by_key(|part: &Part| part.first_frame);
        Ok(Self { videos, sounds, parts, _scratch: scratch })
    }

    /// Returns the parts of a rendition in order.
    pub fn parts_of<'a>(&'a self, rendition: &'a Rendition) -> impl Iterator<Item = &'a Part> {
        self.parts.iter().filter(|part| part.rendition == rendition.name)
    }
}

impl Rendition {
    fn open(root: &Path, uri: &str, scratch: &Path) -> Result<Self, Flaw> {
        let path = root.join(uri);
        let folder = path.parent().unwrap().to_owned();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let playlist = m3u8_rs::parse_media_playlist_res(&read(&path)?)
            .map_err(|e| Check::Playlists.flaw(format!("{uri} is no media playlist: {e}")))?;
        let inits: Vec<String> =
            playlist.segments.iter().filter_map(|s| s.map.as_ref()).map(|map| map.uri.clone()).collect();
        let mut whole = Vec::new();
        for init in inits.iter().take(1) {
            whole.extend(read(&folder.join(init))?);
        }
        let mut media_segments = Vec::new();
        for media_segment in playlist.segments {
            let position = whole.len() as u64;
            whole.extend(read(&folder.join(&media_segment.uri))?);
            media_segments.push(MediaSegment {
                name: media_segment.uri,
                seconds: media_segment.duration.into(),
                position,
            });
        }
        let is_opus =
            whole.iter().take(4096).copied().collect::<Vec<u8>>().windows(4).any(|bytes| bytes == b"dOps");
        let joined = scratch.join(format!("{name}.mp4"));
        fs::write(&joined, whole).unwrap();
        let packets = Packets::of(&name, &joined)?;
        Ok(Self {
            name,
            folder,
            size: None,
            frame_rate: None,
            inits,
            media_segments,
            target_seconds: playlist.target_duration,
            whole: joined,
            is_opus,
            packets,
        })
    }
}

impl Part {
    fn parse(json: &[u8]) -> Self {
        let record: serde_json::Value = serde_json::from_slice(json).unwrap();
        let number = |name: &str| record["segment"][name].as_u64().unwrap();
        Self {
            rendition: record["rendition"]["name"].as_str().unwrap().to_owned(),
            first_frame: number("first_frame"),
            frames: number("frames"),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Flaw> {
    fs::read(path).map_err(|e| Check::Playlists.flaw(format!("cannot read {}: {e}", path.display())))
}
