//! Rates of a rendition: durations of its media segments, and bit rates.

use super::{Error, RenditionTrack};

/// Units of `EXTINF` per second: six digits after the point.
pub(super) const MICROS: u128 = 1_000_000;

/// Returns the highest bit rate of any run of media segments that lasts between half and one and a half
/// target durations, in bits per second, rounded up. If the rendition is shorter, returns its average rate.
///
/// # Errors
/// Returns [`Error::NoMedia`] for a rendition without media.
///
/// Source: RFC 8216 section 4.1 (peak segment bit rate).
pub fn peak_bps(track: &RenditionTrack) -> Result<u64, Error> {
    let target = u128::from(target_seconds(&durations_micros(track)?)) * u128::from(track.timescale);
    let mut peak: Option<(u128, u128)> = None;
    for first in 0..track.entries.len() {
        let (mut bytes, mut ticks) = (0, 0);
        for entry in &track.entries[first..] {
            bytes += u128::from(entry.bytes);
            ticks += u128::from(entry.duration_ticks);
            if 2 * ticks > 3 * target {
                break;
            }
            if 2 * ticks >= target
                && peak.is_none_or(|(most, during)| bytes.saturating_mul(during) > most.saturating_mul(ticks))
            {
                peak = Some((bytes, ticks));
            }
        }
    }
    peak.map_or_else(
        || average_bps(track),
        |(bytes, ticks)| Ok(bits_per_second(bytes, ticks, track.timescale)),
    )
}

/// Returns the bit rate of the whole rendition in bits per second, rounded up.
///
/// # Errors
/// Returns [`Error::NoMedia`] for a rendition without media.
///
/// Source: RFC 8216 section 4.1 (average segment bit rate).
pub fn average_bps(track: &RenditionTrack) -> Result<u64, Error> {
    durations_micros(track)?;
    let bytes = track.entries.iter().map(|entry| u128::from(entry.bytes)).sum();
    let ticks = track.entries.iter().map(|entry| u128::from(entry.duration_ticks)).sum();
    Ok(bits_per_second(bytes, ticks, track.timescale))
}

/// Returns the duration of each media segment in microseconds: the difference of its rounded end and start.
pub(super) fn durations_micros(track: &RenditionTrack) -> Result<Vec<u128>, Error> {
    let timescale = u128::from(track.timescale);
    if track.entries.is_empty()
        || timescale == 0
        || track.entries.iter().any(|entry| entry.duration_ticks == 0)
    {
        return Err(Error::NoMedia { name: track.name.clone() });
    }
    let (mut ticks, mut start) = (0, 0);
    let durations = track.entries.iter().map(|entry| {
        ticks += u128::from(entry.duration_ticks);
        let end = (ticks * MICROS + timescale / 2) / timescale;
        let duration = end - start;
        start = end;
        duration
    });
    Ok(durations.collect())
}

/// Returns the target duration in seconds: the longest duration, rounded to nearest, and at least 1.
pub(super) fn target_seconds(micros: &[u128]) -> u64 {
    let longest = micros.iter().max().copied().unwrap_or_default();
    u64::try_from((longest + MICROS / 2) / MICROS).unwrap_or(u64::MAX).max(1)
}

fn bits_per_second(bytes: u128, ticks: u128, timescale: u32) -> u64 {
    let bits = bytes.saturating_mul(8).saturating_mul(timescale.into());
    u64::try_from(bits.div_ceil(ticks.max(1))).unwrap_or(u64::MAX)
}
