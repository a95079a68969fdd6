use super::*;

fn rational(num: u32, den: u32) -> Rational {
    Rational::new(num, den).unwrap()
}

fn samples(pts: impl IntoIterator<Item = i64>, duration: u32) -> Vec<Sample> {
    pts.into_iter().map(|pts| Sample { pts, dts: pts, duration, offset: 0, size: 1, key: false }).collect()
}

/// Frame `i` at `i / fps`, rounded to the timebase as a muxer does.
fn regular(fps: Rational, timebase: Rational, frames: i64, origin: i64) -> Vec<Sample> {
    samples((0..frames).map(|i| origin + fps.inverse().rescale(i, timebase)), 0)
}

#[test]
fn constant_rates_are_kept_exactly_in_every_timebase() {
    let rates = [
        (24_000, 1001),
        (24, 1),
        (25, 1),
        (30_000, 1001),
        (30, 1),
        (50, 1),
        (60_000, 1001),
        (60, 1),
        (100, 1),
        (120_000, 1001),
        (120, 1),
        (12, 1),
        (25, 2),
        (15, 1),
        (15, 2),
        (18, 1),
        (72, 1),
        (10, 1),
        (1, 1),
        (6, 1),
    ];
    for rate in rates.map(|(num, den)| rational(num, den)) {
        for timescale in [600, 1000, 12_800, 15_360, 30_000, 90_000, 10_000_000] {
            for origin in [0, 7, 126_000] {
                let grid = Grid::of(
                    &regular(rate, rational(1, timescale), 10_000, origin),
                    rational(1, timescale),
                    None,
                )
                .unwrap();
                assert_eq!(
                    (grid.rate, grid.frames, grid.origin),
                    (rate, 10_000, origin),
                    "in 1/{timescale} s from {origin}"
                );
            }
        }
    }
}

#[test]
fn odd_constant_rates_are_kept_literally() {
    let grid = Grid::of(&samples((0..5000).map(|i| i * 3754), 3754), rational(1, 90_000), None).unwrap();
    assert_eq!(
        (grid.rate, grid.frames),
        (rational(45_000, 1877), 5000),
        "24000/1001 would drift by a quarter frame"
    );
    let grid = Grid::of(&samples((0..500).map(|i| i * 333_667), 0), rational(1, 10_000_000), None).unwrap();
    assert_eq!(grid.rate, rational(30_000, 1001), "one duration, rounded and repeated");
    let grid = Grid::of(&samples((0..40).map(|i| i * 7), 7), rational(1, 100), None).unwrap();
    assert_eq!((grid.rate, grid.frames), (rational(100, 7), 40), "a GIF");
}

#[test]
fn three_frames_of_milliseconds_are_enough_and_the_declared_rate_decides() {
    let (ms, clip) = (rational(1, 1000), samples([0, 33, 67], 0));
    let either = Grid::of(&clip, ms, None).unwrap().rate;
    assert!([rational(30, 1), rational(30_000, 1001)].contains(&either), "{either}");
    assert_eq!(Grid::of(&clip, ms, Some(rational(30, 1))).unwrap().rate, rational(30, 1));
    assert_eq!(Grid::of(&clip, ms, Some(rational(30_000, 1001))).unwrap().rate, rational(30_000, 1001));
    assert_eq!(Grid::of(&samples([0, 33], 0), ms, None).unwrap().rate, rational(30, 1));
    assert_eq!(
        Grid::of(&clip, ms, Some(rational(90_000, 1))).unwrap().rate,
        either,
        "nonsense is not believed"
    );
    assert_eq!(
        Grid::of(&clip, ms, Some(rational(50, 1))).unwrap().rate,
        either,
        "what does not fit is not believed"
    );
    assert_eq!(
        Grid::of(&clip, ms, Some(rational(2997, 100))).unwrap().rate,
        either,
        "an average is not preferred"
    );
}

