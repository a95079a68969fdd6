//! Extracts every URI of a playlist, for garbage collection.

use std::collections::HashSet;

use super::Error;

/// URIs in a playlist's text, as written: mostly relative ones, in order, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum References {
    /// A multivariant playlist: media playlists.
    Multivariant(Vec<String>),
    /// A media playlist: init and media segments.
    Media(Vec<String>),
}

/// Returns every URI in the text of a playlist, including playlists that Spool did not write.
///
/// Every line that is no tag counts, and every `URI` attribute of a tag: if one were missed, garbage
/// collection would delete an object in use.
///
/// # Errors
/// Returns [`Error::NotAPlaylist`] if the text is no playlist.
pub fn references(text: &str) -> Result<References, Error> {
    let text = text.trim_start_matches('\u{feff}');
    let mut lines = text.lines().map(str::trim_end);
    if lines.next() != Some("#EXTM3U") {
        return Err(Error::NotAPlaylist);
    }
    let (mut multivariant, mut media) = (false, false);
    let mut uris: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    for line in lines {
        multivariant |= ["#EXT-X-STREAM-INF:", "#EXT-X-MEDIA:", "#EXT-X-I-FRAME-STREAM-INF:"]
            .iter()
            .any(|tag| line.starts_with(tag));
        media |= ["#EXTINF:", "#EXT-X-TARGETDURATION:"].iter().any(|tag| line.starts_with(tag));
        let found = match line.strip_prefix('#') {
            Some(tag) if tag.starts_with("EXT") => uri_attribute(tag),
            Some(_comment) => None,
            None => (!line.is_empty()).then_some(line),
        };
        if let Some(uri) = found
            && seen.insert(uri)
        {
            uris.push(uri.to_owned());
        }
    }
    match (multivariant, media) {
        (true, false) => Ok(References::Multivariant(uris)),
        (false, true) => Ok(References::Media(uris)),
        _ => Err(Error::NotAPlaylist),
    }
}

/// Returns the value of a tag's `URI` attribute, which is always quoted.
fn uri_attribute(tag: &str) -> Option<&str> {
    let (_, mut attributes) = tag.split_once(':')?;
    // Attribute by attribute, since a quoted value may hold the text `URI="`.
    loop {
        let (name, value) = attributes.split_once('=')?;
        let rest = match value.strip_prefix('"') {
            Some(quoted) => {
                let (text, rest) = quoted.split_once('"')?;
                if name.trim() == "URI" {
                    return Some(text);
                }
                rest.split_once(',')?.1
            }
            None => value.split_once(',')?.1,
        };
        attributes = rest;
    }
}
