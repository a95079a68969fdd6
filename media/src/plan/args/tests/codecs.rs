//! Codecs beside H.264: segments join, and repeat byte for byte.

use super::*;

#[test]
fn every_codec_joins_begins_media_segments_with_key_frames_and_gives_the_same_bytes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = clip(
        folder.path(),
        "a.mp4",
        "-f lavfi -i testsrc2=s=320x180:r=30000/1001:d=4 -c:v libx264 -preset ultrafast",
    );
    let mut source = Source::new(path, "mov", rational(1, 30_000), rational(30_000, 1001), 120);
    source.track = track(320, 180);
    for (codec, entry, configuration) in [
        (VideoCodec::Hevc, b"hvc1", b"hvcC"),
        (VideoCodec::Av1, b"av01", b"av1C"),
        (VideoCodec::Vp9, b"vp09", b"vpcC"),
    ] {
        let level = (codec == VideoCodec::Hevc).then_some(21);
        let rung = VideoRendition { codec, level, ..rendition("180p", 320, 180) };
        let encode = |name: &str, first: u64, frames: u64, threads| {
            let output = folder.path().join(format!("{name}.mp4"));
            let outputs = [(rung.clone(), output.clone())];
            run("ffmpeg", encode_video(&VideoEncode { threads, ..source.job(first, frames, &outputs) }));
            output
        };
        // The last segment of a video may have one frame.
        let pieces = [encode("first", 0, 60, 1), encode("middle", 60, 40, 1), encode("last", 100, 1, 1)];
        let files = pieces.each_ref().map(|piece| fs::read(piece).unwrap());
        let configurations = files.each_ref().map(|file| box_body(file, configuration));
        assert!(
            configurations[0] == configurations[1] && configurations[1] == configurations[2],
            "{codec}: {configurations:?}"
        );
        assert!(files[0].windows(4).any(|window| window == entry));
        for (piece, frames) in std::iter::zip(&pieces, [60, 40, 1]) {
            let packets = packets(piece, 0);
            assert_eq!(packets.len(), frames, "{codec}");
            assert!(packets.iter().step_by(20).all(|packet| packet.2), "{codec}: {packets:?}");
            assert!(packets.windows(2).all(|pair| pair[1].1 - pair[0].1 == 1001), "{codec}: {packets:?}");
            let delay = i64::from(reorder_frames(codec)) * 1001;
            assert!(
                packets.iter().all(|(pts, dts, _)| (dts + packets[0].0 - delay..).contains(pts)),
                "{codec}: {packets:?}"
            );
            assert_eq!(
                packets[0].0 - packets[0].1,
                if frames > 1 { delay } else { packets[0].0 - packets[0].1 },
                "{codec}"
            );
            assert_eq!(decoded(piece).len(), frames, "{codec}");
        }
        let of = |name: &str, threads| fs::read(encode(name, 0, 60, threads)).unwrap();
        assert!(of("again", 1) == files[0], "{codec}: the same arguments gave other bytes");
        let two = of("two", 2);
        assert!(
            (0..3).all(|_| of("again", 2) == two),
            "{codec}: the same arguments gave other bytes with two threads"
        );
    }
}
