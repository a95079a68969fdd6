//! The complexity of a title: the share of its pictures that an encoder codes and does not skip, by size.
//!
//! Why: of equally many pixels those of a camera on a table took half the time of an animation's, and neither
//! length nor rate of the source shows which it is. What x264 skips does, and is the same on every machine.
//! At every rung, because noise that is coded at 1080p is gone at 480p: of a phone's pictures half was coded
//! there, and a third here. What skipping does not show, such as how fast x264 finds out that it can skip,
//! the samples' own processor time does.

use crate::plan::ladder::VideoRendition;

/// What encoded samples of a title's pictures showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Complexity {
    /// By pixels of a picture, the share of it that is coded and not skipped between keyframes, from 0 to 1.
    pub(crate) coded_shares: Vec<(u64, f64)>,
    /// The samples' processor time as a multiple of what the cost model predicts, where it is known.
    pub(crate) sampled_ratio: Option<f64>,
}

impl Complexity {
    /// Returns the coded share at the sampled size that is nearest to a rendition's.
    pub(crate) fn coded_share(&self, rendition: &VideoRendition) -> Option<f64> {
        self.share_near(pixels(rendition))
    }

    fn share_near(&self, pixels: u64) -> Option<f64> {
        self.coded_shares.iter().min_by_key(|(size, _)| size.abs_diff(pixels)).map(|(_, share)| *share)
    }

    /// Returns the mean over several titles, at the sizes of the first; `None` without any.
    #[must_use]
    pub fn mean(of: &[Self]) -> Option<Self> {
        let first = of.first()?;
        let share = |pixels: u64| {
            let near = of.iter().filter_map(|complexity| complexity.share_near(pixels));
            mean(&near.collect::<Vec<_>>()).unwrap_or_default()
        };
        let coded_shares = first.coded_shares.iter().map(|(pixels, _)| (*pixels, share(*pixels))).collect();
        let sampled_ratio =
            mean(&of.iter().filter_map(|complexity| complexity.sampled_ratio).collect::<Vec<_>>());
        Some(Self { coded_shares, sampled_ratio })
    }
}

pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

pub(crate) fn pixels(rendition: &VideoRendition) -> u64 {
    u64::from(rendition.width) * u64::from(rendition.height)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::VideoCodec;

    fn rendition(width: u32, height: u32) -> VideoRendition {
        let (name, codec, preset) = (format!("{height}p"), VideoCodec::H264, "veryfast".to_owned());
        VideoRendition {
            name,
            codec,
            width,
            height,
            crf: 23,
            max_bitrate_bps: 1,
            buffer_bits: 1,
            level: Some(40),
            preset,
        }
    }

    fn complexity(coded_shares: Vec<(u64, f64)>, sampled_ratio: Option<f64>) -> Complexity {
        Complexity { coded_shares, sampled_ratio }
    }

    #[test]
    fn a_size_without_a_sample_takes_the_nearest_one() {
        let complexity = complexity(vec![(1920 * 1080, 0.5), (854 * 480, 0.3)], None);
        assert_eq!(
            [(1920, 1080), (3840, 2160), (640, 360)]
                .map(|(width, height)| complexity.coded_share(&rendition(width, height)).unwrap()),
            [0.5, 0.5, 0.3]
        );
    }

    #[test]
    fn the_mean_is_taken_at_the_sizes_of_the_first_title() {
        let of = [
            complexity(vec![(100, 0.5), (50, 0.3)], Some(1.5)),
            complexity(vec![(90, 0.1)], Some(0.5)),
            complexity(vec![(90, 0.3)], None),
        ];
        let mean = Complexity::mean(&of).unwrap();
        assert_eq!(mean.sampled_ratio, Some(1.0));
        assert_eq!(
            mean.coded_shares.iter().map(|(size, share)| (*size, (share * 1e6).round())).collect::<Vec<_>>(),
            [(100, 3e5), (50, 233_333.0)]
        );
        assert_eq!(Complexity::mean(&[]), None);
    }
}
