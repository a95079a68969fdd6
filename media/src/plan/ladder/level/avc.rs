//! Levels of H.264.
//!
//! Source: ITU-T H.264 (08/2021) Annex A, table A-1 and clauses A.3.1 to A.3.3; High profile.

use super::Needs;

/// Frames that the decoder keeps, as x264 signals with B-frames as references, at any preset.
const DECODED_FRAMES: u64 = 4;

/// One line of table A-1.
struct Limits {
    /// Level times ten.
    level: u8,
    /// MaxMBPS: macroblocks per second.
    macroblocks_per_second: u64,
    /// MaxFS: macroblocks per frame.
    macroblocks: u64,
    /// MaxDpbMbs: macroblocks of decoded frames that are kept.
    kept_macroblocks: u64,
    /// MaxBR: 1,000 bits per second, before the profile's factor.
    rate_kbps: u64,
    /// MaxCPB: 1,000 bits, before the profile's factor.
    buffer_kbits: u64,
}

/// cpbBrVclFactor of the High profile (table A-2): bits per unit of MaxBR and MaxCPB.
const HIGH_PROFILE_FACTOR: u64 = 1250;

const fn limits(
    level: u8,
    macroblocks_per_second: u64,
    macroblocks: u64,
    kept_macroblocks: u64,
    rate_kbps: u64,
    buffer_kbits: u64,
) -> Limits {
    Limits { level, macroblocks_per_second, macroblocks, kept_macroblocks, rate_kbps, buffer_kbits }
}

/// Table A-1 without level 1b, which only raises the rate of level 1.
const TABLE: [Limits; 19] = [
    limits(10, 1_485, 99, 396, 64, 175),
    limits(11, 3_000, 396, 900, 192, 500),
    limits(12, 6_000, 396, 2_376, 384, 1_000),
    limits(13, 11_880, 396, 2_376, 768, 2_000),
    limits(20, 11_880, 396, 2_376, 2_000, 2_000),
    limits(21, 19_800, 792, 4_752, 4_000, 4_000),
    limits(22, 20_250, 1_620, 8_100, 4_000, 4_000),
    limits(30, 40_500, 1_620, 8_100, 10_000, 10_000),
    limits(31, 108_000, 3_600, 18_000, 14_000, 14_000),
    limits(32, 216_000, 5_120, 20_480, 20_000, 20_000),
    limits(40, 245_760, 8_192, 32_768, 20_000, 25_000),
    limits(41, 245_760, 8_192, 32_768, 50_000, 62_500),
    limits(42, 522_240, 8_704, 34_816, 50_000, 62_500),
    limits(50, 589_824, 22_080, 110_400, 135_000, 135_000),
    limits(51, 983_040, 36_864, 184_320, 240_000, 240_000),
    limits(52, 2_073_600, 36_864, 184_320, 240_000, 240_000),
    limits(60, 4_177_920, 139_264, 696_320, 240_000, 240_000),
    limits(61, 8_355_840, 139_264, 696_320, 480_000, 480_000),
    limits(62, 16_711_680, 139_264, 696_320, 800_000, 800_000),
];

/// Returns the smallest level, times ten; `None` if not even 6.2 allows it.
pub(super) fn level(needs: Needs) -> Option<u8> {
    let Needs { width, height, fps, max_bitrate_bps, buffer_bits } = needs;
    let (wide, high) = (width.div_ceil(16), height.div_ceil(16));
    let macroblocks = wide.checked_mul(high)?;
    let holds = |limits: &&Limits| {
        // A.3.1: neither side is longer than the square root of eight times MaxFS.
        let longest_squared = 8 * limits.macroblocks;
        macroblocks <= limits.macroblocks
            && wide.max(high).checked_pow(2).is_some_and(|squared| squared <= longest_squared)
            && macroblocks * u64::from(fps.num()) <= limits.macroblocks_per_second * u64::from(fps.den())
            && macroblocks * DECODED_FRAMES <= limits.kept_macroblocks
            && u64::from(max_bitrate_bps) <= limits.rate_kbps * HIGH_PROFILE_FACTOR
            && u64::from(buffer_bits) <= limits.buffer_kbits * HIGH_PROFILE_FACTOR
    };
    TABLE.iter().find(holds).map(|limits| limits.level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Rational;

    fn of(width: u64, height: u64, fps: u32, kbps: u32) -> Option<u8> {
        at(width, height, Rational::new(fps, 1).unwrap(), kbps * 1000, kbps * 2000)
    }

    fn at(width: u64, height: u64, fps: Rational, max_bitrate_bps: u32, buffer_bits: u32) -> Option<u8> {
        level(Needs { width, height, fps, max_bitrate_bps, buffer_bits })
    }

    #[test]
    fn known_sizes_get_their_known_levels() {
        let known = [
            (16, 16, 15, 64, 10),
            (176, 144, 15, 80, 10),
            (320, 240, 20, 192, 12),
            (352, 288, 30, 768, 13),
            (352, 288, 30, 1_250, 20),
            (640, 480, 30, 1_400, 30),
            (720, 576, 25, 2_000, 30),
            (854, 480, 30, 1_400, 31),
            (1280, 720, 30, 2_800, 31),
            (1280, 720, 60, 4_200, 32),
            (1920, 1080, 30, 5_000, 40),
            (1920, 1088, 30, 5_000, 40),
            (1080, 1920, 30, 5_000, 40),
            (1920, 1080, 30, 20_000, 41),
            (1920, 1080, 60, 7_500, 42),
            (2560, 1440, 30, 9_000, 50),
            (3840, 2160, 30, 16_000, 51),
            (3840, 2160, 60, 24_000, 52),
            (7680, 4320, 30, 60_000, 60),
            (7680, 4320, 60, 90_000, 61),
            (7680, 4320, 120, 150_000, 62),
        ];
        for (width, height, fps, kbps, level) in known {
            assert_eq!(of(width, height, fps, kbps), Some(level), "{width}x{height} {fps} fps {kbps} kb/s");
        }
    }

    #[test]
    fn each_limit_can_be_the_one_that_decides() {
        assert_eq!(of(8192, 2, 25, 64), Some(51), "too wide for 5.0 although it has few macroblocks");
        assert_eq!(of(320, 240, 10, 64), Some(12), "four frames do not fit the 900 macroblocks of 1.1");
        assert_eq!(
            at(640, 480, Rational::new(30, 1).unwrap(), 1_000_000, 12_500_001),
            Some(31),
            "the buffer"
        );
        assert_eq!(
            at(1280, 720, Rational::new(60_000, 1001).unwrap(), 1000, 1000),
            Some(32),
            "just below 60"
        );
        assert_eq!(
            at(1280, 720, Rational::new(60_001, 1000).unwrap(), 1000, 1000),
            Some(40),
            "just above 60"
        );
    }

    #[test]
    fn past_the_table_there_is_none() {
        assert_eq!(of(16_384, 16_384, 1, 64), None);
        assert_eq!(of(7680, 4320, 130, 64), None);
        assert_eq!(at(u64::MAX, u64::MAX, Rational::new(1, 1).unwrap(), 1, 1), None);
        assert_eq!(at(u64::MAX / 2, 1, Rational::new(u32::MAX, 1).unwrap(), 1, 1), None);
    }
}
