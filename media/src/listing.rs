//! Listing of the videos in a folder or bucket, with the contents of each.

use futures::{StreamExt, TryStreamExt};

use crate::{
    Result,
    plan::{
        deinterlace::Deinterlace,
        timeline::{Timeline, TimelineCache},
    },
    source::probe::AudioTrack,
};
use spool_storage::ErrorKind;

/// FFmpeg's names of the transfer functions of high dynamic range: PQ (SMPTE ST 2084) and HLG (ARIB STD-B67).
const HDR_TRANSFERS: [&str; 2] = ["smpte2084", "arib-std-b67"];

/// Files of one pattern that are probed at a time.
const PROBES: usize = 4;

/// Most files that one pattern may match: each is opened and read.
const MOST_FILES: usize = 10_000;

/// The contents of one file. Unknown fields are `None`, such as those of a file that is no video.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "the columns of the SQL function, documented there")]
pub struct FileInfo {
    pub uri: String,
    pub etag: String,
    pub bytes: u64,
    pub container: Option<String>,
    pub duration_ms: Option<i64>,
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub rotation: Option<u16>,
    pub fps: Option<f64>,
    pub video_codec: Option<String>,
    pub pixel_format: Option<String>,
    pub hdr: Option<bool>,
    pub interlaced: Option<bool>,
    pub audio: Vec<AudioTrack>,
    pub error: Option<String>,
}

/// Failure to list a pattern.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pattern is malformed.
    #[error("{pattern:?} is not a pattern: {message}; write media('folder/*.mp4')")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The parser's message.
        message: String,
    },
    /// The pattern matches too many files.
    #[error("{pattern} names more than {limit} files: narrow it")]
    TooMany {
        /// The pattern.
        pattern: String,
        /// Most files that are allowed.
        limit: usize,
    },
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::BadInput
    }
}

/// Returns the contents of one file.
///
/// # Errors
/// Returns an error if the file cannot be read, or is not a video.
pub async fn file(timelines: &TimelineCache, uri: &str) -> Result<FileInfo> {
    Ok(info(&*timelines.open(uri, Deinterlace::default()).await?))
}

fn info(timeline: &Timeline) -> FileInfo {
    let video = timeline.source.probe.video.as_ref();
    let frames = i64::try_from(timeline.grid.frames).unwrap_or(i64::MAX);
    FileInfo {
        uri: timeline.source.source.redacted_uri(),
        etag: timeline.source.source.etag.clone(),
        bytes: timeline.source.source.bytes,
        container: Some(timeline.source.probe.format.clone()),
        duration_ms: Some(timeline.grid.rate.inverse().to_ms(frames)),
        width: video.map(|v| v.width),
        height: video.map(|v| v.height),
        rotation: video.map(|v| v.rotation),
        fps: video.map(|_| timeline.grid.rate.to_f64()),
        video_codec: video.map(|v| v.codec.clone()),
        pixel_format: video.map(|v| v.pixel_format.clone()),
        hdr: video
            .map(|v| v.color.transfer.as_deref().is_some_and(|transfer| HDR_TRANSFERS.contains(&transfer))),
        interlaced: video.map(|v| v.interlaced),
        audio: timeline.source.probe.audio.clone(),
        error: None,
    }
}

/// Returns the contents of the files that match a pattern, in the order of their names.
///
/// # Errors
/// Returns an error if the pattern is malformed or the folder cannot be listed. A file that is no video is a
/// row with its error.
pub async fn glob(timelines: &TimelineCache, pattern: &str) -> Result<Vec<FileInfo>> {
    let (folder, wildcard) = split(pattern);
    let Some(wildcard) = wildcard else { return Ok(vec![file(timelines, pattern).await?]) };
    let matcher = globset::GlobBuilder::new(wildcard)
        .literal_separator(true)
        .build()
        .map_err(|e| Error::Pattern { pattern: pattern.to_owned(), message: e.kind().to_string() })?
        .compile_matcher();
    let location = timelines.environment().stores.locate(folder)?;
    let mut names: Vec<String> = Vec::new();
    let mut entries = location.list();
    while let Some(entry) = entries.try_next().await? {
        if matcher.is_match(&entry.relative) {
            names.push(entry.relative);
        }
        if names.len() > MOST_FILES {
            return Err(Error::TooMany { pattern: pattern.to_owned(), limit: MOST_FILES }.into());
        }
    }
    names.sort();
    let files = futures::stream::iter(names).map(|name| {
        let location = location.child(&name);
        async move {
            match file(timelines, location.uri()).await {
                Ok(info) => Ok(info),
                Err(error) if error.kind() == ErrorKind::BadInput => {
                    Ok(unreadable(location.uri(), &error.to_string()))
                }
                Err(error) => Err(error),
            }
        }
    });
    files.buffered(PROBES).try_collect().await
}

/// Returns the folder of a pattern, and the rest of it if that has a wildcard.
fn split(pattern: &str) -> (&str, Option<&str>) {
    match pattern.find(['*', '?', '[', '{']) {
        None => (pattern, None),
        Some(wildcard) => {
            let folder = pattern[..wildcard].rfind('/').map_or(0, |slash| slash + 1);
            let (folder, rest) = pattern.split_at(folder);
            (if folder.is_empty() { "./" } else { folder }, Some(rest))
        }
    }
}

fn unreadable(uri: &str, error: &str) -> FileInfo {
    FileInfo {
        uri: uri.to_owned(),
        etag: String::new(),
        bytes: 0,
        container: None,
        duration_ms: None,
        width: None,
        height: None,
        rotation: None,
        fps: None,
        video_codec: None,
        pixel_format: None,
        hdr: None,
        interlaced: None,
        audio: Vec::new(),
        error: Some(error.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_splits_at_the_last_folder_before_its_first_wildcard() {
        assert_eq!(split("s3://b/a/x*.mp4"), ("s3://b/a/", Some("x*.mp4")));
        assert_eq!(split("s3://b/**/x.mp4"), ("s3://b/", Some("**/x.mp4")));
        assert_eq!(split("*.mp4"), ("./", Some("*.mp4")));
        assert_eq!(split("a/b.mp4"), ("a/b.mp4", None));
    }
}
