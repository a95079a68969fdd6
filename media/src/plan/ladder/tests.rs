use super::*;
use crate::source::probe::Color;

fn video(width: u32, height: u32) -> VideoTrack {
    VideoTrack {
        stream: 0,
        codec: "h264".into(),
        width,
        height,
        sample_aspect: Rational::new(1, 1).unwrap(),
        rotation: 0,
        mirrored: false,
        declared_fps: None,
        pixel_format: "yuv420p".into(),
        bit_depth: 8,
        color: Color::default(),
        interlaced: false,
    }
}

fn at(num: u32, den: u32) -> Grid {
    Grid {
        rate: Rational::new(num, den).unwrap(),
        source_timebase: Rational::new(1, 90_000).unwrap(),
        origin: 0,
        frames: 100,
    }
}

/// Name, size, peak rate in kb/s and level of each rendition.
fn renditions_of(ladder: &str, video: &VideoTrack, fps: u32) -> Vec<(String, u32, u32, u32, u8)> {
    let renditions = Ladder::parse(ladder).unwrap().fit(video, &at(fps, 1)).unwrap();
    renditions
        .into_iter()
        .map(|r| (r.name, r.width, r.height, r.max_bitrate_bps / 1000, r.level.unwrap_or(0)))
        .collect()
}

fn sizes(ladder: &str, video: &VideoTrack) -> Vec<(String, u32, u32)> {
    renditions_of(ladder, video, 25)
        .into_iter()
        .map(|(name, width, height, _, _)| (name, width, height))
        .collect()
}

fn size(name: &str, width: u32, height: u32) -> (String, u32, u32) {
    (name.to_owned(), width, height)
}

#[test]
fn web_on_the_usual_source() {
    let line = |name: &str, width, height, kbps, level| (name.to_owned(), width, height, kbps, level);
    let hd = video(1920, 1080);
    let thirty = [
        line("1080p", 1920, 1080, 5000, 40),
        line("720p", 1280, 720, 2800, 31),
        line("480p", 854, 480, 1400, 31),
    ];
    assert_eq!(renditions_of("web", &hd, 30), thirty);
    assert_eq!(renditions_of("web", &hd, 24)[0].3, 5000, "film has as much to say as video");
    let sixty = [
        line("1080p", 1920, 1080, 7500, 42),
        line("720p", 1280, 720, 4200, 32),
        line("480p", 854, 480, 2100, 31),
    ];
    assert_eq!(renditions_of("web", &hd, 60), sixty);
    assert_eq!(renditions_of("480p", &video(640, 480), 30), [line("480p", 640, 480, 1060, 30)]);
    assert_eq!(renditions_of("mobile", &hd, 30)[2], line("360p", 640, 360, 800, 30));
    let uhd = renditions_of("uhd", &video(3840, 2160), 30);
    assert_eq!(
        (uhd.len(), &uhd[0], &uhd[1]),
        (6, &line("2160p", 3840, 2160, 16_000, 51), &line("1440p", 2560, 1440, 9000, 50))
    );
}

#[test]
fn what_a_rung_leaves_open_is_filled_in() {
    let renditions =
        Ladder::parse("720p:3.5M@crf19,480p").unwrap().fit(&video(1920, 1080), &at(30_000, 1001)).unwrap();
    let expected = VideoRendition {
        name: "720p".into(),
        codec: VideoCodec::H264,
        width: 1280,
        height: 720,
        crf: 19,
        max_bitrate_bps: 3_500_000,
        buffer_bits: 7_000_000,
        level: Some(31),
        preset: "veryfast".into(),
    };
    assert_eq!(renditions[0], expected);
    assert_eq!(
        (renditions[1].crf, renditions[1].max_bitrate_bps, renditions[1].buffer_bits),
        (23, 1_400_000, 2_800_000)
    );
}

