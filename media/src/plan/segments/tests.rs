use proptest::prelude::*;

use super::*;

fn grid(num: u32, den: u32, frames: u64) -> Grid {
    Grid {
        rate: Rational::new(num, den).unwrap(),
        source_timebase: Rational::new(1, 90_000).unwrap(),
        origin: 0,
        frames,
    }
}

fn pairs(cuts: &[Cut]) -> Vec<(u64, u64)> {
    cuts.iter().map(|cut| (cut.first_frame, cut.frames)).collect()
}

#[test]
fn a_media_segment_is_a_whole_number_of_frames() {
    let frames = |num, den, seconds| {
        Lengths::new(Some(60.0), seconds).unwrap().media_segment_frames(&grid(num, den, 1))
    };
    assert_eq!(frames(30_000, 1001, 4.0), 120);
    assert_eq!(frames(24_000, 1001, 4.0), 96);
    assert_eq!(frames(25, 1, 4.0), 100);
    assert_eq!(frames(60_000, 1001, 6.0), 360);
    assert_eq!(frames(1, 1, 0.1), 1, "never none");
    assert_eq!(frames(1000, 1, 4.0), 4000, "sound alone");
    assert_eq!(frames(25, 1, 0.1), 3, "2.5 frames, halves up");
}

#[test]
fn without_preferences_cuts_are_even_and_a_short_tail_joins_the_last() {
    let cut_at = |frames, seconds| {
        pairs(&cut(&grid(30_000, 1001, frames), &[], Lengths::new(Some(seconds), 4.0).unwrap()).unwrap())
    };
    assert_eq!(cut_at(599, 8.0), [(0, 240), (240, 240), (480, 119)]);
    assert_eq!(cut_at(559, 8.0), [(0, 240), (240, 319)], "79 frames are less than a third of 240");
    assert_eq!(cut_at(560, 8.0), [(0, 240), (240, 240), (480, 80)]);
    assert_eq!(cut_at(1, 30.0), [(0, 1)]);
    assert_eq!(cut_at(240, 8.0), [(0, 240)]);
    assert_eq!(cut_at(1000, 30.0), [(0, 1000)]);
    assert_eq!(
        cut_at(360, 6.0),
        [(0, 240), (240, 120)],
        "6 s are no whole media segments: the nearest, here up"
    );
    assert!(cut(&grid(25, 1, 0), &[], Lengths::default()).unwrap().is_empty());
}

#[test]
fn the_last_segments_of_a_long_title_are_shorter() {
    let lengths = |seconds: u64| {
        cut(&grid(25, 1, seconds * 25), &[], Lengths::default())
            .unwrap()
            .iter()
            .map(|cut| cut.frames / 25)
            .collect::<Vec<_>>()
    };
    assert_eq!(lengths(236), [28, 28, 28, 28, 28, 28, 28, 28, 12], "as long as they are asked for");
    assert_eq!(lengths(600)[18..], [28, 28, 20, 8, 8, 4]);
}

#[test]
fn a_short_title_is_cut_into_several_segments_unless_told() {
    let seconds = |title: u64, lengths: Lengths| {
        cut(&grid(25, 1, title * 25), &[], lengths)
            .unwrap()
            .iter()
            .map(|cut| cut.frames / 25)
            .collect::<Vec<_>>()
    };
    assert_eq!(seconds(60, Lengths::default()), [16, 16, 16, 12]);
    assert_eq!(seconds(120, Lengths::default()), [28, 28, 28, 36]);
    assert_eq!(seconds(30, Lengths::default()), [8, 8, 8, 6]);
    assert_eq!(seconds(12, Lengths::default()), [4; 3], "as many as there are media segments");
    assert_eq!(seconds(3, Lengths::default()), [3]);
    assert_eq!(seconds(60, Lengths::new(Some(30.0), 4.0).unwrap()), [28, 32]);
    assert_eq!(seconds(60, Lengths::new(None, 20.0).unwrap()), [20; 3]);
}

#[test]
fn a_boundary_goes_where_a_keyframe_has_just_been() {
    // 25 fps, media segments of 100 frames, target 750: boundaries from 563 to 937 may be taken.
    let at = |frame: i64| frame * 3600;
    let first = |keys: &[i64]| cut(&grid(25, 1, 10_000), keys, Lengths::default()).unwrap()[0].frames;
    assert_eq!(first(&[at(0), at(899)]), 900, "one frame of preroll");
    assert_eq!(first(&[at(0), at(599), at(898)]), 600);
    assert_eq!(first(&[at(0), at(600), at(800), at(900)]), 800, "of equals the nearest to 750");
    assert_eq!(first(&[at(0), at(700), at(800)]), 700, "of equally near ones the first");
    assert_eq!(first(&[at(0), at(500), at(1000)]), 600, "neither keyframe may be a boundary");
    assert_eq!(first(&[at(901)]), 600, "the first keyframe comes late");
}

#[test]
fn lengths_are_checked() {
    let message = |segment, media| Lengths::new(Some(segment), media).unwrap_err().to_string();
    assert_eq!(message(30.0, 0.0), "a media segment of 0 s: it must be from 0.1 to 60 s");
    assert_eq!(message(30.0, f64::NAN), "a media segment of NaN s: it must be from 0.1 to 60 s");
    assert_eq!(message(3.0, 4.0), "a segment of 3 s: it must be from 4 to 3600 s");
    assert_eq!(message(f64::INFINITY, 4.0), "a segment of inf s: it must be from 4 to 3600 s");
    assert_eq!(message(-30.0, 4.0), "a segment of -30 s: it must be from 4 to 3600 s");
    assert_eq!(Lengths::new(None, 4.0).unwrap(), Lengths::default());
    assert!(Lengths::new(Some(0.1), 0.1).is_ok() && Lengths::new(Some(3600.0), 60.0).is_ok());
    assert_eq!(Lengths::new(Some(30.0), 0.0).unwrap_err().kind(), ErrorKind::BadInput);
}

