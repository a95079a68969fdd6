//! Cost model: a linear model, fitted to the rows that were encoded before.
//!
//! Processor time is a weighted sum of the pixels that a row decodes, scales and encodes, and of the share
//! that x264 does not skip. The weights start with those of a reference host, and every encoded row adjusts
//! them: first all by the same factor, which is this host's speed, then each by least squares of relative
//! errors, as far as rows differ enough to tell them apart. The weight of old rows decays. For effects that
//! the model does not cover, a source's samples correct the prediction, if its rows are encoded on the same
//! host: if the samples took a fifth longer than predicted, so will the rows. The bytes that a row writes are
//! predicted from the source's own rate, with a factor fitted in the same way.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::predict::features::{EncodeFeatures, INITIAL_FILL, WEIGHTS};

/// Initial weights, in seconds of processor time: per FFmpeg run, decoded megapixel, scaled megapixel,
/// megapixel encoded by x264's `veryfast`, coded megapixel, megapixel of keyframes, and second of sound.
/// Rounded from rows of 4 s and samples of eight clips, the demo's footage and synthetic ones, at two ladders
/// with both cores busy. Their proportions matter, not their scale.
const INITIAL_WEIGHTS: [f64; WEIGHTS] = [0.08, 0.004, 0.0005, 0.006, 0.029, 0.038, 0.012];

/// Weight of the initial weights, in rows: with more, twenty rows of a different host would not be enough.
const INITIAL_WEIGHT_ROWS: f64 = 0.1;

/// Factor by which a row's weight shrinks with each later row: about the last 200 count.
const DECAY: f64 = 0.995;

/// Largest factor by which a host is faster or slower than the reference host.
const SPEED_RATIO_MAX: f64 = 50.0;

/// Largest factor by which a source's samples change a prediction.
const SAMPLED_RATIO_MAX: f64 = 3.0;

/// Longest prediction for a row: a year.
const PREDICTED_SECONDS_MAX: f64 = 365.0 * 86_400.0;

/// Iterations of the solver: enough to converge to the printed precision.
const SOLVER_ITERATIONS: usize = 500;

fn weighted(weights: &[f64; WEIGHTS], row: &EncodeFeatures) -> f64 {
    std::iter::zip(row.vector(), weights).map(|(feature, weight)| feature * weight).sum()
}

/// The cost model, as the sums that its weights are fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostModel {
    /// Number of rows that it was fitted to.
    pub rows: u64,
    /// The normal equations of the weights.
    products: [[f64; WEIGHTS]; WEIGHTS],
    sums: [f64; WEIGHTS],
    written_mb: f64,
    source_rate_mb: f64,
    /// Wall-clock time of rows, and their processor time: with more slots than cores, rows share the cores.
    wall_s: f64,
    cpu_s: f64,
    /// Processor time of the rows that this host encoded.
    here_cpu_s: f64,
}

impl Default for CostModel {
    fn default() -> Self {
        let (products, sums) = Default::default();
        Self {
            rows: 0,
            products,
            sums,
            written_mb: INITIAL_FILL,
            source_rate_mb: 1.0,
            wall_s: 0.0,
            cpu_s: 0.0,
            here_cpu_s: 0.0,
        }
    }
}

impl CostModel {
    /// Updates the model with a row's wall-clock time, processor time and bytes. `here`: this host encoded
    /// it.
    pub fn learn(
        &mut self,
        row: &EncodeFeatures,
        wall: Duration,
        cpu: Duration,
        written_bytes: u64,
        here: bool,
    ) {
        let seconds = cpu.as_secs_f64();
        // Ignores an implausible measurement, such as of an FFmpeg that leaves the work to another process.
        if seconds * SPEED_RATIO_MAX < weighted(&INITIAL_WEIGHTS, row) {
            return;
        }
        // Relative errors: a short row counts as much as a long one.
        let features = row.vector().map(|feature| feature / seconds);
        for (line, feature) in features.iter().enumerate() {
            for (column, other) in features.iter().enumerate() {
                self.products[line][column] = self.products[line][column] * DECAY + feature * other;
            }
            self.sums[line] = self.sums[line] * DECAY + feature;
        }
        self.written_mb = self.written_mb * DECAY + written_bytes as f64 / 1e6;
        self.source_rate_mb = self.source_rate_mb * DECAY + row.source_rate_mb;
        self.wall_s = self.wall_s * DECAY + wall.as_secs_f64();
        self.cpu_s = self.cpu_s * DECAY + seconds;
        self.here_cpu_s = self.here_cpu_s * DECAY + if here { seconds } else { 0.0 };
        self.rows += 1;
    }

