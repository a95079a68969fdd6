//! Frame rate of a source, from its timestamps: exact if they are regular.

use crate::time::Rational;

/// Highest rate that is kept, for a regular source: above it, levels and decoders are hard to find.
const MAX_CONSTANT_FPS: u32 = 120;
/// Highest rate of the grid of an irregular source: bursts do not justify more.
const MAX_VARIABLE_FPS: u32 = 60;
/// Lowest rate that is kept: below one frame per second media segments cannot have the requested length.
const MIN_CONSTANT_FPS: u32 = 1;
/// Lowest rate of the grid of an irregular source: rare frames are still shown on time.
const MIN_VARIABLE_FPS: u32 = 12;
/// Largest numerator and denominator: FFmpeg's `fps` filter reads a rate as a double, which is exact for such
/// terms.
const MAX_TERM: u32 = 1_000_000;
/// Rate of a single frame if the container declares none.
const SINGLE_FRAME: (u32, u32) = (25, 1);
/// Rates that differ by no more than one part in this number are the same rate, rounded by a muxer; 24 and
/// 23.976 differ ten times as much.
const SAME_RATE_PARTS: i128 = 10_000;
/// Largest distance, as a fraction of the usual rate, of a rate that explains a source with gaps: 60 is still
/// found for 62.5 (16 ms).
const NEAR: f64 = 0.05;

/// Common rates, as numerator and denominator.
const COMMON: [(u32, u32); 23] = [
    (6, 1),
    (25, 4),
    (15, 2),
    (10, 1),
    (12_000, 1001),
    (12, 1),
    (25, 2),
    (15_000, 1001),
    (15, 1),
    (20, 1),
    (24_000, 1001),
    (24, 1),
    (25, 1),
    (30_000, 1001),
    (30, 1),
    (48_000, 1001),
    (48, 1),
    (50, 1),
    (60_000, 1001),
    (60, 1),
    (100, 1),
    (120_000, 1001),
    (120, 1),
];

/// The chosen rate.
pub(super) struct Chosen {
    /// Frames per second.
    pub rate: Rational,
    /// Whether source frame `i` belongs to grid frame `i`, for every `i`.
    pub constant: bool,
}

/// Reason to consider a rate. Of several rates that explain the times equally well, the first reason wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ground {
    /// The container declares it, and it is a common one.
    Declared,
    /// It is common.
    Common,
    /// It is a simple number near the median interval of frames.
    Simple,
    /// It is the median interval of frames, literally.
    Literal,
    /// The container declares it, and it is uncommon: mostly an average over the file.
    OddlyDeclared,
}

/// Returns the rate of a track whose frames are shown at these times (sorted, in ticks of `timebase`, at most
/// a few days apart).
pub(super) fn choose(shown: &[i64], timebase: Rational, declared: Option<Rational>) -> Chosen {
    let declared =
        declared.filter(|&rate| within(rate, MIN_CONSTANT_FPS, MAX_CONSTANT_FPS) && terms_are_small(rate));
    let Some(interval) = usual_interval(shown) else {
        let rate = declared.or_else(|| Rational::new(SINGLE_FRAME.0, SINGLE_FRAME.1)).unwrap_or(timebase);
        return Chosen { rate, constant: false };
    };
    let usual_fps = timebase.inverse().to_f64() / interval as f64;
    let mean_fps = (shown.len() - 1) as f64 * timebase.inverse().to_f64() / span(shown).max(1) as f64;
    let candidates = candidates(interval, [usual_fps, mean_fps], timebase, declared);
    if let Some(rate) = best(&candidates, shown, timebase, Gaps::Refused) {
        return Chosen { rate, constant: true };
    }
    let near: Vec<_> = candidates
        .into_iter()
        .filter(|&(_, rate)| within(rate, MIN_CONSTANT_FPS, MAX_VARIABLE_FPS))
        .filter(|&(_, rate)| (rate.to_f64() / usual_fps - 1.0).abs() <= NEAR)
        .collect();
    let declared = near.iter().find(|&&(ground, _)| ground == Ground::Declared).map(|&(_, rate)| rate);
    let rate = best(&near, shown, timebase, Gaps::Allowed)
        .or(declared)
        .unwrap_or_else(|| nearest_common(usual_fps, timebase));
    Chosen { rate, constant: false }
}

/// Returns the median interval of neighbouring frames in ticks; `None` with fewer than two.
fn usual_interval(shown: &[i64]) -> Option<i64> {
    let mut intervals: Vec<i64> =
        shown.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).filter(|&ticks| ticks > 0).collect();
    let middle = intervals.len() / 2;
    (!intervals.is_empty()).then(|| *intervals.select_nth_unstable(middle).1)
}

/// Returns the rates to try, within the limits. `fps` are estimates of the rate: the median of a coarse
/// timebase is off by up to half a tick, the mean only if frames are missing.
fn candidates(
    interval: i64,
    fps: [f64; 2],
    timebase: Rational,
    declared: Option<Rational>,
) -> Vec<(Ground, Rational)> {
    let common =
        COMMON.iter().filter_map(|&(num, den)| Rational::new(num, den)).map(|rate| (Ground::Common, rate));
    let simple = fps.into_iter().flat_map(|fps| {
        let fps = fps.min(f64::from(2 * MAX_CONSTANT_FPS));
        let terms = [
            (fps.round() as u32, 1),
            ((fps * 2.0).round() as u32, 2),
            ((fps * 1.001).round() as u32 * 1000, 1001),
        ];
        terms.into_iter().filter_map(|(num, den)| Rational::new(num, den)).map(|rate| (Ground::Simple, rate))
    });
    let literal = literal(interval, timebase).map(|rate| (Ground::Literal, rate));
    let declared =
        declared.map(|rate| (if is_usual(rate) { Ground::Declared } else { Ground::OddlyDeclared }, rate));
    let all = declared.into_iter().chain(common).chain(simple).chain(literal);
    all.filter(|&(_, rate)| within(rate, MIN_CONSTANT_FPS, MAX_CONSTANT_FPS)).collect()
}

