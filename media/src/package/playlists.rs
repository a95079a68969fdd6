//! Playlists: RFC 8216 text from the sizes and ticks of media segments.
//!
//! Written by hand, since m3u8-rs 6 keeps durations as 32-bit floats, can't write FRAME-RATE with three
//! decimals, and leaves out MEDIA-SEQUENCE 0 and DEFAULT=NO. Tests read the result with m3u8-rs.
//!
//! Source: RFC 8216 section 4; HLS Authoring Specification for Apple Devices (required attributes).

mod rates;
mod references;

use std::fmt::Write as _;

use crate::{source::probe::Role, time::Rational};
use spool_storage::ErrorKind;

pub use rates::{average_bps, peak_bps};
pub use references::{References, references};

use rates::{MICROS, durations_micros, target_seconds};

/// Value of `EXT-X-VERSION`. `EXT-X-MAP` requires 6, except in I-frame playlists; fMP4 players are tested
/// with 7.
const VERSION: u32 = 7;
/// Apple's characteristic of audio descriptions (HLS Authoring Specification, section 4).
const DESCRIBES_VIDEO: &str = "public.accessibility.describes-video";

/// One media segment of a rendition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaEntry {
    /// URI relative to the media playlist.
    pub uri: String,
    /// Duration in ticks of the track's timescale.
    pub duration_ticks: u64,
    /// Size of the object.
    pub bytes: u64,
}

/// The contents of one rendition's media playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenditionTrack {
    /// Name for menus, such as `1080p` or `Deutsch`.
    pub name: String,
    /// URI of the media playlist, relative to the multivariant playlist.
    pub uri: String,
    /// RFC 6381's codecs, from the decoder configuration.
    pub codecs: String,
    /// Ticks per second.
    pub timescale: u32,
    /// URI of the init segment, relative to the media playlist.
    pub init_uri: String,
    /// Media segments in order, from the start of the video.
    pub entries: Vec<MediaEntry>,
    /// Declared peak rate in bits per second, if more media will follow. `None`: the rate is measured.
    pub declared_bps: Option<u64>,
}

/// Kind of a media playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaylistKind {
    /// Complete (`VOD`).
    Vod,
    /// Growing (`EVENT`): more media segments will follow.
    EventOpen {
        /// `EXT-X-TARGETDURATION` in seconds, which never changes.
        target_seconds: u64,
    },
    /// Ended (`EVENT`): it grew, and no media segments will follow.
    EventEnded {
        /// `EXT-X-TARGETDURATION` in seconds, as while it grew.
        target_seconds: u64,
    },
}

/// A video rendition in a multivariant playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoEntry {
    /// Media playlist.
    pub track: RenditionTrack,
    /// Display width in pixels.
    pub width: u32,
    /// Display height in pixels.
    pub height: u32,
    /// Frames per second.
    pub frame_rate: Rational,
}

/// An audio rendition in a multivariant playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioEntry {
    /// Media playlist.
    pub track: RenditionTrack,
    /// `GROUP-ID`. Every video rendition is listed with every group. A group has one codec and channel
    /// layout; its renditions are audio tracks.
    pub group: String,
    /// Language tag (RFC 5646), if known. A malformed tag and `und` are left out.
    pub language: Option<String>,
    /// Number of channels.
    pub channels: u16,
    /// Role, if it is not the main sound.
    pub role: Option<Role>,
    /// Whether it is played by default. At most one of a group is.
    pub default: bool,
}

/// Failure to write or parse a playlist.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rendition has no media.
    #[error("rendition {name:?} has no media segments, or one without duration")]
    NoMedia {
        /// Name of the rendition.
        name: String,
    },
    /// There are no renditions.
    #[error("a multivariant playlist needs at least one rendition")]
    NoRenditions,
    /// A text contains characters that a playlist does not allow.
    #[error(
        "{what} {text:?} cannot stand in a playlist: quotes, blanks in URIs, control characters and empty texts are not allowed"
    )]
    Text {
        /// Kind of text.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// Two renditions of a group have the same name.
    #[error("audio group {group:?} has two renditions named {name:?}")]
    SameName {
        /// The group.
        group: String,
        /// The name.
        name: String,
    },
    /// A group has more than one default rendition.
    #[error("audio group {group:?} has more than one default rendition")]
    TwoDefaults {
        /// The group.
        group: String,
    },
    /// The text is no playlist.
    #[error("not a playlist: its first line is not #EXTM3U, or it is neither multivariant nor media")]
    NotAPlaylist,
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Text { .. } | Self::NotAPlaylist => ErrorKind::BadInput,
            Self::NoMedia { .. } | Self::NoRenditions | Self::SameName { .. } | Self::TwoDefaults { .. } => {
                ErrorKind::Bug
            }
        }
    }
}

