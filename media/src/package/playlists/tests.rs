use m3u8_rs::{MasterPlaylist, MediaPlaylist};
use proptest::prelude::*;

use super::*;

fn track(name: &str, timescale: u32, entries: &[(u64, u64)]) -> RenditionTrack {
    let entries = entries.iter().enumerate();
    RenditionTrack {
        name: name.to_owned(),
        uri: format!("{name}/5f.m3u8"),
        codecs: "avc1.64001f".to_owned(),
        timescale,
        init_uri: "init-ab.mp4".to_owned(),
        entries: entries
            .map(|(n, &(duration_ticks, bytes))| MediaEntry {
                uri: format!("{n}-c0.m4s"),
                duration_ticks,
                bytes,
            })
            .collect(),
        declared_bps: None,
    }
}

fn video(name: &str, entries: &[(u64, u64)]) -> VideoEntry {
    let frame_rate = Rational::new(30_000, 1001).unwrap();
    VideoEntry { track: track(name, 30_000, entries), width: 1280, height: 720, frame_rate }
}

fn audio(name: &str, group: &str, language: Option<&str>, default: bool) -> AudioEntry {
    let mut track = track(name, 48_000, &[(192_000, 64_000), (192_000, 48_000)]);
    track.codecs = "mp4a.40.2".to_owned();
    AudioEntry {
        track,
        group: group.to_owned(),
        language: language.map(str::to_owned),
        channels: 2,
        role: None,
        default,
    }
}

/// Reads a playlist with an independent parser.
fn read_master(text: &str) -> MasterPlaylist {
    m3u8_rs::parse_master_playlist_res(text.as_bytes()).unwrap()
}

fn read_media(text: &str) -> MediaPlaylist {
    m3u8_rs::parse_media_playlist_res(text.as_bytes()).unwrap()
}

#[test]
fn what_grows_keeps_its_target_and_declares_its_rate() {
    let part = track("720p", 30_000, &[(120_120, 100_000)]);
    let growing = media_playlist(&part, PlaylistKind::EventOpen { target_seconds: 5 }).unwrap();
    let read = read_media(&growing);
    assert_eq!((read.target_duration, read.end_list), (5, false));
    assert_eq!(read.playlist_type, Some(m3u8_rs::MediaPlaylistType::Event));
    // New lines are appended, and nothing else changes: RFC 8216 section 6.2.1.
    let whole = track("720p", 30_000, &[(120_120, 100_000), (120_120, 900_000)]);
    let grown = media_playlist(&whole, PlaylistKind::EventEnded { target_seconds: 5 }).unwrap();
    assert!(grown.starts_with(&growing) && grown.ends_with("#EXT-X-ENDLIST\n"), "{grown}");

    let declared = |bps| VideoEntry {
        track: RenditionTrack { declared_bps: Some(bps), ..part.clone() },
        ..video("720p", &[])
    };
    let master = |bps| read_master(&multivariant_playlist(&[declared(bps)], &[]).unwrap()).variants.remove(0);
    assert_eq!((master(2_800_000).bandwidth, master(2_800_000).average_bandwidth), (2_800_000, None));
    // Never below the rate measured so far.
    assert_eq!(master(1).bandwidth, 199_801);
}

#[test]
fn a_media_playlist_reads() {
    let text = media_playlist(
        &track("720p", 30_000, &[(120_120, 1_000_000), (120_120, 900_000), (1001, 5_000)]),
        PlaylistKind::Vod,
    )
    .unwrap();
    let expected = "\
#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:4
#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-PLAYLIST-TYPE:VOD
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MAP:URI=\"init-ab.mp4\"
#EXTINF:4.004000,
0-c0.m4s
#EXTINF:4.004000,
1-c0.m4s
#EXTINF:0.033367,
2-c0.m4s
#EXT-X-ENDLIST
";
    assert_eq!(text, expected);
    let read = read_media(&text);
    assert_eq!(
        (read.version, read.target_duration, read.segments.len(), read.end_list),
        (Some(7), 4, 3, true)
    );
    assert_eq!(read.segments[0].map.as_ref().unwrap().uri, "init-ab.mp4");
}