#[test]
fn decoding_order_does_not_matter_and_times_may_be_negative() {
    let grid = Grid::of(
        &samples([-1024, -512, 1536, 512, 0, 1024, 3072, 2048, 2560], 512),
        rational(1, 12_800),
        None,
    )
    .unwrap();
    assert_eq!((grid.rate, grid.origin, grid.frames), (rational(25, 1), -1024, 9));
}

#[test]
fn a_phone_clip_that_drops_frames_gets_its_nominal_rate() {
    // 27 of 30 frames arrive, each up to 1.5 ms early or late.
    let pts =
        (0..600_i64).filter(|i| i % 10 != 3).map(|i| i * 3000 + (i * 7919) % 270 - 135 * i64::from(i > 0));
    let last = 599 * 3000;
    let grid = Grid::of(&samples(pts, 3000), rational(1, 90_000), Some(rational(27, 1))).unwrap();
    assert_eq!(grid.rate, rational(30, 1));
    assert!(
        (grid.frame_at(last)..=grid.frame_at(last) + 1).contains(&(grid.frames as i64)),
        "{}",
        grid.frames
    );
}

#[test]
fn milliseconds_with_gaps_still_tell_ntsc_from_thirty() {
    let pts =
        (0..3000).filter(|i| i % 50 != 49).map(|i| rational(1001, 30_000).rescale(i, rational(1, 1000)));
    let grid = Grid::of(&samples(pts, 0), rational(1, 1000), None).unwrap();
    assert_eq!(
        (grid.rate, grid.frames),
        (rational(30_000, 1001), 2999),
        "the median alone, 33 ms, would say 30"
    );
}

#[test]
fn irregular_and_very_fast_sources_stay_at_or_below_sixty() {
    let fast = Grid::of(&samples((0..480).map(|i| i * 375), 375), rational(1, 90_000), None).unwrap();
    assert_eq!((fast.rate, fast.frames), (rational(60, 1), 120));
    let slides = Grid::of(&samples([0, 5000, 11_000, 14_000], 61_000), rational(1, 1000), None).unwrap();
    assert_eq!((slides.rate, slides.frames), (rational(12, 1), 14 * 12 + 1), "61 s are not believed");
    let slides = Grid::of(&samples([0, 5000, 11_000, 14_000], 60_000), rational(1, 1000), None).unwrap();
    assert_eq!((slides.rate, slides.frames), (rational(12, 1), 74 * 12));
    let slides = Grid::of(&samples([0, 40_000, 80_000], 80_000), rational(1, 1000), None).unwrap();
    assert_eq!(
        (slides.rate, slides.frames),
        (rational(12, 1), 160 * 12),
        "twice as long as the longest before it"
    );
    let ticks = Grid::of(&samples([0, 1, 2, 3, 90_000], 0), rational(1, 90_000), None).unwrap();
    assert_eq!(ticks.rate, rational(60, 1));
}

#[test]
fn one_frame_is_a_video() {
    let still =
        |duration, declared| Grid::of(&samples([1800], duration), rational(1, 90_000), declared).unwrap();
    assert_eq!((still(0, None).rate, still(0, None).frames), (rational(25, 1), 1));
    assert_eq!((still(3003, Some(rational(30_000, 1001))).frames, still(180_000, None).frames), (1, 50));
    assert_eq!(still(u32::MAX, None).frames, 1, "13 hours are not believed");
    let twice = Grid::of(&samples([5, 5, 5], 0), rational(1, 25), None).unwrap();
    assert_eq!((twice.rate, twice.frames), (rational(25, 1), 1));
}