#[test]
fn the_short_side_names_the_rung_and_the_picture_stands_upright() {
    let upright = [size("1080p", 1080, 1920), size("720p", 720, 1280), size("480p", 480, 854)];
    assert_eq!(sizes("web", &video(1080, 1920)), upright);
    for rotation in [90, 270] {
        assert_eq!(sizes("web", &VideoTrack { rotation, ..video(1920, 1080) }), upright);
    }
    assert_eq!(
        sizes("web", &VideoTrack { rotation: 180, ..video(1920, 1080) })[0],
        size("1080p", 1920, 1080)
    );
    assert_eq!(sizes("web", &video(1000, 1000)), [size("720p", 720, 720), size("480p", 480, 480)]);
}

#[test]
fn pixels_come_out_square() {
    let anamorphic = |width, height, num, den| VideoTrack {
        sample_aspect: Rational::new(num, den).unwrap(),
        ..video(width, height)
    };
    assert_eq!(sizes("web", &anamorphic(720, 576, 64, 45)), [size("480p", 854, 480)]);
    assert_eq!(sizes("720p", &anamorphic(720, 576, 64, 45)), [size("576p", 1024, 576)]);
    assert_eq!(sizes("web", &anamorphic(720, 576, 16, 15)), [size("480p", 640, 480)]);
    assert_eq!(sizes("1080p", &anamorphic(1440, 1080, 4, 3)), [size("1080p", 1920, 1080)]);
    let turned = VideoTrack { rotation: 90, ..anamorphic(720, 576, 64, 45) };
    assert_eq!(sizes("web", &turned), [size("480p", 480, 854)]);
    assert_eq!(sizes("480p", &anamorphic(720, 480, 8, 9)), [size("480p", 640, 480)]);
}

#[test]
fn no_rung_is_larger_than_the_source() {
    assert_eq!(sizes("web", &video(1280, 720)), [size("720p", 1280, 720), size("480p", 854, 480)]);
    assert_eq!(sizes("web", &video(640, 360)), [size("360p", 640, 360)], "below every rung");
    assert_eq!(sizes("web", &video(640, 272)), [size("272p", 640, 272)]);
    assert_eq!(sizes("web", &video(64, 64)), [size("64p", 64, 64)]);
    assert_eq!(sizes("web", &video(1, 1)), [size("2p", 2, 2)], "the least that 4:2:0 has");
    assert_eq!(sizes("web", &video(8192, 2)), [size("2p", 8192, 2)]);
    assert_eq!(sizes("web", &video(2, 8192)), [size("2p", 2, 8192)]);
    assert_eq!(sizes("web", &video(1920, 1088))[0], size("1080p", 1906, 1080));
    assert_eq!(
        sizes("720p,480p", &video(853, 479)),
        [size("480p", 852, 478)],
        "even, and not past the source"
    );
    assert_eq!(sizes("479p", &video(1000, 500)), [size("479p", 958, 478)]);
}

#[test]
fn a_rung_just_above_the_source_is_given_at_its_size() {
    assert_eq!(sizes("web", &video(1920, 1040))[0], size("1080p", 1920, 1040));
    assert_eq!(sizes("web", &video(1920, 1026))[0], size("1080p", 1920, 1026));
    assert_eq!(sizes("web", &video(1920, 1025))[0], size("720p", 1348, 720));
    assert_eq!(
        sizes("web", &video(1920, 800))[0],
        size("720p", 1728, 720),
        "cinema scope: the short side counts"
    );
    assert_eq!(
        sizes("1080p,1060p,1040p,480p", &video(1920, 1040))[..2],
        [size("1040p", 1920, 1040), size("480p", 886, 480)]
    );
}

#[test]
fn a_source_below_every_rung_gets_no_more_than_the_lowest_was_to_have() {
    let only =
        |ladder: &str| Ladder::parse(ladder).unwrap().fit(&video(640, 360), &at(30, 1)).unwrap().remove(0);
    assert_eq!((only("1080p,720p:500k@crf28").max_bitrate_bps, only("720p:500k@crf28").crf), (500_000, 28));
    assert_eq!((only("720p:9M").max_bitrate_bps, only("720p").crf), (800_000, 23));
}