#[test]
fn a_multivariant_playlist_reads() {
    let videos = [
        video("720p", &[(120_120, 1_001_000), (120_120, 500_500)]),
        video("360p", &[(120_120, 250_250), (120_120, 250_250)]),
    ];
    let audios = [
        audio("Deutsch", "stereo", Some("deu"), true),
        audio("Kommentar", "stereo", Some("deu"), false),
        audio("?", "stereo", None, false),
    ];
    let text = multivariant_playlist(&videos, &audios).unwrap();
    // 720p: 1,001,000 bytes in 4.004 s are 2,000,000 bit/s; sound: 64,000 bytes in 4 s are 128,000 bit/s,
    // 112,000 on average.
    let expected = "\
#EXTM3U
#EXT-X-VERSION:7
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"stereo\",NAME=\"Deutsch\",LANGUAGE=\"deu\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\",URI=\"Deutsch/5f.m3u8\"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"stereo\",NAME=\"Kommentar\",LANGUAGE=\"deu\",DEFAULT=NO,AUTOSELECT=NO,CHANNELS=\"2\",URI=\"Kommentar/5f.m3u8\"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"stereo\",NAME=\"?\",DEFAULT=NO,AUTOSELECT=NO,CHANNELS=\"2\",URI=\"?/5f.m3u8\"
#EXT-X-STREAM-INF:BANDWIDTH=2128000,AVERAGE-BANDWIDTH=1612000,CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=1280x720,FRAME-RATE=29.970,AUDIO=\"stereo\"
720p/5f.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=628000,AVERAGE-BANDWIDTH=612000,CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=1280x720,FRAME-RATE=29.970,AUDIO=\"stereo\"
360p/5f.m3u8
";
    assert_eq!(text, expected);
    let read = read_master(&text);
    assert_eq!((read.variants.len(), read.alternatives.len()), (2, 3));
    assert_eq!(read.variants[0].bandwidth, 2_128_000);
    assert!(
        read.alternatives[0].default && read.alternatives[0].autoselect && !read.alternatives[1].autoselect
    );
}

#[test]
fn every_video_goes_with_every_audio_group() {
    let videos = [video("720p", &[(120_120, 1000)]), video("360p", &[(120_120, 500)])];
    let audios = [audio("Stereo", "stereo", None, true), audio("5.1", "surround", None, true)];
    let read = read_master(&multivariant_playlist(&videos, &audios).unwrap());
    let variants: Vec<_> =
        read.variants.iter().map(|v| (v.uri.as_str(), v.audio.as_deref().unwrap())).collect();
    assert_eq!(
        variants,
        [
            ("720p/5f.m3u8", "stereo"),
            ("720p/5f.m3u8", "surround"),
            ("360p/5f.m3u8", "stereo"),
            ("360p/5f.m3u8", "surround")
        ]
    );
}

#[test]
fn pictures_alone_and_sound_alone_work() {
    let text = multivariant_playlist(&[video("720p", &[(120_120, 1000)])], &[]).unwrap();
    assert!(
        text.ends_with("CODECS=\"avc1.64001f\",RESOLUTION=1280x720,FRAME-RATE=29.970\n720p/5f.m3u8\n"),
        "{text}"
    );

    let text = multivariant_playlist(&[], &[audio("Ton", "stereo", None, false)]).unwrap();
    let stream =
        "#EXT-X-STREAM-INF:BANDWIDTH=128000,AVERAGE-BANDWIDTH=112000,CODECS=\"mp4a.40.2\"\nTon/5f.m3u8\n";
    assert_eq!(text, format!("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n{stream}"));

    let two = [audio("Deutsch", "stereo", Some("de"), false), audio("English", "stereo", Some("en"), true)];
    let read = read_master(&multivariant_playlist(&[], &two).unwrap());
    assert_eq!((read.alternatives.len(), read.variants.len()), (2, 1));
    assert_eq!(
        (read.variants[0].uri.as_str(), read.variants[0].audio.as_deref()),
        ("English/5f.m3u8", Some("stereo"))
    );
}

