//! How does a title become playable while it is encoded? A task writes playlists of what is done, behind the rows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use datafusion::arrow::array::RecordBatch;
use spool_media::{
    Result,
    encode::worker::Worker,
    package::{early_playback, parts::Part, playlists::PlaylistKind},
    plan::segments::Segment,
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long it is waited for more before playlists are written first: what was there already comes quickly.
const GATHER: Duration = Duration::from_millis(250);

/// The wait after playlists could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// How long the last playlists may take to be written.
const LAST: Duration = Duration::from_secs(30);

/// The playlists of a statement's titles. They stop to grow when dropped.
pub(crate) struct Live {
    known: Arc<Known>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Known {
    /// By source.
    titles: Mutex<HashMap<String, OpenSource>>,
    changed: Notify,
    ended: CancellationToken,
}

struct OpenSource {
    live: early_playback::Live,
    /// Since it was written last.
    changed: bool,
    playable: bool,
    /// Written for the last time.
    whole: bool,
}

impl Live {
    /// Of a statement with these rows.
    pub(crate) fn start(worker: Arc<Worker>, rows: &[Option<Segment>]) -> Self {
        let mut by_source: HashMap<&str, Vec<Segment>> = HashMap::new();
        for row in rows.iter().flatten() {
            by_source.entry(&row.source).or_default().push(row.clone());
        }
        let titles = by_source.into_iter().filter_map(|(source, rows)| {
            Some((
                source.to_owned(),
                OpenSource {
                    live: early_playback::Live::of(&rows)?,
                    changed: false,
                    playable: false,
                    whole: false,
                },
            ))
        });
        let known = Arc::new(Known { titles: Mutex::new(titles.collect()), ..Known::default() });
        let task = tokio::spawn(write_on(worker, known.clone()));
        Self { known, task }
    }

    /// Takes in what a row gave.
    pub(crate) fn add(&self, gave: &RecordBatch) {
        // Whatever columns the statement has, the part is among them.
        let parts = gave
            .columns()
            .iter()
            .filter_map(|column| spool_udfs::value::values::<Part>(column).ok())
            .flatten()
            .flatten();
        let mut state = self.known.state();
        for part in parts {
            if let Some(title) = state.get_mut(&part.segment.source) {
                title.live.add(part);
                title.changed = true;
            }
        }
        drop(state);
        self.known.changed.notify_one();
    }

    /// Ends the playlists: the ladders are published.
    pub(crate) async fn end(mut self) {
        self.known.ended.cancel();
        self.known.changed.notify_one();
        if timeout(LAST, &mut self.task).await.is_err() {
            warn!("the live playlists were not ended in time");
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Known {
    fn state(&self) -> MutexGuard<'_, HashMap<String, OpenSource>> {
        self.titles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write_on(worker: Arc<Worker>, known: Arc<Known>) {
    let mut wait = GATHER;
    loop {
        known.changed.notified().await;
        tokio::select! {
            () = sleep(wait) => {}
            () = known.ended.cancelled() => {}
        }
        let ended = known.ended.is_cancelled();
        let due: Vec<(String, Result<_>, Duration)> = {
            let mut state = known.state();
            let due = state.iter_mut().filter(|(_, title)| (title.changed || ended) && !title.whole);
            let ladders = due.map(|(source, title)| {
                title.changed = false;
                (source.clone(), title.live.ladder(ended), title.live.pause())
            });
            ladders.collect()
        };
        let mut failed = false;
        for (source, ladder, pause) in due {
            let written = match ladder {
                Ok(Some((ladder, extent))) => {
                    early_playback::write(&worker.environment().stores, &ladder, extent)
                        .await
                        .map(|uri| (uri, extent))
                }
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            let mut state = known.state();
            let Some(title) = state.get_mut(&source) else { continue };
            match written {
                Ok((uri, extent)) => {
                    if !std::mem::replace(&mut title.playable, true) {
                        info!(uri, "playable while the rest is encoded");
                    }
                    title.whole = !matches!(extent, PlaylistKind::EventOpen { .. });
                    wait = pause;
                }
                // The published ladder does not depend on it.
                Err(error) => {
                    warn!(%error, "cannot write live playlists, and tries again");
                    (title.changed, failed) = (true, true);
                }
            }
        }
        if failed {
            sleep(AGAIN).await;
            known.changed.notify_one();
        } else if ended {
            return;
        }
    }
}