    /// Returns the seconds of wall-clock time per second of processor time. Before the first row, assumes
    /// that each row has its threads for itself.
    fn wall_per_cpu(&self, threads: u32) -> f64 {
        if self.rows == 0 {
            1.0 / f64::from(threads.max(1))
        } else {
            self.wall_s / self.cpu_s.max(f64::MIN_POSITIVE)
        }
    }

    /// Returns the predicted processor time of each row.
    pub fn predict(&self, rows: &[EncodeFeatures]) -> Vec<Duration> {
        let weights = self.weights();
        // Clamped, so that a damaged cost model file cannot overflow a duration.
        rows.iter()
            .map(|row| weighted(&weights, row) * row.sampled.unwrap_or(1.0))
            .map(|seconds| {
                Duration::try_from_secs_f64(seconds.min(PREDICTED_SECONDS_MAX)).unwrap_or_default()
            })
            .collect()
    }

    /// Returns the processor time of samples that were encoded here, as a multiple of the prediction. The
    /// fewer rows this host encodes, the closer the ratio is to 1: its speed does not apply to other hosts.
    /// `None` if it is unknown.
    pub(crate) fn sampled_ratio(&self, took: &[(EncodeFeatures, Duration)]) -> Option<f64> {
        let weights = self.weights();
        let took_s: f64 = took.iter().map(|(_, cpu)| cpu.as_secs_f64()).sum();
        let model_s: f64 = took.iter().map(|(row, _)| weighted(&weights, row)).sum();
        let times = (took_s / model_s).clamp(1.0 / SAMPLED_RATIO_MAX, SAMPLED_RATIO_MAX);
        // Before the first row, this host is the only known one.
        let here = if self.rows == 0 { 1.0 } else { self.here_cpu_s / self.cpu_s.max(f64::MIN_POSITIVE) };
        times.is_finite().then(|| times.powf(here))
    }

    /// Returns the predicted number of bytes that rows will write.
    pub fn predict_written(&self, rows: &[EncodeFeatures]) -> u64 {
        let fill = self.written_mb / self.source_rate_mb.max(f64::MIN_POSITIVE);
        (rows.iter().map(|row| row.source_rate_mb).sum::<f64>() * fill * 1e6) as u64
    }

    /// Returns the weights, by non-negative least squares with coordinate descent.
    fn weights(&self) -> [f64; WEIGHTS] {
        let speed = self.speed();
        let mut weights = INITIAL_WEIGHTS.map(|weight| weight * speed);
        let begin = weights;
        for _ in 0..SOLVER_ITERATIONS {
            for at in 0..WEIGHTS {
                let others: f64 = (0..WEIGHTS)
                    .filter(|other| *other != at)
                    .map(|other| self.products[at][other] * weights[other])
                    .sum();
                let prior = INITIAL_WEIGHT_ROWS / (begin[at] * begin[at]);
                weights[at] =
                    ((self.sums[at] - others + prior * begin[at]) / (self.products[at][at] + prior)).max(0.0);
            }
        }
        weights
    }

    /// Returns the factor by which this host is slower than the reference host: the common factor of all
    /// weights that fits best.
    fn speed(&self) -> f64 {
        let times_begin = |values: &[f64; WEIGHTS]| {
            std::iter::zip(values, INITIAL_WEIGHTS).map(|(value, weight)| value * weight).sum::<f64>()
        };
        let squares = times_begin(&self.products.map(|row| times_begin(&row)));
        let speed = times_begin(&self.sums) / squares;
        if speed.is_finite() { speed.clamp(1.0 / SPEED_RATIO_MAX, SPEED_RATIO_MAX) } else { 1.0 }
    }
}

/// Predicted cost of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Prediction {
    /// Processor time of FFmpeg, in seconds.
    pub cpu_s: f64,
    /// Wall-clock time from the first row to the last, in seconds; `None` without slots.
    pub wall_s: Option<f64>,
    /// Slots that `wall_s` assumes.
    pub slots: usize,
    /// Bytes read from the store by rows.
    pub read_bytes: u64,
    /// Bytes of media that are written.
    pub written_bytes: u64,
    /// Number of rows that the prediction is fitted to: with fewer than 20 it is rough.
    pub fitted_rows: u64,
}

