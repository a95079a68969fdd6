//! Early playback: a task that writes playlists of the encoded part, so that a video plays while it is
//! encoded.

use std::{collections::HashMap, sync::Arc, time::Duration};

use datafusion::arrow::array::RecordBatch;
use parking_lot::Mutex;
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

/// Wait for more parts before the first playlists are written: parts that exist already come quickly.
const FIRST_WRITE_DELAY: Duration = Duration::from_millis(250);

/// Wait after a failure to write playlists.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Time limit of writing the last playlists.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Early playlists of a statement's sources. They stop growing when this is dropped.
pub(crate) struct EarlyPlayback {
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// Playlists by source.
    playlists: Mutex<HashMap<String, Playlists>>,
    changed: Notify,
    ended: CancellationToken,
}

struct Playlists {
    parts: early_playback::Live,
    /// Whether parts were added since the playlists were written.
    changed: bool,
    playable: bool,
    /// Whether the playlists were written for the last time.
    complete: bool,
}

impl EarlyPlayback {
    /// Starts the playlists of a statement with these rows.
    pub(crate) fn start(worker: Arc<Worker>, rows: &[Option<Segment>]) -> Self {
        let mut by_source: HashMap<&str, Vec<Segment>> = HashMap::new();
        for row in rows.iter().flatten() {
            by_source.entry(&row.source).or_default().push(row.clone());
        }
        let playlists = by_source.into_iter().filter_map(|(source, rows)| {
            let parts = early_playback::Live::of(&rows)?;
            let playlists = Playlists { parts, changed: false, playable: false, complete: false };
            Some((source.to_owned(), playlists))
        });
        let state = Arc::new(State { playlists: Mutex::new(playlists.collect()), ..State::default() });
        let task = tokio::spawn(write_until_complete(worker, state.clone()));
        Self { state, task }
    }

    /// Adds the parts in the result of a row.
    pub(crate) fn add(&self, result: &RecordBatch) {
        // A statement may have any columns; the part is one of them.
        let parts = result
            .columns()
            .iter()
            .filter_map(|column| spool_udfs::value::values::<Part>(column).ok())
            .flatten()
            .flatten();
        let mut playlists = self.state.playlists.lock();
        for part in parts {
            if let Some(playlists) = playlists.get_mut(&part.segment.source) {
                playlists.parts.add(part);
                playlists.changed = true;
            }
        }
        drop(playlists);
        self.state.changed.notify_one();
    }

    /// Ends the playlists, once the ladders are published.
    pub(crate) async fn end(mut self) {
        self.state.ended.cancel();
        self.state.changed.notify_one();
        if timeout(LAST_WRITE_TIMEOUT, &mut self.task).await.is_err() {
            warn!("the early playlists were not ended in time");
        }
    }
}

impl Drop for EarlyPlayback {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn write_until_complete(worker: Arc<Worker>, state: Arc<State>) {
    let mut delay = FIRST_WRITE_DELAY;
    loop {
        state.changed.notified().await;
        tokio::select! {
            () = sleep(delay) => {}
            () = state.ended.cancelled() => {}
        }
        let ended = state.ended.is_cancelled();
        let due: Vec<(String, Result<_>, Duration)> = {
            let mut playlists = state.playlists.lock();
            let due = playlists.iter_mut().filter(|(_, one)| (one.changed || ended) && !one.complete);
            let ladders = due.map(|(source, playlists)| {
                playlists.changed = false;
                (source.clone(), playlists.parts.ladder(ended), playlists.parts.pause())
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
            let mut playlists = state.playlists.lock();
            let Some(playlists) = playlists.get_mut(&source) else { continue };
            match written {
                Ok((uri, extent)) => {
                    if !std::mem::replace(&mut playlists.playable, true) {
                        info!(uri, "playable while the rest is encoded");
                    }
                    playlists.complete = !matches!(extent, PlaylistKind::EventOpen { .. });
                    delay = pause;
                }
                // The published ladder does not depend on these playlists.
                Err(error) => {
                    warn!(%error, "failed to write early playlists; retrying");
                    (playlists.changed, failed) = (true, true);
                }
            }
        }
        if failed {
            sleep(RETRY_DELAY).await;
            state.changed.notify_one();
        } else if ended {
            return;
        }
    }
}
