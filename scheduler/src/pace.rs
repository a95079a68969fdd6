//! Which rows are left behind? Those that would be done sooner if they began anew at the pace of the others. Pure.

use std::time::Duration;

use spool_media::plan::segments::SegmentTrack;

/// A row that has run for less is never called slow.
const LEAST: Duration = Duration::from_secs(5);

/// How much sooner a second run has to be done to be worth its work.
const WORTH: f64 = 2.0;

/// How a row stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) track: SegmentTrack,
    pub(crate) duration_ms: i64,
    /// How long it took, once it is done.
    pub(crate) took: Option<Duration>,
    /// How long it has run, and the milliseconds of it that are done; only of a row that runs, and runs once.
    pub(crate) running: Option<(Duration, i64)>,
}

/// The rows to run a second time, those that gain most first.
pub(crate) fn left_behind(rows: &[Option<Progress>]) -> Vec<usize> {
    let known = || rows.iter().enumerate().filter_map(|(at, row)| Some((at, row.as_ref()?)));
    let mut behind: Vec<(usize, f64)> = known()
        .filter_map(|(at, row)| {
            let (ran, done_ms) = row.running.filter(|(ran, _)| *ran >= LEAST)?;
            let others = || known().filter(|(other, _)| *other != at).map(|(_, row)| row);
            // Sound has no row beside it in most titles; it is never slower than pictures.
            let pace =
                usual_pace(others(), row.track).or_else(|| usual_pace(others(), SegmentTrack::Video))?;
            let anew = row.duration_ms as f64 / pace;
            let left = match ms_per_second(done_ms, ran) {
                Some(own) => (row.duration_ms - done_ms).max(0) as f64 / own,
                // Nothing came of it so far.
                None => f64::INFINITY,
            };
            // What has not begun to show may still begin as the others did.
            let overdue = ran.as_secs_f64() > anew * WORTH;
            (left > anew * WORTH && (overdue || left.is_finite())).then_some((at, left / anew))
        })
        .collect();
    behind.sort_by(|a, b| b.1.total_cmp(&a.1));
    behind.into_iter().map(|(at, _)| at).collect()
}

/// The median pace of rows of a kind, in milliseconds of media per second; `None` where none tells.
fn usual_pace<'a>(rows: impl Iterator<Item = &'a Progress>, track: SegmentTrack) -> Option<f64> {
    let pace = |row: &Progress| match (row.took, row.running) {
        (Some(took), _) => ms_per_second(row.duration_ms, took),
        (None, Some((ran, done_ms))) if ran >= LEAST => ms_per_second(done_ms, ran),
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

    fn done(seconds: u64) -> Option<Progress> {
        Some(Progress {
            track: SegmentTrack::Video,
            duration_ms: 30_000,
            took: Some(Duration::from_secs(seconds)),
            running: None,
        })
    }

    fn runs(seconds: u64, done_ms: i64) -> Option<Progress> {
        let running = Some((Duration::from_secs(seconds), done_ms));
        Some(Progress { track: SegmentTrack::Video, duration_ms: 30_000, took: None, running })
    }

    #[test]
    fn a_row_at_the_others_pace_is_not_behind() {
        assert!(left_behind(&[done(20), done(22), runs(15, 20_000)]).is_empty());
        assert!(left_behind(&[done(20), runs(4, 10)]).is_empty(), "too early to tell");
        assert!(left_behind(&[runs(100, 10)]).is_empty(), "there are no others");
        assert!(left_behind(&[done(20), runs(10, 0)]).is_empty(), "it may still begin");
    }

    #[test]
    fn a_row_that_hardly_moves_is_behind_and_one_that_does_not_move_most() {
        assert_eq!(left_behind(&[done(20), done(22), runs(30, 3_000)]), [2]);
        assert_eq!(left_behind(&[done(20), runs(60, 3_000), done(22), runs(60, 0)]), [3, 1]);
    }

    #[test]
    fn a_row_that_is_nearly_done_is_let_be() {
        assert!(left_behind(&[done(20), done(20), runs(120, 28_000)]).is_empty());
    }
}