impl Prediction {
    /// Predicts the cost of rows on `slots` slots with `threads` threads each, the longest row first.
    pub fn of(costs: &CostModel, rows: &[EncodeFeatures], slots: usize, threads: u32) -> Self {
        let cpu = costs.predict(rows);
        let factor = costs.wall_per_cpu(threads);
        let took = |cpu: &Duration| {
            Duration::try_from_secs_f64((cpu.as_secs_f64() * factor).min(PREDICTED_SECONDS_MAX))
                .unwrap_or_default()
        };
        let wall = longest_first(cpu.iter().map(took).collect(), slots);
        Self {
            cpu_s: cpu.iter().sum::<Duration>().as_secs_f64(),
            wall_s: (slots > 0).then_some(wall.as_secs_f64()),
            slots,
            read_bytes: rows.iter().map(|row| row.read_bytes).sum(),
            written_bytes: costs.predict_written(rows),
            fitted_rows: costs.rows,
        }
    }
}

impl std::fmt::Display for Prediction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu_s, wall_s, slots, read_bytes, written_bytes, fitted_rows } = self;
        let mb = |bytes: &u64| *bytes as f64 / 1e6;
        write!(f, "{cpu_s:.1} s of processor time, ")?;
        match wall_s {
            Some(wall_s) => write!(f, "{wall_s:.1} s on {slots} slots; ")?,
            None => f.write_str("and no executor is connected; ")?,
        }
        write!(f, "reads {:.1} MB, writes {:.1} MB ", mb(read_bytes), mb(written_bytes))?;
        match fitted_rows {
            0 => f.write_str("(rough: no row was measured here yet)"),
            rows => write!(f, "(by {rows} rows that were measured here)"),
        }
    }
}

