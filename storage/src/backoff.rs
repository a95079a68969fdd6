//! Backoff: waits between the attempts of a failing call.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Exponential waits with jitter: the first is `first` or up to twice as long, each later one doubles, up to
/// `max`. The jitter keeps processes that failed together from retrying together.
///
/// The waits do not end by themselves: the caller counts its attempts, or limits them ([`Iterator::take`]).
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    waits: ExponentialBackoff,
}

impl Backoff {
    /// Returns a backoff that starts with its shortest wait.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, waits: waits(first, max) }
    }

    /// Starts again with the shortest wait, after a call that has succeeded.
    pub fn reset(&mut self) {
        self.waits = waits(self.first, self.max);
    }

    /// Returns the next wait.
    pub fn delay(&mut self) -> Duration {
        self.waits.next().unwrap_or(self.max)
    }

    /// Returns the wait after this many failed attempts, from 1, for a caller that keeps the count and not
    /// the backoff.
    pub fn delay_after(first: Duration, max: Duration, failed: usize) -> Duration {
        waits(first, max).nth(failed.saturating_sub(1)).unwrap_or(max)
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.delay())
    }
}

fn waits(first: Duration, max: Duration) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(max)
        .without_max_times()
        .with_jitter()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_millis(400);

    #[test]
    fn delays_double_to_the_maximum_and_never_end() {
        let mut backoff = Backoff::new(FIRST, MAX);
        for base in [FIRST, 2 * FIRST, MAX, MAX, MAX] {
            let delay = backoff.delay();
            assert!(base <= delay && delay <= 2 * base, "{delay:?} for {base:?}");
        }
        backoff.reset();
        assert!(backoff.delay() <= 2 * FIRST);
        assert_eq!(Backoff::new(FIRST, MAX).take(3).count(), 3);
    }

    #[test]
    fn a_delay_is_computed_from_the_count_of_failed_attempts() {
        for (failed, base) in [(0, FIRST), (1, FIRST), (2, 2 * FIRST), (9, MAX)] {
            let delay = Backoff::delay_after(FIRST, MAX, failed);
            assert!(base <= delay && delay <= 2 * base, "{delay:?} after {failed}");
        }
    }
}
