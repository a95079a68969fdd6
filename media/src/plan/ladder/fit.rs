//! Fits rungs to a source: the source's aspect ratio, never larger than the source.

use super::{
    Error, Ladder, Rung, VideoCodec, VideoRendition,
    level::{self, Level, Needs},
    rung_name,
};
use crate::{plan::grid::Grid, source::probe::VideoTrack, time::Rational};

/// Percentage of its height by which a rung may exceed the source and still be encoded, at the source's size.
/// A film in 1.85:1 has 1038 lines at a width of 1920 and is called 1080p; without this its best rung would
/// be 720p.
const NEAR_PERCENT: u128 = 5;
/// Size of the VBV in seconds of the peak rate: players buffer far more, and a scene change may use the bits
/// of two seconds.
const BUFFER_SECONDS: u32 = 2;

/// Default peak rates of H.264 at up to 30 frames per second, as pixels and bits per second. Between two
/// entries they are interpolated linearly; outside the table they are proportional to the pixels.
const PEAK_RATES: [(u64, u64); 6] = [
    (640 * 360, 800_000),
    (854 * 480, 1_400_000),
    (1280 * 720, 2_800_000),
    (1920 * 1080, 5_000_000),
    (2560 * 1440, 9_000_000),
    (3840 * 2160, 16_000_000),
];
/// Lowest default rate in bits per second: below it, container overhead is a large part of the stream.
const MIN_DEFAULT_BPS: u64 = 64_000;
/// Default rates are multiples of this, for readability.
const RATE_STEP_BPS: u64 = 10_000;

/// Displayed size: in square pixels, after rotation. Sides are fractions with the denominator `den`.
#[derive(Clone, Copy)]
struct Display {
    width: u128,
    height: u128,
    den: u128,
}

impl Display {
    fn of(video: &VideoTrack) -> Option<Self> {
        if video.width == 0 || video.height == 0 {
            return None;
        }
        let den = u128::from(video.sample_aspect.den());
        let width = u128::from(video.width) * u128::from(video.sample_aspect.num());
        let height = u128::from(video.height) * den;
        let turned = video.rotation % 180 == 90;
        Some(if turned { Self { width: height, height: width, den } } else { Self { width, height, den } })
    }

    fn short(self) -> u128 {
        self.width.min(self.height)
    }

    /// Returns both sides in even pixels, scaled so that the short one is `height`; `None` keeps the size.
    fn scaled(self, height: Option<u32>) -> (u64, u64) {
        let side = |side: u128| match height {
            Some(height) => nearest_even(side.saturating_mul(u128::from(height)), self.short()),
            None => nearest_even(side, self.den),
        };
        (side(self.width), side(self.height))
    }
}

pub(super) fn fit(ladder: &Ladder, video: &VideoTrack, grid: &Grid) -> Result<Vec<VideoRendition>, Error> {
    let display = Display::of(video).ok_or(Error::NoSize { width: video.width, height: video.height })?;
    let mut renditions: Vec<VideoRendition> = Vec::new();
    let mut too_small = None;
    for codec in VideoCodec::ALL {
        let rungs: Vec<&Rung> = ladder.rungs.iter().filter(|rung| rung.codec == codec).collect();
        let Some(lowest) = rungs.last() else { continue };
        for fitted in fit_codec(&rungs, lowest, display, grid.rate)? {
            let (width, height) = (u64::from(fitted.width), u64::from(fitted.height));
            if width.min(height) < codec.least_side() {
                too_small = Some(Error::TooSmall { codec, width, height, least: codec.least_side() });
            } else {
                renditions.push(fitted);
            }
        }
    }
    // The highest first; of one height in the order of the codecs.
    renditions.sort_by_key(|rendition| std::cmp::Reverse(rendition.width.min(rendition.height)));
    too_small.filter(|_| renditions.is_empty()).map_or(Ok(renditions), Err)
}