/// Returns the time that rows take on `slots` slots if each free slot takes the longest remaining row.
pub fn longest_first(mut row: Vec<Duration>, slots: usize) -> Duration {
    row.sort_unstable_by_key(|takes| Reverse(*takes));
    let mut free: BinaryHeap<Reverse<Duration>> = vec![Reverse(Duration::ZERO); slots.max(1)].into();
    for takes in row {
        let Reverse(at) = free.pop().unwrap_or_default();
        free.push(Reverse(at + takes));
    }
    free.into_iter().map(|Reverse(at)| at).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::predict::features::INITIAL_CODED_SHARE;

    #[test]
    fn the_longest_goes_first() {
        let row = [2, 2, 3, 3, 2].map(Duration::from_secs).to_vec();
        assert_eq!(longest_first(row.clone(), 2), Duration::from_secs(7));
        assert_eq!(longest_first(row, 1), Duration::from_secs(12));
    }

    /// A row of this many seconds of 1080p at three rungs.
    fn row(seconds: f64, mb: f64) -> EncodeFeatures {
        let frames = seconds * 30.0;
        EncodeFeatures {
            decoded_mpx: frames * 2.07,
            scaled_mpx: frames * 5.5,
            encoded_mpx: frames * 3.4,
            coded_mpx: frames * 3.4 * INITIAL_CODED_SHARE,
            key_mpx: frames * 3.4 / 120.0,
            source_rate_mb: mb * 2.0,
            ..EncodeFeatures::default()
        }
    }

    proptest! {
        /// For all plausible weights of a host, twenty rows are enough to predict similar ones.
        #[test]
        fn it_learns_another_machine(speed in 0.2_f64..5.0, start in 0.0_f64..0.5, dense in 0.0_f64..0.1) {
            let truth = |row: &EncodeFeatures| start + speed * (0.011 * row.encoded_mpx + dense * row.coded_mpx);
            let mut costs = CostModel::default();
            for n in 0..20 {
                let row = row(4.0 + f64::from(n % 5) * 6.0, 1.0);
                let row = EncodeFeatures { coded_mpx: row.encoded_mpx * f64::from(1 + n * 7 % 11) / 15.0, ..row };
                let cpu = Duration::from_secs_f64(truth(&row));
                costs.learn(&row, cpu, cpu, 3_000_000, true);
            }
            let unseen = row(21.0, 12.0);
            let predicted = costs.predict(std::slice::from_ref(&unseen))[0].as_secs_f64();
            let ratio = predicted / truth(&unseen);
            prop_assert!((ratio - 1.0).abs() < 0.1, "{ratio}");
        }
    }

    #[test]
    fn it_starts_near_what_was_seen_and_never_gets_stuck() {
        let mut costs = CostModel::default();
        let before = costs.predict(&[row(60.0, 30.0)])[0].as_secs_f64();
        assert!((50.0..150.0).contains(&before), "60 s of 1080p at three rungs: {before} s");
        // Features without a row yet, such as audio, are scaled like the others.
        for _ in 0..1000 {
            costs.learn(&row(30.0, 10.0), Duration::from_secs(15), Duration::from_secs(10), 0, true);
        }
        let sound = EncodeFeatures { sound_s: 60.0, ..EncodeFeatures::default() };
        let speed = 10.0 / before * 2.0;
        let predicted =
            costs.predict(&[sound])[0].as_secs_f64() / (60.0 * INITIAL_WEIGHTS[WEIGHTS - 1] * speed);
        assert!((0.8..1.6).contains(&predicted), "{predicted}");
        let after = costs.predict(&[row(30.0, 10.0)])[0].as_secs_f64();
        assert!((after - 10.0).abs() < 0.5, "{after}");
        let prediction = Prediction::of(&costs, &[row(30.0, 10.0)], 3, 1);
        assert!(
            (prediction.wall_s.unwrap() / prediction.cpu_s - 1.5).abs() < 1e-6,
            "three on two cores: {prediction}"
        );
    }

    #[test]
    fn unfamiliar_pictures_are_predicted_by_their_coded_share() {
        let busy = row(12.0, 4.0);
        let still = EncodeFeatures { coded_mpx: busy.encoded_mpx * 0.01, ..busy.clone() };
        // A host that is 1.6 times slower than the reference host, in all features.
        let truth = |row: &EncodeFeatures| 1.6 * weighted(&INITIAL_WEIGHTS, row);
        let mut costs = CostModel::default();
        for _ in 0..20 {
            let cpu = Duration::from_secs_f64(truth(&busy));
            costs.learn(&busy, cpu, cpu, 0, true);
        }
        let predicted = costs.predict(std::slice::from_ref(&still))[0].as_secs_f64();
        assert!((predicted / truth(&still) - 1.0).abs() < 0.02, "{predicted} for {}", truth(&still));
        assert!(truth(&busy) / truth(&still) > 1.5);
    }

    #[test]
    fn samples_tell_what_the_model_does_not_know_of_a_title() {
        let (learned, sample) = (row(12.0, 4.0), row(0.5, 0.2));
        // 1.5 times the prediction, on any host.
        let took = |costs: &CostModel| {
            let model = costs.predict(std::slice::from_ref(&sample))[0];
            vec![(sample.clone(), model.mul_f64(1.0)), (sample.clone(), model.mul_f64(2.0))]
        };
        let taught = |here: bool| {
            let mut costs = CostModel::default();
            for _ in 0..20 {
                costs.learn(&learned, Duration::from_secs(9), Duration::from_secs(9), 0, here);
            }
            costs
        };
        for (costs, expected) in [(CostModel::default(), 1.5), (taught(true), 1.5), (taught(false), 1.0)] {
            let times = costs.sampled_ratio(&took(&costs)).unwrap();
            assert!((times - expected).abs() < 1e-6, "{times}, not {expected}");
            let sampled = EncodeFeatures { sampled: Some(times), ..learned.clone() };
            let [plain, sampled] = costs.predict(&[learned.clone(), sampled])[..] else { panic!() };
            assert!((sampled.as_secs_f64() / plain.as_secs_f64() - expected).abs() < 1e-6);
        }
        assert_eq!(CostModel::default().sampled_ratio(&[]), None);
        assert_eq!(
            CostModel::default().sampled_ratio(&[(sample, Duration::from_secs(1000))]),
            Some(SAMPLED_RATIO_MAX)
        );
    }

    #[test]
    fn what_is_not_to_be_believed_teaches_nothing() {
        let mut costs = CostModel::default();
        costs.learn(&row(30.0, 10.0), Duration::from_secs(10), Duration::from_millis(10), 0, true);
        costs.learn(&row(30.0, 10.0), Duration::ZERO, Duration::ZERO, 0, true);
        assert_eq!(costs, CostModel::default());
        // A file that was edited by hand.
        let damaged = CostModel { sums: [5e19; WEIGHTS], ..CostModel::default() };
        let prediction = Prediction::of(&damaged, &vec![row(30.0, 10.0); 100], 2, 1);
        assert!(prediction.cpu_s > 0.0 && prediction.wall_s.is_some_and(f64::is_finite), "{prediction}");
        assert_eq!(Prediction::of(&damaged, &[row(30.0, 10.0)], 0, 1).wall_s, None);
    }

    #[test]
    fn what_is_written_goes_with_the_sources_rate() {
        let mut costs = CostModel::default();
        for _ in 0..50 {
            costs.learn(&row(30.0, 10.0), Duration::from_secs(10), Duration::from_secs(10), 5_000_000, true);
        }
        let written = costs.predict_written(&[row(60.0, 20.0)]) as f64;
        assert!((written / 10e6 - 1.0).abs() < 0.05, "{written}");
    }
}
