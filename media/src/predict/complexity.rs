//! Complexity of a source: the share of its pictures that an encoder codes and does not skip, by size.
//!
//! For the same number of pixels, video of a static camera took half the time of an animation, and neither
//! length nor rate of the source shows the difference. The share that x264 skips does, and it is the same on
//! every host. It is measured at every rung, because noise that is coded at 1080p is gone at 480p: of a
//! phone's video, half was coded at 1080p and a third at 480p. Other differences, such as the time that x264
//! needs to decide to skip, show in the samples' processor time.

use crate::plan::ladder::VideoRendition;

/// Measured complexity of a source's pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Complexity {
    /// Pixels of a frame, and the share that is coded and not skipped between keyframes, from 0 to 1.
    pub(crate) coded_shares: Vec<(u64, f64)>,
    /// The samples' processor time as a multiple of the cost model's prediction, if it is known.
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

    /// Returns the mean over several sources, at the sizes of the first; `None` without sources.
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