/// Returns the text of a rendition's media playlist.
///
/// Durations are differences of rounded start times, so that the error of their sum stays below a
/// microsecond.
///
/// # Errors
/// Returns [`Error::NoMedia`] for a rendition without media, [`Error::Text`] for a URI that would break the
/// text.
///
/// Source: RFC 8216 sections 4.3.2 and 4.3.3.
pub fn media_playlist(track: &RenditionTrack, extent: PlaylistKind) -> Result<String, Error> {
    let micros = durations_micros(track)?;
    let mut text = format!("#EXTM3U\n#EXT-X-VERSION:{VERSION}\n");
    let (kind, target) = match extent {
        PlaylistKind::Vod => ("VOD", target_seconds(&micros)),
        PlaylistKind::EventOpen { target_seconds } | PlaylistKind::EventEnded { target_seconds } => {
            ("EVENT", target_seconds)
        }
    };
    line(&mut text, format_args!("#EXT-X-TARGETDURATION:{target}"));
    line(
        &mut text,
        format_args!("#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:{kind}\n#EXT-X-INDEPENDENT-SEGMENTS"),
    );
    if extent != PlaylistKind::Vod {
        // Without it players start near the end of a growing playlist.
        text.push_str("#EXT-X-START:TIME-OFFSET=0\n");
    }
    line(&mut text, format_args!("#EXT-X-MAP:URI=\"{}\"", uri(&track.init_uri)?));
    for (entry, micros) in track.entries.iter().zip(micros) {
        line(&mut text, format_args!("#EXTINF:{}.{:06},", micros / MICROS, micros % MICROS));
        line(&mut text, format_args!("{}", uri(&entry.uri)?));
    }
    if !matches!(extent, PlaylistKind::EventOpen { .. }) {
        text.push_str("#EXT-X-ENDLIST\n");
    }
    Ok(text)
}

/// Returns the text of the multivariant playlist: every video with every audio group, in the order given.
///
/// Without video, each audio group is a variant: the playlist of its default (or first) rendition, with the
/// others of the group as alternatives.
///
/// # Errors
/// Returns [`Error::NoRenditions`] without renditions, and other errors for invalid names, URIs and groups.
///
/// Source: RFC 8216 sections 4.3.4.1 and 4.3.4.2.
pub fn multivariant_playlist(videos: &[VideoEntry], audios: &[AudioEntry]) -> Result<String, Error> {
    let groups = groups(audios)?;
    let mut text = format!("#EXTM3U\n#EXT-X-VERSION:{VERSION}\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    for group in &groups {
        // A single audio rendition without video is the variant itself.
        if !videos.is_empty() || group.members.len() > 1 {
            group.write(&mut text)?;
        }
    }
    for video in videos {
        let Rates { peak, average } = Rates::of(&video.track)?;
        if groups.is_empty() {
            stream(
                &mut text,
                &Stream { peak, average, codecs: vec![&video.track.codecs], video: Some(video), audio: None },
                &video.track,
            )?;
        }
        for group in &groups {
            let mut codecs = vec![video.track.codecs.as_str()];
            codecs.extend(group.codecs());
            let sound = group.rates()?;
            let average = average.zip(sound.average).map(|(video, sound)| video.saturating_add(sound));
            let peak = peak.saturating_add(sound.peak);
            stream(
                &mut text,
                &Stream { peak, average, codecs, video: Some(video), audio: Some(group.id) },
                &video.track,
            )?;
        }
    }
    if videos.is_empty() {
        if groups.is_empty() {
            return Err(Error::NoRenditions);
        }
        for group in &groups {
            let Some(played) = group.members.iter().find(|audio| audio.default).or(group.members.first())
            else {
                continue;
            };
            let audio = (group.members.len() > 1).then_some(group.id);
            let Rates { peak, average } = group.rates()?;
            stream(
                &mut text,
                &Stream { peak, average, codecs: group.codecs(), video: None, audio },
                &played.track,
            )?;
        }
    }
    Ok(text)
}

/// One `EXT-X-STREAM-INF`.
struct Stream<'a> {
    peak: u64,
    average: Option<u64>,
    codecs: Vec<&'a str>,
    video: Option<&'a VideoEntry>,
    audio: Option<&'a str>,
}

fn stream(text: &mut String, stream: &Stream<'_>, played: &RenditionTrack) -> Result<(), Error> {
    let codecs = quoted("codecs", &stream.codecs.join(","))?.to_owned();
    let mut tag = format!("#EXT-X-STREAM-INF:BANDWIDTH={}", stream.peak);
    if let Some(average) = stream.average {
        append(&mut tag, format_args!(",AVERAGE-BANDWIDTH={average}"));
    }
    append(&mut tag, format_args!(",CODECS=\"{codecs}\""));
    if let Some(video) = stream.video {
        let millihertz = thousandths(video.frame_rate);
        let (whole, fraction) = (millihertz / 1000, millihertz % 1000);
        append(
            &mut tag,
            format_args!(",RESOLUTION={}x{},FRAME-RATE={whole}.{fraction:03}", video.width, video.height),
        );
    }
    if let Some(group) = stream.audio {
        append(&mut tag, format_args!(",AUDIO=\"{}\"", quoted("audio group", group)?));
    }
    line(text, format_args!("{tag}\n{}", uri(&played.uri)?));
    Ok(())
}