#[test]
fn too_many_segments_are_an_error_that_names_a_length_that_works() {
    for (num, den) in [(25, 1), (120_000, 1001), (1, 1), (100, 7)] {
        let rate = f64::from(num) / f64::from(den);
        let long = grid(num, den, (48.0 * 3600.0 * rate) as u64);
        let Err(Error::TooMany { enough_seconds, .. }) =
            cut(&long, &[], Lengths::new(Some(2.0), 2.0).unwrap())
        else {
            panic!("86,400 segments")
        };
        let keys: Vec<i64> = (0..48 * 3600 / 3).map(|i| i * 270_000).collect();
        for media in [0.1, 7.0, 18.0] {
            let cuts = cut(&long, &keys, Lengths::new(Some(enough_seconds as f64), media).unwrap()).unwrap();
            assert!(cuts.len() <= MAX_SEGMENTS, "{}", cuts.len());
        }
    }
}

#[test]
fn rows_have_sound_first_and_times_that_add_up() {
    let source = Source { uri: "file:///a.mp4".into(), etag: "\"1\"".into(), bytes: 9 };
    let (grid, lengths) = (grid(30_000, 1001, 599), Lengths::new(Some(8.0), 4.0).unwrap());
    let cuts = cut(&grid, &[], lengths).unwrap();
    let rows = rows(&source, &grid, &cuts, lengths, &[590, 610], 0);
    let found: Vec<_> =
        rows.iter().map(|r| (r.track, r.index, r.first_frame, r.frames, r.start_ms, r.duration_ms)).collect();
    assert_eq!(
        found,
        [
            (SegmentTrack::Audio, 0, 0, 599, 0, 19_987),
            (SegmentTrack::Audio, 1, 0, 610, 0, 20_354),
            (SegmentTrack::Video, 0, 0, 240, 0, 8008),
            (SegmentTrack::Video, 1, 240, 240, 8008, 8008),
            (SegmentTrack::Video, 2, 480, 119, 16_016, 3971),
        ]
    );
    let common = |row: &Segment| {
        row.source == source.uri
            && row.etag == source.etag
            && row.timebase == Rational::new(1001, 30_000).unwrap()
            && (row.media_segment_frames, row.title_frames) == (120, 599)
    };
    assert!(rows.iter().all(common));
}

#[test]
fn keys_are_the_sorted_times_of_keyframes() {
    let sample = |pts, key| Sample { pts, dts: 0, duration: 1, offset: 0, size: 1, key };
    assert_eq!(keys(&[sample(9, true), sample(3, false), sample(-2, true), sample(5, true)]), [-2, 5, 9]);
}

proptest! {
    #[test]
    fn cuts_cover_the_title_exactly_once_in_whole_media_segments(
        gaps in prop::collection::vec(0..20_000_i64, 1..600),
        key_every in 1..400_usize,
        offset in 0..50_usize,
        timescale in 1000..90_000_u32,
        media_ms in 100..8000_u32,
        longer_ms in 0..60_000_u32,
    ) {
        let samples: Vec<Sample> = gaps.iter().enumerate().scan(0, |at, (i, gap)| {
            *at += gap;
            Some(Sample { pts: *at, dts: *at, duration: 0, offset: 0, size: 1, key: i % key_every == offset % key_every })
        }).collect();
        let grid = Grid::of(&samples, Rational::new(1, timescale).unwrap(), None).unwrap();
        let (media_seconds, seconds) = (f64::from(media_ms) / 1000.0, f64::from(media_ms + longer_ms) / 1000.0);
        let lengths = Lengths::new(Some(seconds), media_seconds).unwrap();
        let keys = keys(&samples);
        let Ok(cuts) = cut(&grid, &keys, lengths) else {
            prop_assert!(grid.frames > MAX_SEGMENTS as u64);
            return Ok(());
        };

        let media = u64::from(lengths.media_segment_frames(&grid));
        let target = ((seconds * grid.rate.to_f64()).round() as u64).max(media);
        let mut next = 0;
        for (i, found) in cuts.iter().enumerate() {
            prop_assert_eq!(found.first_frame, next);
            let target = tapered(&grid, next, target, media);
            prop_assert!(found.frames > 0 && found.first_frame % media == 0);
            next += found.frames;
            if i + 1 == cuts.len() {
                break;
            }
            prop_assert!(found.frames.abs_diff(target) <= (target / 4).max(media), "{} of {}", found.frames, target);
            let nearest = ((found.first_frame + target + media / 2) / media * media).max(found.first_frame + media);
            if nearest.abs_diff(found.first_frame + target) <= target / 4 {
                prop_assert!(preroll(&grid, &keys, next) <= preroll(&grid, &keys, nearest));
            }
        }
        prop_assert_eq!(next, grid.frames);
        if let [.., before, last] = &cuts[..] {
            prop_assert!(last.frames * 3 >= tapered(&grid, before.first_frame, target, media) && before.frames > 0);
        }
        prop_assert_eq!(cut(&grid, &keys, lengths).unwrap(), cuts);
    }

    #[test]
    fn preroll_is_the_way_from_the_last_keyframe(keys in prop::collection::btree_set(-5000..500_000_i64, 1..40), frame in 0..200_u64) {
        let (grid, keys) = (grid(30_000, 1001, 200), keys.into_iter().collect::<Vec<_>>());
        let key = keys.iter().map(|&key| grid.frame_at(key)).rfind(|&key| key <= frame as i64).unwrap_or(0);
        prop_assert_eq!(preroll(&grid, &keys, frame) as i64, frame as i64 - key);
    }
}
