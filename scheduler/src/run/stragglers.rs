//! Stragglers: rows that would end sooner if they were started again at the pace of the others. Pure
//! functions.

use std::time::Duration;

use spool_media::plan::segments::SegmentTrack;

/// Least runtime of a straggler.
const RUNTIME_MIN: Duration = Duration::from_secs(5);

/// Least factor by which a second attempt must end sooner.
const SPEEDUP_MIN: f64 = 2.0;

/// Progress of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowProgress {
    pub(crate) track: SegmentTrack,
    pub(crate) duration_ms: i64,
    /// Duration of encoding the row, once it is done.
    pub(crate) took: Option<Duration>,
    /// Runtime of the row's only attempt, and the milliseconds that it has encoded; `None` with no attempt or
    /// two.
    pub(crate) running: Option<(Duration, i64)>,
}

/// Returns the rows to attempt a second time, those with the largest gain first.
pub(crate) fn find_stragglers(rows: &[Option<RowProgress>]) -> Vec<usize> {
    let known = || rows.iter().enumerate().filter_map(|(at, row)| Some((at, row.as_ref()?)));
    let mut stragglers: Vec<(usize, f64)> = known()
        .filter_map(|(at, row)| {
            let (runtime, done_ms) = row.running.filter(|(runtime, _)| *runtime >= RUNTIME_MIN)?;
            let others = || known().filter(|(other, _)| *other != at).map(|(_, row)| row);
            // Most sources have one audio row, without another to compare with; audio is never slower than
            // video.
            let pace =
                median_pace(others(), row.track).or_else(|| median_pace(others(), SegmentTrack::Video))?;
            let anew_seconds = row.duration_ms as f64 / pace;
            let left_seconds = match ms_per_second(done_ms, runtime) {
                Some(own_pace) => (row.duration_ms - done_ms).max(0) as f64 / own_pace,
                // Nothing is encoded so far.
                None => f64::INFINITY,
            };
            // A row without progress so far may still reach the pace of the others.
            let overdue = runtime.as_secs_f64() > anew_seconds * SPEEDUP_MIN;
            let worth = left_seconds > anew_seconds * SPEEDUP_MIN && (overdue || left_seconds.is_finite());
            worth.then_some((at, left_seconds / anew_seconds))
        })
        .collect();
    stragglers.sort_by(|a, b| b.1.total_cmp(&a.1));
    stragglers.into_iter().map(|(at, _)| at).collect()
}

/// Returns the median pace of rows of one track, in milliseconds of media per second; `None` if no row has
/// one.
fn median_pace<'a>(rows: impl Iterator<Item = &'a RowProgress>, track: SegmentTrack) -> Option<f64> {
    let pace = |row: &RowProgress| match (row.took, row.running) {
        (Some(took), _) => ms_per_second(row.duration_ms, took),
        (None, Some((runtime, done_ms))) if runtime >= RUNTIME_MIN => ms_per_second(done_ms, runtime),
        _ => None,
    };
    let mut paces: Vec<f64> = rows.filter(|row| row.track == track).filter_map(pace).collect();
    paces.sort_by(f64::total_cmp);
    paces.get(paces.len() / 2).copied()
}

fn ms_per_second(ms: i64, time: Duration) -> Option<f64> {
    (ms > 0).then(|| ms as f64 / time.as_secs_f64().max(0.001))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(seconds: u64) -> Option<RowProgress> {
        Some(RowProgress {
            track: SegmentTrack::Video,
            duration_ms: 30_000,
            took: Some(Duration::from_secs(seconds)),
            running: None,
        })
    }

    fn runs(seconds: u64, done_ms: i64) -> Option<RowProgress> {
        let running = Some((Duration::from_secs(seconds), done_ms));
        Some(RowProgress { track: SegmentTrack::Video, duration_ms: 30_000, took: None, running })
    }

    #[test]
    fn a_row_at_the_pace_of_the_others_is_no_straggler() {
        assert!(find_stragglers(&[done(20), done(22), runs(15, 20_000)]).is_empty());
        assert!(find_stragglers(&[done(20), runs(4, 10)]).is_empty(), "too early to tell");
        assert!(find_stragglers(&[runs(100, 10)]).is_empty(), "there are no others");
        assert!(find_stragglers(&[done(20), runs(10, 0)]).is_empty(), "it may still start");
    }

    #[test]
    fn slow_rows_are_stragglers_the_slowest_first() {
        assert_eq!(find_stragglers(&[done(20), done(22), runs(30, 3_000)]), [2]);
        assert_eq!(find_stragglers(&[done(20), runs(60, 3_000), done(22), runs(60, 0)]), [3, 1]);
    }

    #[test]
    fn a_row_that_is_nearly_done_is_no_straggler() {
        assert!(find_stragglers(&[done(20), done(20), runs(120, 28_000)]).is_empty());
    }
}