/// Returns the ticks from the first to the last frame.
fn span(shown: &[i64]) -> i128 {
    shown.first().zip(shown.last()).map_or(0, |(&first, &last)| i128::from(last) - i128::from(first))
}

/// Returns the rate of one frame per `interval` ticks, if its terms are small.
fn literal(interval: i64, timebase: Rational) -> Option<Rational> {
    let (num, den) =
        (u64::from(timebase.den()), u64::try_from(interval).ok()?.checked_mul(u64::from(timebase.num()))?);
    let divisor = gcd(num, den);
    let rate = Rational::new(u32::try_from(num / divisor).ok()?, u32::try_from(den / divisor).ok()?)?;
    terms_are_small(rate).then_some(rate)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Whether frames may be missing on the grid.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gaps {
    Refused,
    Allowed,
}

/// Returns the rate that explains the times best, among those on whose grid every frame lies. Of rates that
/// explain them equally well, within the precision of the ticks, returns the one with the best [`Ground`].
fn best(
    candidates: &[(Ground, Rational)],
    shown: &[i64],
    timebase: Rational,
    gaps: Gaps,
) -> Option<Rational> {
    let fits: Vec<_> = candidates
        .iter()
        .filter_map(|&(ground, rate)| {
            wobble(shown, timebase, rate, gaps).map(|wobble| (ground, wobble, rate))
        })
        .collect();
    let least = fits.iter().map(|&(_, wobble, _)| wobble).min()?;
    let title = MILLIONTHS * span(shown);
    fits.into_iter()
        .filter(|&(_, wobble, rate)| {
            let quarter_frame = MILLIONTHS * per_frame(timebase, rate) / per_tick(timebase, rate) / 4;
            // One tick is rounding. With a source's own jitter, rates cannot be told apart whose wobble is up
            // to half larger. A muxer that rounds one duration and repeats it drifts slowly.
            let tolerance = MILLIONTHS.max(least / 2).max(quarter_frame.min(title / SAME_RATE_PARTS));
            wobble <= least + tolerance
        })
        .min_by_key(|&(ground, wobble, _)| (ground, wobble))
        .map(|(_, _, rate)| rate)
}

/// Units of wobble per tick.
const MILLIONTHS: i128 = 1_000_000;

/// Returns the spread of the frames around a grid, from the earliest to the latest, in millionths of a tick.
/// `None` if the frames do not lie on the grid: each must be nearest to a grid frame of its own, which
/// (without gaps) is the next one, and (with gaps) within a quarter of a frame.
fn wobble(shown: &[i64], timebase: Rational, rate: Rational, gaps: Gaps) -> Option<i128> {
    let (origin, last) = (i128::from(*shown.first()?), i128::from(*shown.last()?));
    let (per_tick, per_frame) = (per_tick(timebase, rate), per_frame(timebase, rate));
    let number = |position: i128| (2 * position + per_frame) / (2 * per_frame);
    if gaps == Gaps::Refused && number((last - origin) * per_tick) != shown.len() as i128 - 1 {
        return None; // The cheap test first: a wrong rate has drifted by the end.
    }
    let (mut earliest, mut latest, mut previous) = (0, 0, -1);
    for &pts in shown {
        let position = (i128::from(pts) - origin) * per_tick;
        let number = number(position);
        if number <= previous || (gaps == Gaps::Refused && number != previous + 1) {
            return None;
        }
        previous = number;
        earliest = earliest.min(position - number * per_frame);
        latest = latest.max(position - number * per_frame);
        if gaps == Gaps::Allowed && 4 * (latest - earliest) > per_frame {
            return None;
        }
    }
    Some(MILLIONTHS * (latest - earliest) / per_tick)
}

/// Returns a tick in the unit of [`per_frame`]: `per_frame / per_tick` ticks are one frame.
fn per_tick(timebase: Rational, rate: Rational) -> i128 {
    i128::from(timebase.num()) * i128::from(rate.num())
}

fn per_frame(timebase: Rational, rate: Rational) -> i128 {
    i128::from(timebase.den()) * i128::from(rate.den())
}

fn nearest_common(fps: f64, otherwise: Rational) -> Rational {
    COMMON
        .iter()
        .filter_map(|&(num, den)| Rational::new(num, den))
        .filter(|&rate| within(rate, MIN_VARIABLE_FPS, MAX_VARIABLE_FPS))
        .min_by(|a, b| (a.to_f64() - fps).abs().total_cmp(&(b.to_f64() - fps).abs()))
        .unwrap_or(otherwise)
}

fn is_usual(rate: Rational) -> bool {
    COMMON.contains(&(rate.num(), rate.den()))
        || rate.den() <= 2
        || (rate.den() == 1001 && rate.num().is_multiple_of(1000))
}

fn within(rate: Rational, least_fps: u32, most_fps: u32) -> bool {
    let fps_times_den = |fps: u32| u64::from(fps) * u64::from(rate.den());
    (fps_times_den(least_fps)..=fps_times_den(most_fps)).contains(&u64::from(rate.num()))
}

fn terms_are_small(rate: Rational) -> bool {
    rate.num() <= MAX_TERM && rate.den() <= MAX_TERM
}