#[test]
fn hostile_times_are_errors_or_grids_and_never_panics() {
    assert_eq!(Grid::of(&[], rational(1, 25), None), Err(Error::NoFrames));
    assert_eq!(Grid::for_audio(&[], rational(1, 25)), Err(Error::NoFrames));
    assert!(matches!(
        Grid::of(&samples([0, i64::MAX], 1), rational(1, 90_000), None),
        Err(Error::TooLong { .. })
    ));
    assert!(matches!(Grid::of(&samples([0, 2], 1), rational(u32::MAX, 1), None), Err(Error::TooLong { .. })));
    for timebase in
        [rational(1, u32::MAX), rational(u32::MAX, 1), rational(u32::MAX, u32::MAX - 1), rational(1, 1)]
    {
        for pts in [
            vec![i64::MAX],
            vec![i64::MIN],
            vec![i64::MIN, i64::MIN + 1],
            vec![0, 1, 1, 3],
            vec![i64::MAX - 1, i64::MAX],
        ] {
            let Ok(grid) = Grid::of(&samples(pts.clone(), u32::MAX), timebase, Some(timebase)) else {
                continue;
            };
            let span = grid.span_of(0, u64::MAX);
            assert!(span.start <= span.end && grid.frames >= 1, "{pts:?}");
            let _ = (
                grid.frames_until(i64::MAX, timebase),
                grid.frames_until(i64::MIN, rational(u32::MAX, 1)),
                grid.timescale(),
            );
            let _ = (grid.frame_at(i64::MIN), Grid::for_audio(&samples(pts, 1), timebase).map(|g| g.frames));
        }
    }
}

#[test]
fn output_ticks_divide_every_frame() {
    let ticks = |num, den| {
        let grid =
            Grid { rate: rational(num, den), source_timebase: rational(1, 1000), origin: 0, frames: 1 };
        (grid.timescale(), grid.frame_ticks())
    };
    assert_eq!(ticks(25, 1), (10_000, 400));
    assert_eq!(ticks(30, 1), (10_020, 334));
    assert_eq!(ticks(24, 1), (10_008, 417));
    assert_eq!(ticks(30_000, 1001), (30_000, 1001));
    assert_eq!(ticks(25, 2), (10_000, 800));
}

#[test]
fn sound_alone_is_counted_in_milliseconds() {
    let aac = samples((0..469).map(|i| i * 1024), 1024);
    let grid = Grid::for_audio(&aac, rational(1, 48_000)).unwrap();
    assert_eq!(
        (grid.rate, grid.origin, grid.frames),
        (rational(1000, 1), 0, 10_006),
        "469 * 1024 / 48 = 10005.3"
    );
    let undurated = Grid::for_audio(&samples([0, 26, 52], 0), rational(1, 1000)).unwrap();
    assert_eq!(undurated.frames, 78);
}

#[test]
fn another_track_is_measured_from_the_first_picture() {
    let grid =
        Grid { rate: rational(30_000, 1001), source_timebase: rational(1, 90_000), origin: 3003, frames: 10 };
    assert_eq!(
        grid.frames_until(48_000, rational(1, 48_000)),
        29,
        "1 s - 1001/30000 s is just below 29 frames"
    );
    assert_eq!(grid.frames_until(3003 * 4, rational(1, 90_000)), 3);
    assert_eq!(grid.frames_until(3003 * 4 + 1, rational(1, 90_000)), 4);
    assert_eq!(grid.frames_until(0, rational(1, 48_000)), 0);
    assert_eq!(
        grid.frames_until(i64::MAX, rational(1, 1)),
        (48 * 3600 * 30_000_u64).div_ceil(1001),
        "no more than the longest title"
    );
}

mod laws {
    use proptest::prelude::*;

    use super::*;

    fn any_grid() -> impl Strategy<Value = Grid> {
        let rates = prop::sample::select(vec![
            (24_000, 1001),
            (25, 1),
            (30_000, 1001),
            (60, 1),
            (120, 1),
            (100, 7),
            (1, 1),
        ]);
        let timescales =
            prop::sample::select(vec![25_u32, 600, 1000, 12_800, 30_000, 44_100, 90_000, 10_000_000]);
        (rates, timescales, -200_000..200_000_i64, 1..1_000_000_u64).prop_map(
            |((num, den), timescale, origin, frames)| Grid {
                rate: rational(num, den),
                source_timebase: rational(1, timescale),
                origin,
                frames,
            },
        )
    }

