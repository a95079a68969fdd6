//! Reads any text as a playlist without a panic. A playlist of any renditions is refused, or is read back
//! unchanged by our own reader and by another library.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spool_media::{
    package::playlists::{
        self, AudioEntry, MediaEntry, PlaylistKind, References, RenditionTrack, VideoEntry,
    },
    plan::audio_label::Role,
    time::Rational,
};

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Text(&'a str),
    Renditions { videos: Vec<Track<'a>>, sounds: Vec<Sound<'a>> },
}

#[derive(Debug, Arbitrary)]
struct Track<'a> {
    name: &'a str,
    uri: &'a str,
    init: &'a str,
    codecs: &'a str,
    timescale: u32,
    entries: Vec<(&'a str, u64, u64)>,
    declared_bps: Option<u64>,
    size: (u32, u32),
    rate: (u32, u32),
}

#[derive(Debug, Arbitrary)]
struct Sound<'a> {
    track: Track<'a>,
    group: &'a str,
    language: Option<&'a str>,
    channels: u16,
    described: bool,
    default: bool,
}

impl Track<'_> {
    fn entry(&self) -> RenditionTrack {
        let media = |(uri, duration_ticks, bytes): &(&str, u64, u64)| MediaEntry {
            uri: (*uri).to_owned(),
            duration_ticks: *duration_ticks,
            bytes: *bytes,
        };
        RenditionTrack {
            name: self.name.to_owned(),
            uri: self.uri.to_owned(),
            codecs: self.codecs.to_owned(),
            timescale: self.timescale,
            init_uri: self.init.to_owned(),
            entries: self.entries.iter().map(media).collect(),
            declared_bps: self.declared_bps,
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let (videos, sounds) = match input {
        Input::Text(text) => {
            let _ = playlists::references(text);
            return;
        }
        Input::Renditions { videos, sounds } => (videos, sounds),
    };
    for track in videos.iter().chain(sounds.iter().map(|sound| &sound.track)) {
        let Ok(text) = playlists::media_playlist(&track.entry(), PlaylistKind::Vod) else { continue };
        let Ok(References::Media(uris)) = playlists::references(&text) else {
            panic!("no media playlist: {text}")
        };
        assert!(uris.contains(&track.init.to_owned()), "{text}");
        assert!(track.entries.iter().all(|(uri, ..)| uris.iter().any(|found| found == uri)), "{text}");
        m3u8_rs::parse_media_playlist_res(text.as_bytes()).expect("a media playlist");
    }
    let videos: Vec<VideoEntry> = videos
        .iter()
        .filter_map(|track| {
            let frame_rate = Rational::new(track.rate.0, track.rate.1)?;
            Some(VideoEntry { track: track.entry(), width: track.size.0, height: track.size.1, frame_rate })
        })
        .collect();
    let audios: Vec<AudioEntry> = sounds
        .iter()
        .map(|sound| AudioEntry {
            track: sound.track.entry(),
            group: sound.group.to_owned(),
            language: sound.language.map(str::to_owned),
            channels: sound.channels,
            role: sound.described.then_some(Role::Description),
            default: sound.default,
        })
        .collect();
    let Ok(text) = playlists::multivariant_playlist(&videos, &audios) else { return };
    let Ok(References::Multivariant(uris)) = playlists::references(&text) else {
        panic!("no multivariant playlist: {text}")
    };
    assert!(videos.iter().all(|video| uris.contains(&video.track.uri)), "{text}");
    m3u8_rs::parse_master_playlist_res(text.as_bytes()).expect("a multivariant playlist");
});