#[test]
fn what_would_break_a_playlist_is_refused() {
    let good = video("720p", &[(120_120, 1000)]);
    for (uri, name) in [
        ("a b.m3u8", "x"),
        ("a\"b", "x"),
        ("#a", "x"),
        ("", "x"),
        ("a\nb", "x"),
        ("a", "x\"y"),
        ("a", "x\n#EXT"),
        ("a", ""),
    ] {
        let mut sound = audio(name, "stereo", None, true);
        sound.track.uri = uri.to_owned();
        let error = multivariant_playlist(std::slice::from_ref(&good), &[sound]).unwrap_err();
        assert!(matches!(error, Error::Text { .. }), "{uri:?} {name:?}: {error}");
    }
    let mut bad = track("x", 30_000, &[(1, 1)]);
    bad.entries[0].uri = "a\n#EXT-X-ENDLIST".to_owned();
    assert!(matches!(media_playlist(&bad, PlaylistKind::Vod), Err(Error::Text { what: "URI", .. })));
    for empty in [track("x", 30_000, &[]), track("x", 30_000, &[(0, 9)]), track("x", 0, &[(1, 1)])] {
        assert!(matches!(media_playlist(&empty, PlaylistKind::Vod), Err(Error::NoMedia { .. })));
        assert!(matches!(peak_bps(&empty), Err(Error::NoMedia { .. })));
        assert!(matches!(average_bps(&empty), Err(Error::NoMedia { .. })));
    }
    assert!(matches!(multivariant_playlist(&[], &[]), Err(Error::NoRenditions)));
    let twice = [audio("a", "g", None, true), audio("a", "g", None, false)];
    assert!(matches!(multivariant_playlist(&[], &twice), Err(Error::SameName { .. })));
    let defaults = [audio("a", "g", None, true), audio("b", "g", None, true)];
    assert!(matches!(multivariant_playlist(&[], &defaults), Err(Error::TwoDefaults { .. })));
    // A language is metadata of a source: a malformed one is left out, not refused.
    let odd = [audio("a", "g", Some("x\"y"), true), audio("b", "g", Some("und"), false)];
    assert!(!multivariant_playlist(&[], &odd).unwrap().contains("LANGUAGE"));
}

#[test]
fn the_peak_is_of_half_to_one_and_a_half_target_durations() {
    let peak = |entries: &[(u64, u64)]| peak_bps(&track("x", 1000, entries)).unwrap();
    // A last media segment of 0.1 s is not a window of its own; with its neighbour it is.
    assert_eq!(peak(&[(4000, 4000), (4000, 4000), (100, 4000)]), 8000 * 8 * 10 / 41 + 1);
    // 0.4 s alone, rounded up to a target of 1 s: too short for any window, so that the whole counts.
    assert_eq!(peak(&[(400, 1000)]), 20_000);
    // Two neighbours of 2 s are a window beside one of 4 s.
    assert_eq!(peak(&[(4000, 1000), (2000, 3000), (2000, 2000)]), 12_000);
    assert_eq!(average_bps(&track("x", 1000, &[(4000, 1000), (2000, 3000), (2000, 2000)])).unwrap(), 6000);
}

#[test]
fn references_are_found_in_what_we_write_and_in_what_others_write() {
    let text =
        media_playlist(&track("720p", 30_000, &[(120_120, 1), (120_120, 1)]), PlaylistKind::Vod).unwrap();
    let media = |uris: &[&str]| References::Media(uris.iter().map(|uri| (*uri).to_owned()).collect());
    assert_eq!(references(&text).unwrap(), media(&["init-ab.mp4", "0-c0.m4s", "1-c0.m4s"]));
    let text = multivariant_playlist(&[video("720p", &[(1, 1)])], &[audio("Ton", "g", None, true)]).unwrap();
    let expected = References::Multivariant(vec!["Ton/5f.m3u8".to_owned(), "720p/5f.m3u8".to_owned()]);
    assert_eq!(references(&text).unwrap(), expected);

    let odd = "\u{feff}#EXTM3U\r\n#EXT-X-TARGETDURATION:4\r\n# a comment: URI=\"no\"\r\n#EXT-X-MAP:X=\"URI=\",URI=\"i.mp4\",BYTERANGE=\"9@0\"\r\n\
               #EXT-X-KEY:METHOD=AES-128,URI=\"k\"\r\n#EXTINF:4,title\r\n\r\na.m4s\r\n#EXTINF:4,\r\na.m4s\r\n";
    assert_eq!(references(odd).unwrap(), media(&["i.mp4", "k", "a.m4s"]));
    for not in ["", "{}", "#EXTM3U\n", "#EXTM3U\na.m4s\n", "#EXTM3U8\n#EXTINF:1,\na"] {
        assert!(matches!(references(not), Err(Error::NotAPlaylist)), "{not:?}");
    }
}

