//! What is in a published folder? What the multivariant playlist leads to, each rendition joined into one file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Check, Flaw, tools::Packets};

/// A published ladder.
#[derive(Debug)]
pub struct Ladder {
    /// Its renditions with pictures, in the playlist's order.
    pub videos: Vec<Rendition>,
    /// Its renditions with sound alone.
    pub sounds: Vec<Rendition>,
    /// What encoding each segment at each rung gave.
    pub parts: Vec<Part>,
    _scratch: tempfile::TempDir,
}

/// One rendition.
#[derive(Debug)]
pub struct Rendition {
    /// Its folder's name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Width and height that the multivariant playlist tells.
    pub size: Option<(usize, usize)>,
    /// Frames per second that it tells.
    pub frame_rate: Option<f64>,
    /// Initialisation segments that its media playlist names.
    pub inits: Vec<String>,
    /// Media segments in order.
    pub media_segments: Vec<MediaSegment>,
    /// `EXT-X-TARGETDURATION`.
    pub target_seconds: u64,
    /// Initialisation segment and all media segments in one file.
    pub whole: PathBuf,
    /// Is it sound in Opus?
    pub is_opus: bool,
    /// Its coded frames.
    pub packets: Packets,
}

/// One media segment of a rendition.
#[derive(Debug)]
pub struct MediaSegment {
    /// Its file's name.
    pub name: String,
    /// `EXTINF`.
    pub seconds: f64,
    /// Where it begins in the file that has all of them.
    pub position: u64,
}

/// One segment at one rung, as its record tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The rendition.
    pub rendition: String,
    /// Its first frame.
    pub first_frame: u64,
    /// Its number of frames.
    pub frames: u64,
}

impl Ladder {
    /// Reads what a folder publishes.
    ///
    /// # Errors
    /// A flaw where playlists or what they lead to cannot be read.
    pub fn open(folder: &Path) -> Result<Self, Flaw> {
        let scratch = tempfile::tempdir().unwrap();
        let text = read(&folder.join("master.m3u8"))?;
        let master = m3u8_rs::parse_master_playlist_res(&text)
            .map_err(|e| Check::Playlists.flaw(format!("master: {e}")))?;
        let mut videos = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        // A variant for each group of sound leads to the same pictures.
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

    /// Parts of a rendition in order.
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