/// Returns the renditions of one codec's rungs.
fn fit_codec(
    rungs: &[&Rung],
    lowest: &Rung,
    display: Display,
    fps: Rational,
) -> Result<Vec<VideoRendition>, Error> {
    let mut renditions: Vec<VideoRendition> = Vec::new();
    for rung in rungs {
        let height = u128::from(rung.height) * display.den;
        let size = if height <= display.short() {
            display.scaled(Some(rung.height))
        } else if height * (100 - NEAR_PERCENT) <= display.short() * 100 {
            display.scaled(None)
        } else {
            continue;
        };
        let rendition = rendition(rung, rung.name(), size, fps)?;
        // Of two rungs with the same size the lower one is kept: it is nearer to the source.
        renditions.retain(|other| (other.width, other.height) != (rendition.width, rendition.height));
        renditions.push(rendition);
    }
    if renditions.is_empty() {
        let size = display.scaled(None);
        // It replaces the lowest rung: its rate exceeds neither that rung's nor the default of its own size.
        let usual_bps = default_rate(lowest.codec, size.0, size.1, fps);
        let rung =
            Rung { max_bitrate_bps: usual_bps.min(lowest.max_bitrate_bps.or(usual_bps)), ..lowest.clone() };
        renditions.push(rendition(&rung, rung_name(rung.codec, size.0.min(size.1)), size, fps)?);
    }
    Ok(renditions)
}

fn rendition(
    rung: &Rung,
    name: String,
    (width, height): (u64, u64),
    fps: Rational,
) -> Result<VideoRendition, Error> {
    let codec = rung.codec;
    let too_large = || Error::TooLarge { codec, width, height, fps };
    let max_bitrate_bps = match rung.max_bitrate_bps {
        Some(rate) => rate,
        None => default_rate(codec, width, height, fps).ok_or_else(too_large)?,
    };
    let buffer_bits = max_bitrate_bps.saturating_mul(BUFFER_SECONDS);
    let needs = Needs { width, height, fps, max_bitrate_bps, buffer_bits };
    // Distinguishes a size that no level allows from a rate that none allows.
    let least = Needs { max_bitrate_bps: 1, buffer_bits: 1, ..needs };
    let none =
        || level::level(codec, least).map_or_else(too_large, |_| Error::TooFast { codec, max_bitrate_bps });
    let level = match level::level(codec, needs).ok_or_else(none)? {
        Level::Explicit(level) => Some(level),
        Level::OwnChoice => None,
    };
    Ok(VideoRendition {
        name,
        codec,
        width: u32::try_from(width).map_err(|_| too_large())?,
        height: u32::try_from(height).map_err(|_| too_large())?,
        crf: rung.crf.unwrap_or(codec.usual_crf()),
        max_bitrate_bps,
        buffer_bits,
        level,
        preset: rung.preset.clone(),
    })
}

/// Returns the default peak rate of a rung: by [`PEAK_RATES`], and above 30 frames per second one sixtieth
/// more for each frame, so 4/3 at 50 and 3/2 at 60. Below 30 there are fewer frames, but each differs more
/// from the one before. In integers: the rate is part of the part key, and must be the same on every host.
fn default_rate(codec: VideoCodec, width: u64, height: u64, fps: Rational) -> Option<u32> {
    let pixels = width.checked_mul(height)?;
    let at = PEAK_RATES.partition_point(|&(anchor, _)| anchor <= pixels);
    let (before, after) = (at.checked_sub(1).and_then(|i| PEAK_RATES.get(i)), PEAK_RATES.get(at));
    let rate = match (before, after) {
        (Some((low, low_bps)), Some((high, high_bps))) => {
            low_bps + (high_bps - low_bps) * (pixels - low) / (high - low)
        }
        (Some((anchor, bps)), None) | (None, Some((anchor, bps))) => pixels.checked_mul(*bps)? / anchor,
        (None, None) => return None,
    };
    let thirty = 30 * u64::from(fps.den());
    let above_thirty = u64::from(fps.num()).saturating_sub(thirty);
    let rate = rate.checked_add(rate.checked_mul(above_thirty)? / (2 * thirty))?;
    let rate = rate.checked_mul(codec.rate_percent())? / 100;
    let rounded = rate.checked_add(RATE_STEP_BPS / 2)? / RATE_STEP_BPS * RATE_STEP_BPS;
    u32::try_from(rounded.max(MIN_DEFAULT_BPS)).ok()
}

/// Returns the even number nearest to `num / den`, the lower of two (never above the source), and at least 2.
fn nearest_even(num: u128, den: u128) -> u64 {
    let floor = num / (2 * den);
    let above_half = num - floor * 2 * den > den;
    u64::try_from((floor + u128::from(above_half)).saturating_mul(2)).unwrap_or(u64::MAX).max(2)
}