/// The definition of RFC 8216, literally: every window is tried.
fn peak_by_definition(track: &RenditionTrack, target: f64) -> Option<f64> {
    let mut peak: Option<f64> = None;
    for first in 0..track.entries.len() {
        for last in first..track.entries.len() {
            let window = &track.entries[first..=last];
            let seconds =
                window.iter().map(|e| e.duration_ticks).sum::<u64>() as f64 / f64::from(track.timescale);
            let bits = window.iter().map(|e| e.bytes).sum::<u64>() as f64 * 8.0;
            if seconds >= 0.5 * target && seconds <= 1.5 * target {
                peak = Some(peak.unwrap_or(0.0).max(bits / seconds));
            }
        }
    }
    peak
}

proptest! {
    #[test]
    fn any_rendition_is_described_truly(
        entries in proptest::collection::vec((1u64..500_000, 0u64..10_000_000), 1..60),
        timescale in prop_oneof![Just(90_000u32), Just(44_100), Just(30_000), Just(12_345)],
    ) {
        let track = track("x", timescale, &entries);
        let text = media_playlist(&track, PlaylistKind::Vod).unwrap();
        let read = read_media(&text);
        let written: Vec<u64> = text.lines().filter_map(|line| line.strip_prefix("#EXTINF:")).map(|duration| {
            duration.trim_end_matches(',').replace('.', "").parse().unwrap()
        }).collect();
        // No drift: every start is exact to a microsecond.
        let (mut ticks, mut micros) = (0u64, 0u64);
        for (duration, entry) in written.iter().zip(&track.entries) {
            ticks += entry.duration_ticks;
            micros += duration;
            prop_assert!((ticks as f64 * 1e6 / f64::from(timescale) - micros as f64).abs() <= 0.5 + 1e-3);
            let seconds = *duration as f64 / 1e6;
            prop_assert!(seconds.round() <= read.target_duration as f64);
        }
        prop_assert!(written.iter().any(|d| (*d as f64 / 1e6).round().max(1.0) == read.target_duration as f64));

        let peak = peak_bps(&track).unwrap() as f64;
        let average = average_bps(&track).unwrap() as f64;
        match peak_by_definition(&track, read.target_duration as f64) {
            Some(expected) => prop_assert!((peak - expected).abs() <= 1.0 + expected * 1e-9, "{peak} {expected}"),
            None => prop_assert_eq!(peak, average),
        }
        // The result does not depend on the direction.
        let mut backwards = track.clone();
        backwards.entries.reverse();
        if read.target_duration == read_media(&media_playlist(&backwards, PlaylistKind::Vod).unwrap()).target_duration {
            prop_assert_eq!(peak_bps(&backwards).unwrap() as f64, peak);
        }
    }

    #[test]
    fn any_split_into_parts_gives_the_same_playlist(
        entries in proptest::collection::vec((1u64..500_000, 0u64..10_000_000), 1..40),
        cuts in proptest::collection::vec(0usize..40, 0..6),
    ) {
        let whole = track("x", 90_000, &entries);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(entries.len())).collect();
        cuts.extend([0, entries.len()]);
        cuts.sort_unstable();
        let mut merged = RenditionTrack { entries: Vec::new(), ..whole.clone() };
        for part in cuts.windows(2) {
            merged.entries.extend_from_slice(&whole.entries[part[0]..part[1]]);
        }
        prop_assert_eq!(peak_bps(&merged).unwrap(), peak_bps(&whole).unwrap());
        prop_assert_eq!(average_bps(&merged).unwrap(), average_bps(&whole).unwrap());
        prop_assert_eq!(media_playlist(&merged, PlaylistKind::Vod).unwrap(), media_playlist(&whole, PlaylistKind::Vod).unwrap());
    }

    #[test]
    fn garbage_never_panics(text in "(#EXTM3U\n)?(#EXT-X-(MAP|MEDIA|STREAM-INF):[A-Z=\",]{0,20}\n|.{0,20}\n){0,8}") {
        let _ = references(&text);
    }
}