    proptest! {
        #[test]
        fn a_span_holds_exactly_the_ticks_of_its_frames(grid in any_grid(), first in 0..500_000_u64, frames in 1..1000_u64) {
            let span = grid.span_of(first, frames);
            prop_assert!(grid.frame_at(span.start) >= first as i64 && grid.frame_at(span.start - 1) < first as i64);
            let end = (first + frames) as i64;
            prop_assert!(grid.frame_at(span.end) >= end && grid.frame_at(span.end - 1) < end);
        }

        /// `fps` shows, at each grid frame, the last source frame that belongs to it or to an earlier one.
        #[test]
        fn what_a_run_shows_lies_in_what_it_needs(
            grid in any_grid(), mut gaps in prop::collection::vec(0..9000_i64, 1..60), first in 0..40_u64, frames in 1..20_u64,
        ) {
            gaps[0] = 0;
            let shown: Vec<i64> = gaps.iter().scan(grid.origin, |at, gap| { *at += gap; Some(*at) }).collect();
            let needs = grid.needs(&shown, first, frames);
            for frame in first..first + frames {
                let source = *shown.iter().rfind(|&&pts| grid.frame_at(pts) <= frame as i64).unwrap();
                prop_assert!(needs.contains(&source), "frame {} shows {} outside of {:?}", frame, source, needs);
            }
        }

        #[test]
        fn any_times_give_a_grid_that_covers_them(
            gaps in prop::collection::vec(1..20_000_i64, 1..200), timescale in 1000..100_000_u32, origin in 0..1_000_000_i64,
        ) {
            let pts: Vec<i64> = gaps.iter().scan(origin, |at, gap| { *at += gap; Some(*at) }).collect();
            let grid = Grid::of(&samples(pts.clone(), 0), rational(1, timescale), None).unwrap();
            prop_assert_eq!(grid.origin, pts[0]);
            prop_assert_eq!(grid.frames as i64, grid.frame_at(*pts.last().unwrap()) + 1);
            prop_assert!((1.0..=120.0).contains(&grid.rate.to_f64()));
        }

        #[test]
        fn a_regular_source_has_as_many_frames_as_samples_although_it_wobbles(
            interval in 750..90_000_i64, frames in 2..400_usize, seed in any::<u64>(), origin in 0..1_000_000_i64,
        ) {
            // Up to a fifth of a frame early or late, by a small random generator.
            let mut state = seed | 1;
            let pts = (0..frames as i64).map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let wobble = (state >> 33) as i64 % (2 * interval / 5 + 1) - interval / 5;
                origin + i * interval + if i == 0 { 0 } else { wobble }
            });
            let declared = rational(90_000, interval as u32);
            let grid = Grid::of(&samples(pts, 0), rational(1, 90_000), Some(declared)).unwrap();
            prop_assert_eq!(grid.frames, frames as u64);
        }
    }
}