#[test]
fn strange_sources_are_errors_and_never_panics() {
    let web = Ladder::parse("web").unwrap();
    assert_eq!(web.fit(&video(0, 1080), &at(25, 1)), Err(Error::NoSize { width: 0, height: 1080 }));
    assert_eq!(
        web.fit(&video(16_384, 16_384), &at(25, 1)).unwrap()[0].name,
        "1080p",
        "scaled, any source will do"
    );
    let error = web.fit(&video(40_000, 400), &at(25, 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "40000x400 at 25/1 frames per second is more than H.264 can hold: ask for a rung of 2160p or less"
    );
    for aspect in [(1, u32::MAX), (u32::MAX, 1), (u32::MAX, u32::MAX - 1)] {
        let sample_aspect = Rational::new(aspect.0, aspect.1).unwrap();
        for (width, height) in [(1, 1), (u32::MAX, u32::MAX), (u32::MAX, 1), (1, u32::MAX), (1920, 1080)] {
            for fps in [at(25, 1), at(u32::MAX, 1), at(1, u32::MAX)] {
                let _ = web.fit(&VideoTrack { sample_aspect, ..video(width, height) }, &fps);
            }
        }
    }
}

#[test]
fn codecs_stand_beside_each_other_in_one_ladder() {
    let line = |name: &str, width, height, kbps, level| (name.to_owned(), width, height, kbps, level);
    let mixed = "1080p-av1,1080p,720p-hevc,480p-vp9,480p";
    let found = renditions_of(mixed, &video(1920, 1080), 30);
    let expected = [
        line("1080p", 1920, 1080, 5000, 40),
        line("1080p-av1", 1920, 1080, 3500, 0),
        line("720p-hevc", 1280, 720, 2100, 31),
        line("480p", 854, 480, 1400, 31),
        line("480p-vp9", 854, 480, 1400, 0),
    ];
    assert_eq!(found, expected);
    let crf: Vec<u8> = Ladder::parse(mixed)
        .unwrap()
        .fit(&video(1920, 1080), &at(30, 1))
        .unwrap()
        .iter()
        .map(|rendition| rendition.crf)
        .collect();
    assert_eq!(crf, [23, 35, 26, 23, 33]);
    // Each codec has its own rung of the source's size, if all of its rungs are above that.
    let below = [size("360p", 640, 360), size("360p-av1", 640, 360), size("240p", 426, 240)];
    assert_eq!(sizes("1080p-av1,720p-av1,360p,240p", &video(640, 360)), below);
}

#[test]
fn what_an_encoder_does_not_take_drops_out() {
    assert_eq!(
        sizes("360p-av1,360p-hevc,360p", &video(80, 48)),
        [size("48p", 80, 48), size("48p-hevc", 80, 48)]
    );
    let error = Ladder::parse("360p-av1").unwrap().fit(&video(80, 48), &at(25, 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "80x48 is too small for AV1, which takes 64x64 and more: ask for h264 or vp9 beside it"
    );
    let error = Ladder::parse("360p-hevc").unwrap().fit(&video(40_000, 400), &at(25, 1)).unwrap_err();
    assert!(error.to_string().contains("more than HEVC can hold"), "{error}");
    let error = Ladder::parse("360p-hevc:150M").unwrap().fit(&video(640, 360), &at(25, 1)).unwrap_err();
    assert!(
        error.to_string().starts_with("a peak rate of 150000000 bits per second is more than HEVC"),
        "{error}"
    );
}

#[test]
fn sound_is_stereo_or_mono_at_a_rate_that_plays_everywhere_and_surround_beside_it() {
    let audio = |ladder: &str, sample_rate, channels| {
        let (language, title, role, default) = (None, None, None, false);
        let track = AudioTrack {
            stream: 1,
            codec: "aac".into(),
            sample_rate,
            channels,
            discrete: false,
            language,
            title,
            role,
            default,
        };
        let renditions = Ladder::parse(ladder).unwrap().audio(&track, 3);
        let fields = |r: AudioRendition| (r.name, r.sample_rate, r.channels, r.bitrate_bps / 1000);
        renditions.into_iter().map(fields).collect::<Vec<_>>()
    };
    let line = |name: &str, rate, channels, kbps| (name.to_owned(), rate, channels, kbps);
    assert_eq!(audio("web", 48_000, 2), [line("audio-3", 48_000, 2, 128)]);
    assert_eq!(
        audio("web", 44_100, 6),
        [line("audio-3", 44_100, 2, 128), line("audio-3-5.1", 44_100, 6, 384)]
    );
    assert_eq!(audio("web", 8000, 1), [line("audio-3", 48_000, 1, 64)]);
    assert_eq!(audio("web", 96_000, 0), [line("audio-3", 48_000, 2, 128)]);
    assert_eq!(audio("720p,opus:96k", 44_100, 4), [line("audio-3-opus", 48_000, 2, 96)]);
    let both = [
        line("audio-3", 48_000, 2, 128),
        line("audio-3-5.1", 48_000, 6, 384),
        line("audio-3-opus", 48_000, 2, 128),
        line("audio-3-opus-5.1", 48_000, 6, 384),
    ];
    assert_eq!(audio("720p,aac,opus", 48_000, 8), both);
}

#[test]
fn the_short_form_is_read() {
    let heights =
        |text: &str| Ladder::parse(text).unwrap().rungs.iter().map(|rung| rung.height).collect::<Vec<_>>();
    assert_eq!(heights("480p, 1080P ,720p"), [1080, 720, 480], "best first, however it is written");
    assert_eq!(heights(" WEB "), [1080, 720, 480]);
    let rung = |text: &str| Ladder::parse(text).unwrap().rungs.remove(0);
    assert_eq!(rung("720p"), Rung::of(720));
    assert_eq!(rung("720p:2800k"), Rung { max_bitrate_bps: Some(2_800_000), ..Rung::of(720) });
    assert_eq!(rung("720p:2.8M"), rung("720p:2800k"));
    assert_eq!(
        rung("720p:0.05m@CRF30"),
        Rung { max_bitrate_bps: Some(50_000), crf: Some(30), ..Rung::of(720) }
    );
    let hevc =
        Rung { codec: VideoCodec::Hevc, max_bitrate_bps: Some(2_000_000), crf: Some(30), ..Rung::of(720) };
    assert_eq!(rung("720P-HEVC:2M@crf30"), hevc);
    assert_eq!(rung("720p-av1@crf60").crf, Some(60), "its factors go further");
    let sound = |text: &str| Ladder::parse(text).unwrap().sound;
    assert_eq!(sound("720p"), [AudioRung { codec: AudioCodec::Aac, bitrate_bps: None }]);
    let both = [
        AudioRung { codec: AudioCodec::Opus, bitrate_bps: Some(96_000) },
        AudioRung { codec: AudioCodec::Aac, bitrate_bps: None },
    ];
    assert_eq!(sound("opus:96k,720p, AAC"), both);
    assert_eq!(rung("720p@crf22").crf, Some(22));
}

#[test]
fn errors_name_the_fault_of_a_ladder() {
    let message = |text: &str| Ladder::parse(text).unwrap_err().to_string();
    let unknown = "no ladder \"wbe\", did you mean \"web\"? \
                   There are web, mobile, uhd, preview, and the short form such as '1080p,720p:2800k'";
    assert_eq!(message("wbe"), unknown);
    assert!(
        message("moblie").contains("\"mobile\"")
            && message("priview").contains("\"preview\"")
            && message("4k").contains("\"4k\"")
    );
    assert_eq!(message(" "), "a ladder has at least one rung, such as '720p'");
    assert_eq!(message("720p,web"), "\"web\" in the ladder: a preset stands alone, not beside other rungs");
    assert_eq!(message("1080p,,720p"), "\"\" in the ladder: between two commas must be a rung, such as 720p");
    assert_eq!(message("1080p,720"), "\"720\" in the ladder: a rung is a height with p, such as 720p");
    assert_eq!(message("-720p,1p"), "\"-720p\" in the ladder: a rung is a height with p, such as 720p");
    assert_eq!(message("720p,720p:1M"), "the ladder has 720p twice");
    assert_eq!(message("720p-av1,720p,720p-AV1"), "the ladder has 720p-av1 twice");
    assert_eq!(message("720p,aac,aac:64k"), "the ladder has aac twice");
    assert_eq!(message("aac"), "a ladder has at least one rung, such as '720p'");
    assert_eq!(
        message("720p-divx"),
        "\"720p-divx\" in the ladder: a codec is h264, hevc, av1 or vp9, such as 720p-av1"
    );
    assert_eq!(
        message("720p,opus:x"),
        "\"opus:x\" in the ladder: a rate of sound is a number with k, such as opus:96k"
    );
    assert_eq!(
        message("720p,opus:6k"),
        "the audio rate in bits per second is 6000: it must be from 32000 to 320000"
    );
    assert_eq!(message("720p@crf52"), "a rung's rate factor (crf) is 52: it must be from 1 to 51");
    assert_eq!(message("720p-vp9@crf64"), "a rung's rate factor (crf) is 64: it must be from 1 to 63");
    assert_eq!(message("8p"), "a rung's height is 8: it must be from 16 to 4320");
    assert_eq!(message("720p@crf0"), "a rung's rate factor (crf) is 0: it must be from 1 to 51");
    let rate = "a peak rate is a number with k or M, such as 720p:2800k";
    for item in [
        "720p:2800",
        "720p:k",
        "720p:.5M",
        "720p:5.M",
        "720p:+5M",
        "720p:99999999M",
        "720p:1.0000001M",
        "720p:2800kk",
    ] {
        assert_eq!(message(item), format!("{item:?} in the ladder: {rate}"));
    }
    assert!(message("720p:1k").starts_with("a rung's peak rate in bits per second is 1000"));
    for item in ["720p@22", "720p@crf", "720p@crf300", "720p@crf22:1M"] {
        assert!(
            message(item).ends_with("a rate factor is written with @crf, such as 720p@crf22"),
            "{}",
            message(item)
        );
    }
    let thirteen = (0..13).map(|i| format!("{}p", 100 + i)).collect::<Vec<_>>().join(",");
    assert_eq!(message(&thirteen), "a ladder of 13 rungs: 12 are the most");
    assert!(message(&"ü".repeat(100_000)).len() < 200, "a long text is not repeated");
}

#[test]
fn a_ladder_is_checked_wherever_it_comes_from() {
    let read = |json: &str| serde_json::from_str::<Ladder>(json).map_err(|error| error.to_string());
    let ladder = read(
        r#"[{"codec": "opus"}, {"height": 480, "crf": 20}, {"height": 720, "codec": "av1", "max_bitrate_bps": 3000000, "preset": "slow"}]"#,
    )
    .unwrap();
    assert_eq!(ladder.rungs.iter().map(Rung::name).collect::<Vec<_>>(), ["720p-av1", "480p"]);
    assert_eq!((ladder.rungs[0].preset.as_str(), ladder.sound[0].codec), ("slow", AudioCodec::Opus));
    assert_eq!(read(&serde_json::to_string(&ladder).unwrap()).unwrap(), ladder);
    assert!(
        read(r#"[{"height": 480, "preset": "-i /etc/passwd"}]"#).unwrap_err().contains("no encoder preset")
    );
    assert!(read(r#"[{"height": 480, "codec": "h263"}]"#).unwrap_err().contains("no codec \"h263\""));
    assert!(read(r#"[{"codec": "h264"}]"#).unwrap_err().contains("has no height"));
    assert!(read("[]").unwrap_err().contains("at least one rung"));
    assert!(
        read(r#"[{"height": 480}, {"codec": "aac", "max_bitrate_bps": 5}]"#)
            .unwrap_err()
            .contains("audio rate")
    );
}

#[test]
fn every_preset_is_a_valid_ladder_by_its_name() {
    for preset in presets() {
        let ladder = Ladder::parse(preset.name).unwrap();
        assert_eq!(ladder, preset.ladder());
        assert_eq!(Ladder::try_from(Vec::<LadderEntry>::from(ladder.clone())).unwrap(), ladder);
    }
}

/// x264 checks its settings against the level, with the reference frames that it signals.
#[test]
#[expect(clippy::disallowed_methods, reason = "tests make their own clips")]
fn x264_finds_every_level_high_enough_and_the_one_below_too_low() {
    let complaints = |rendition: &VideoRendition, fps: u32, level: u8| {
        let VideoRendition { width, height, max_bitrate_bps, buffer_bits, preset, .. } = rendition;
        let source = format!("color=s={width}x{height}:r={fps}:d=0.2");
        let output = std::process::Command::new("ffmpeg")
            .args([
                "-v",
                "info",
                "-f",
                "lavfi",
                "-i",
                &source,
                "-c:v",
                "libx264",
                "-preset",
                preset,
                "-profile:v",
                "high",
            ])
            .args(["-pix_fmt", "yuv420p", "-level", &format!("{}.{}", level / 10, level % 10)])
            .args([
                "-maxrate",
                &max_bitrate_bps.to_string(),
                "-bufsize",
                &buffer_bits.to_string(),
                "-f",
                "null",
                "-",
            ])
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{log}");
        log.lines().filter(|line| line.contains("level limit")).map(str::to_owned).collect::<Vec<_>>()
    };
    // The level below each, and the reason why it is too low. The sizes are small enough to encode here; the
    // table's other entries are checked in `level`.
    let cases = [
        ("720p", 1280, 720, 60, 32, 31, "MB rate"),
        ("480p", 854, 480, 30, 31, 30, "MB rate"),
        ("240p:64k", 320, 240, 10, 12, 11, "DPB size (4 frames"),
        ("480p:7M", 640, 480, 30, 31, 30, "VBV buffer"),
    ];
    for (ladder, width, height, fps, level, below, reason) in cases {
        let rendition =
            Ladder::parse(ladder).unwrap().fit(&video(width, height), &at(fps, 1)).unwrap().remove(0);
        assert_eq!(rendition.level, Some(level), "{rendition:?}");
        assert_eq!(complaints(&rendition, fps, level), Vec::<String>::new(), "{rendition:?}");
        let complaints = complaints(&rendition, fps, below);
        assert!(
            complaints.iter().any(|line| line.contains(reason)),
            "{below} for {rendition:?}: {complaints:?}"
        );
    }
}

mod laws {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn renditions_are_even_in_shape_in_order_and_never_enlarged(
            width in 1..4096_u32, height in 1..4096_u32, num in 1..5_u32, den in 1..5_u32, turned in any::<bool>(), fps in 1..120_u32,
            heights in prop::collection::btree_set(16..2160_u32, 1..6),
        ) {
            let sample_aspect = Rational::new(num, den).unwrap();
            let source = VideoTrack { sample_aspect, rotation: if turned { 90 } else { 0 }, ..video(width, height) };
            let ladder = Ladder::new(heights.into_iter().map(Rung::of).collect(), Vec::new()).unwrap();
            let Ok(renditions) = ladder.fit(&source, &at(fps, 1)) else { return Ok(()) };
            let wide = f64::from(width) * sample_aspect.to_f64();
            let (wide, high) = if turned { (f64::from(height), wide) } else { (wide, f64::from(height)) };
            prop_assert!(!renditions.is_empty());
            for rendition in &renditions {
                let (w, h) = (f64::from(rendition.width), f64::from(rendition.height));
                prop_assert!(rendition.width % 2 == 0 && rendition.height % 2 == 0 && w >= 2.0 && h >= 2.0);
                prop_assert!(w <= (wide + 1.0).max(2.0) && h <= (high + 1.0).max(2.0), "{w}x{h} of {wide}x{high}");
                // Each side is at most a pixel from the source's aspect ratio at the rung's height, or at the
                // source's own.
                let short = wide.min(high);
                let nominal = rendition.name.trim_end_matches('p').parse::<f64>().unwrap();
                let close = |side: f64, whole: f64, scale: f64| (side - whole * scale).abs() <= 1.0 + 1e-6 || side == 2.0;
                let is_close = |scale| close(w, wide, scale) && close(h, high, scale);
                prop_assert!(is_close(1.0) || (nominal < short && is_close(nominal / short)), "{w}x{h} of {wide}x{high}");
            }
            for pair in renditions.windows(2) {
                prop_assert!((pair[0].width, pair[0].height) != (pair[1].width, pair[1].height));
                prop_assert!(pair[0].name != pair[1].name && pair[0].max_bitrate_bps >= pair[1].max_bitrate_bps);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,60}", ladder in "[0-9pkM.:@crf,\\-av1opus]{0,40}") {
            let _ = (Ladder::parse(&text), Ladder::parse(&ladder));
        }
    }
}
