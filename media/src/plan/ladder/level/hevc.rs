//! Levels of H.265.
//!
//! Source: ITU-T H.265 (08/2021) Annex A, tables A.8 and A.9 and clause A.4; Main profile, Main tier.

use super::Needs;

/// One line of the tables.
struct Limits {
    /// Level times ten.
    level: u8,
    /// MaxLumaPs: pixels of a picture.
    pixels: u64,
    /// MaxLumaSr: pixels per second.
    pixels_per_second: u64,
    /// MaxBR of the Main tier: 1,000 bits per second.
    rate_kbps: u64,
    /// MaxCPB of the Main tier: 1,000 bits.
    buffer_kbits: u64,
}

const fn limits(level: u8, pixels: u64, pixels_per_second: u64, rate_kbps: u64, buffer_kbits: u64) -> Limits {
    Limits { level, pixels, pixels_per_second, rate_kbps, buffer_kbits }
}

const TABLE: [Limits; 13] = [
    limits(10, 36_864, 552_960, 128, 350),
    limits(20, 122_880, 3_686_400, 1_500, 1_500),
    limits(21, 245_760, 7_372_800, 3_000, 3_000),
    limits(30, 552_960, 16_588_800, 6_000, 6_000),
    limits(31, 983_040, 33_177_600, 10_000, 10_000),
    limits(40, 2_228_224, 66_846_720, 12_000, 12_000),
    limits(41, 2_228_224, 133_693_440, 20_000, 20_000),
    limits(50, 8_912_896, 267_386_880, 25_000, 25_000),
    limits(51, 8_912_896, 534_773_760, 40_000, 40_000),
    limits(52, 8_912_896, 1_069_547_520, 60_000, 60_000),
    limits(60, 35_651_584, 1_069_547_520, 60_000, 60_000),
    limits(61, 35_651_584, 2_139_095_040, 120_000, 120_000),
    limits(62, 35_651_584, 4_278_190_080, 240_000, 240_000),
];

/// Pixels of a coding block (`MinCbSizeY`). Sides are coded in whole blocks.
const BLOCK: u64 = 8;

/// Returns the smallest level, times ten; `None` if not even 6.2 allows it. With pictures up to MaxLumaPs a
/// decoder keeps six others, more than x265 needs.
pub(super) fn level(needs: Needs) -> Option<u8> {
    let (wide, high) =
        (needs.width.div_ceil(BLOCK).checked_mul(BLOCK)?, needs.height.div_ceil(BLOCK).checked_mul(BLOCK)?);
    let pixels = wide.checked_mul(high)?;
    let holds = |limits: &&Limits| {
        pixels <= limits.pixels
            && wide.max(high).checked_pow(2).is_some_and(|squared| squared <= 8 * limits.pixels)
            && pixels * u64::from(needs.fps.num()) <= limits.pixels_per_second * u64::from(needs.fps.den())
            && u64::from(needs.max_bitrate_bps) <= limits.rate_kbps * 1000
            && u64::from(needs.buffer_bits) <= limits.buffer_kbits * 1000
    };
    TABLE.iter().find(holds).map(|limits| limits.level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Rational;

    fn of(width: u64, height: u64, fps: u32, kbps: u32) -> Option<u8> {
        let fps = Rational::new(fps, 1).unwrap();
        level(Needs { width, height, fps, max_bitrate_bps: kbps * 1000, buffer_bits: kbps * 2000 })
    }

    #[test]
    fn known_sizes_get_their_known_levels() {
        let known = [
            (128, 96, 15, 64, 10),
            (320, 240, 30, 300, 20),
            (640, 360, 30, 800, 21),
            (854, 480, 30, 1_400, 30),
            (1280, 720, 30, 2_800, 31),
            (1280, 720, 60, 4_200, 40),
            (1920, 1080, 30, 5_000, 40),
            (1080, 1920, 30, 5_000, 40),
            (1920, 1080, 60, 7_500, 41),
            (3840, 2160, 30, 12_000, 50),
            (3840, 2160, 60, 18_000, 51),
            (3840, 2160, 120, 20_000, 52),
            (7680, 4320, 30, 25_000, 60),
            (7680, 4320, 60, 50_000, 61),
            (7680, 4320, 120, 100_000, 62),
        ];
        for (width, height, fps, kbps, level) in known {
            assert_eq!(of(width, height, fps, kbps), Some(level), "{width}x{height} {fps} fps {kbps} kb/s");
        }
        assert_eq!(of(1280, 720, 30, 6_000), Some(40), "the buffer decides");
        assert_eq!(of(8440, 16, 1, 64), Some(50), "too wide for 4.1");
    }

    #[test]
    fn past_the_table_there_is_none() {
        assert_eq!(of(16_384, 16_384, 1, 64), None);
        assert_eq!(of(7680, 4320, 130, 64), None);
        assert_eq!(of(u64::MAX, u64::MAX, 1, 1), None);
        assert_eq!(of(1280, 720, 30, 300_000), None);
    }
}