mod as_ffmpeg_does {
    use std::process::Command;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "tests make their own clips")]
    fn run(program: &str, args: &[&str]) -> String {
        let output = Command::new(program).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{program} {args:?}\n{text}");
        text.into_owned()
    }

    /// Encodes a clip, indexes it by ffprobe, and compares with the output of FFmpeg's `fps` filter.
    fn compare(name: &str, filter: &str, muxing: &[&str]) -> (Grid, usize) {
        let folder = tempfile::tempdir().unwrap();
        let clip = folder.path().join(name);
        let clip = clip.to_str().unwrap();
        let source = ["-v", "error", "-f", "lavfi", "-i", "testsrc=s=64x36:r=30000/1001:d=4", "-vf", filter];
        let encoder = ["-vsync", "vfr", "-c:v", "libx264", "-preset", "ultrafast", "-bf", "2"];
        run("ffmpeg", &[&source[..], &encoder, muxing, &[clip]].concat());

        let ask = ["-v", "error", "-select_streams", "v:0", "-of", "csv=p=0"];
        let timebase = run("ffprobe", &[&ask[..], &["-show_entries", "stream=time_base", clip]].concat());
        let timebase: Rational = timebase.lines().next().unwrap().trim_matches(',').parse().unwrap();
        let packets = run("ffprobe", &[&ask[..], &["-show_entries", "packet=pts,duration", clip]].concat());
        let samples: Vec<Sample> = packets
            .lines()
            .filter_map(|line| line.split_once(','))
            .flat_map(|(pts, duration)| {
                samples([pts.parse().unwrap()], duration.trim_matches(',').parse().unwrap_or(0))
            })
            .collect();
        let grid = Grid::of(&samples, timebase, None).unwrap();

        // The last frame is held before `fps` and the end cut after it: by itself the filter ends at the
        // declared end of the last frame, and drops it if that rounds to its start (FFmpeg's own MOV, whose
        // last duration is one tick).
        let (origin, rate, frames) = (grid.origin, grid.rate, grid.frames);
        let filter = format!(
            "tpad=stop=-1:stop_mode=clone,setpts=PTS-{origin},fps={rate}:round=near,trim=end_frame={frames}"
        );
        let log = run("ffmpeg", &["-v", "debug", "-copyts", "-i", clip, "-vf", &filter, "-f", "null", "-"]);
        let pairs = |before: &str, between: &str| -> Vec<(i64, i64)> {
            let numbers = log.lines().filter_map(|line| line.split_once(before)?.1.split_once(between));
            numbers.map(|(a, b)| (a.parse().unwrap(), b.trim().parse().unwrap())).collect()
        };
        let shown = shown(&samples);
        let mut read = pairs("Read frame with in pts ", ", out pts ");
        let compared = shown.len();
        read.truncate(compared); // What follows are copies of the last one.
        let expected: Vec<_> = shown.iter().map(|&pts| (pts - grid.origin, grid.frame_at(pts))).collect();
        assert_eq!(read, expected, "where each source frame belongs");

        let written = pairs("Writing frame with pts ", " to pts ");
        assert!(written.len() as u64 >= grid.frames, "{} of {} frames", written.len(), grid.frames);
        let (_, last) = expected[compared - 1];
        for (n, &(from, to)) in written.iter().enumerate().take(usize::try_from(grid.frames).unwrap()) {
            let expected = expected.iter().rfind(|&&(_, frame)| frame <= n as i64).unwrap().1;
            assert!(
                to == n as i64 && (from == expected || (expected == last && from > last)),
                "frame {n} shows {from}, not {expected}"
            );
        }
        (grid, compared)
    }

    #[test]
    fn constant_rate_in_mp4_mkv_and_ts() {
        for name in ["clip.mp4", "clip.mkv", "clip.ts"] {
            let (grid, frames) = compare(name, "null", &[]);
            assert_eq!((grid.rate, grid.frames, frames), (rational(30_000, 1001), 120, 120), "{name}");
        }
        let (grid, _) = compare("clip.mov", "null", &["-video_track_timescale", "600"]);
        assert_eq!((grid.rate, grid.frames), (rational(30_000, 1001), 120));
    }

    #[test]
    fn variable_rate_in_mp4_and_mkv() {
        for name in ["clip.mp4", "clip.mkv"] {
            let (grid, frames) = compare(
                name,
                "select='not(eq(mod(n,9),4))*not(between(n,50,70))',setpts=PTS+0.011*random(1)/TB",
                &[],
            );
            assert!(frames < 100, "{name}");
            assert!([rational(30_000, 1001), rational(30, 1)].contains(&grid.rate), "{name}: {}", grid.rate);
        }
    }
}
