//! Parses any text as a ladder: the result is an error that fits on a screen, or a ladder that survives being
//! written and parsed again, and fits sources or gives the reason.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spool_media::{
    plan::{
        grid::Grid,
        ladder::{Ladder, LadderEntry},
    },
    source::probe::{Color, VideoTrack},
    time::Rational,
};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    size: (u32, u32),
    aspect: (u32, u32),
    rate: (u32, u32),
    turned: bool,
    text: &'a str,
}

fuzz_target!(|input: Input<'_>| {
    let ladder = match Ladder::parse(input.text) {
        Ok(ladder) => ladder,
        Err(error) => {
            assert!(error.to_string().len() < 600, "an error that repeats its input");
            return;
        }
    };
    assert_eq!(Ladder::try_from(Vec::<LadderEntry>::from(ladder.clone())).as_ref(), Ok(&ladder));
    let json = serde_json::to_string(&ladder).expect("numbers and strings");
    assert_eq!(serde_json::from_str::<Ladder>(&json).expect("a ladder that was written can be read"), ladder);
    let (Some(sample_aspect), Some(rate)) =
        (Rational::new(input.aspect.0, input.aspect.1), Rational::new(input.rate.0, input.rate.1))
    else {
        return;
    };
    let video = VideoTrack {
        stream: 0,
        codec: "h264".to_owned(),
        width: input.size.0,
        height: input.size.1,
        sample_aspect,
        rotation: if input.turned { 90 } else { 0 },
        mirrored: false,
        declared_fps: None,
        pixel_format: "yuv420p".to_owned(),
        bit_depth: 8,
        color: Color::default(),
        interlaced: false,
    };
    let grid = Grid { rate, source_timebase: rate.inverse(), origin: 0, frames: 1 };
    if let Ok(renditions) = ladder.fit(&video, &grid) {
        assert!(
            !renditions.is_empty()
                && renditions
                    .iter()
                    .all(|r| r.width % 2 == 0 && r.height % 2 == 0 && r.width > 0 && r.height > 0)
        );
        let mut names: Vec<_> = renditions.iter().map(|r| &r.name).collect();
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "two renditions of one name");
    }
});