/// Bits per second of a rendition. The average of a growing rendition is unknown.
struct Rates {
    peak: u64,
    average: Option<u64>,
}

impl Rates {
    fn of(track: &RenditionTrack) -> Result<Self, Error> {
        let measured = peak_bps(track)?;
        Ok(match track.declared_bps {
            Some(declared) => Self { peak: declared.max(measured), average: None },
            None => Self { peak: measured, average: Some(average_bps(track)?) },
        })
    }
}

/// Audio renditions that a player can choose among.
struct Group<'a> {
    id: &'a str,
    members: Vec<&'a AudioEntry>,
}

/// Returns the groups in the order of their first members.
fn groups(audios: &[AudioEntry]) -> Result<Vec<Group<'_>>, Error> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for audio in audios {
        let Some(group) = groups.iter_mut().find(|group| group.id == audio.group) else {
            groups.push(Group { id: &audio.group, members: vec![audio] });
            continue;
        };
        if group.members.iter().any(|member| member.track.name == audio.track.name) {
            return Err(Error::SameName { group: audio.group.clone(), name: audio.track.name.clone() });
        }
        if audio.default && group.members.iter().any(|member| member.default) {
            return Err(Error::TwoDefaults { group: audio.group.clone() });
        }
        group.members.push(audio);
    }
    Ok(groups)
}

impl Group<'_> {
    fn write(&self, text: &mut String) -> Result<(), Error> {
        let language_of =
            |audio: &AudioEntry| audio.language.clone().filter(|language| is_language(language));
        // The default is always `AUTOSELECT=YES`, in any position.
        let mut languages: Vec<_> = self
            .members
            .iter()
            .filter(|audio| audio.default)
            .map(|audio| (language_of(audio), audio.role))
            .collect();
        for audio in &self.members {
            let mut tag = format!("#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{}\"", quoted("audio group", self.id)?);
            append(&mut tag, format_args!(",NAME=\"{}\"", quoted("rendition name", &audio.track.name)?));
            let language = language_of(audio);
            if let Some(language) = &language {
                append(&mut tag, format_args!(",LANGUAGE=\"{language}\""));
            }
            // Renditions with `AUTOSELECT=YES` must differ in language or role. A commentary is never
            // selected automatically.
            let is_new = language.is_some() && !languages.contains(&(language.clone(), audio.role));
            let auto = audio.default || (is_new && audio.role != Some(Role::Commentary));
            languages.push((language, audio.role));
            let yes = |condition| if condition { "YES" } else { "NO" };
            append(&mut tag, format_args!(",DEFAULT={},AUTOSELECT={}", yes(audio.default), yes(auto)));
            if audio.role == Some(Role::Description) {
                append(&mut tag, format_args!(",CHARACTERISTICS=\"{DESCRIBES_VIDEO}\""));
            }
            append(
                &mut tag,
                format_args!(",CHANNELS=\"{}\",URI=\"{}\"", audio.channels, uri(&audio.track.uri)?),
            );
            line(text, format_args!("{tag}"));
        }
        Ok(())
    }

    /// Returns the codecs of the group, each once.
    fn codecs(&self) -> Vec<&str> {
        let mut codecs: Vec<&str> = self.members.iter().map(|audio| audio.track.codecs.as_str()).collect();
        codecs.sort_unstable();
        codecs.dedup();
        codecs
    }

    /// Returns the highest rates among the members.
    fn rates(&self) -> Result<Rates, Error> {
        self.members.iter().try_fold(Rates { peak: 0, average: Some(0) }, |most, audio| {
            let Rates { peak, average } = Rates::of(&audio.track)?;
            Ok(Rates { peak: most.peak.max(peak), average: most.average.zip(average).map(|(a, b)| a.max(b)) })
        })
    }
}

/// Returns a rate in thousandths of a hertz, rounded to nearest.
fn thousandths(rate: Rational) -> u64 {
    (u64::from(rate.num()) * 1000 + u64::from(rate.den()) / 2) / u64::from(rate.den())
}

/// Returns whether a tag consists of letters, digits and hyphens, as RFC 5646 requires, and is not `und`.
fn is_language(tag: &str) -> bool {
    tag != "und" && tag.len() >= 2 && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Checks that a text can stand between quotes.
fn quoted<'a>(what: &'static str, text: &'a str) -> Result<&'a str, Error> {
    let broken = text.is_empty() || text.chars().any(|char| char == '"' || char.is_control());
    if broken { Err(Error::Text { what, text: text.to_owned() }) } else { Ok(text) }
}

/// Checks that a URI can stand between quotes or on a line of its own.
fn uri(uri: &str) -> Result<&str, Error> {
    if uri.starts_with('#') || uri.chars().any(char::is_whitespace) {
        return Err(Error::Text { what: "URI", text: uri.to_owned() });
    }
    quoted("URI", uri)
}

fn append(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = text.write_fmt(what);
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    append(text, what);
    text.push('\n');
}

#[cfg(test)]
mod tests;
