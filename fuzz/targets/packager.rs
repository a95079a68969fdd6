//! Packages any bytes as an encoder's output: the packager ends with an error, or with media segments that
//! follow each other.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spool_media::{
    package::cmaf::{AudioSpec, Error, Packager, VideoSpec},
    time::Rational,
};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    sound: bool,
    rate: (u32, u32),
    first_media_segment: u16,
    frames: u16,
    media_segment_frames: u16,
    reorder_frames: u8,
    file: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let Some(rate) = Rational::new(input.rate.0, input.rate.1) else { return };
    let media_segment_frames = u32::from(input.media_segment_frames);
    let packager = if input.sound {
        Packager::audio(input.file, &AudioSpec { grid_timebase: rate, media_segment_frames, language: None })
    } else {
        let spec = VideoSpec {
            rate,
            first_frame: u64::from(input.first_media_segment) * u64::from(media_segment_frames),
            frames: u64::from(input.frames),
            media_segment_frames,
            reorder_frames: u32::from(input.reorder_frames),
        };
        Packager::video(input.file, &spec)
    };
    let Ok(mut packager) = packager else { return };
    let mut next: Option<(u32, u64)> = None;
    let segments: Result<Vec<_>, Error> = packager.by_ref().collect();
    for segment in segments.into_iter().flatten() {
        let due = *next.get_or_insert((segment.number, segment.start_ticks));
        assert_eq!((segment.number, segment.start_ticks), due, "media segments do not follow each other");
        next = Some((segment.number + 1, segment.start_ticks + segment.duration_ticks));
    }
    assert!(!packager.init().codecs.is_empty());
});
