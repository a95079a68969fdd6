//! How does a title become playable while it is encoded? A task writes playlists of what is done, behind the rows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use datafusion::arrow::array::RecordBatch;
use spool_media::{live, machine::Machine, parts::Part, segments::Segment};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};

/// How long it is waited for more before playlists are written: what was there already comes all at once, and what a player has read
/// must not become less.
const GATHER: Duration = Duration::from_millis(250);

/// How long the last playlists may take to be written.
const LAST: Duration = Duration::from_secs(30);

/// The playlists of a statement's titles. They stop to grow when dropped.
pub(crate) struct Live {
    known: Arc<Known>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Known {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// By source.
    titles: HashMap<String, Title>,
    ended: bool,
}

struct Title {
    live: live::Live,
    changed: bool,
    playable: bool,
}

impl Live {
    /// Of a statement with these rows.
    pub(crate) fn start(machine: Arc<Machine>, rows: &[Option<Segment>]) -> Self {
        let mut by_source: HashMap<&str, Vec<Segment>> = HashMap::new();
        for row in rows.iter().flatten() {
            by_source.entry(&row.source).or_default().push(row.clone());
        }
        let titles = by_source.into_iter().filter_map(|(source, rows)| {
            Some((source.to_owned(), Title { live: live::Live::of(&rows)?, changed: false, playable: false }))
        });
        let state = State { titles: titles.collect(), ended: false };
        let known = Arc::new(Known { state: Mutex::new(state), changed: Notify::new() });
        let task = tokio::spawn(write_on(machine, known.clone()));
        Self { known, task }
    }

    /// Takes in what a row gave.
    pub(crate) fn add(&self, gave: &RecordBatch) {
        // Whatever columns the statement has, the part is among them.
        let parts = gave.columns().iter().filter_map(|column| spool_udfs::value::values::<Part>(column).ok()).flatten().flatten();
        let mut state = self.known.state();
        for part in parts {
            if let Some(title) = state.titles.get_mut(&part.segment.source) {
                title.live.add(part);
                title.changed = true;
            }
        }
        drop(state);
        self.known.changed.notify_one();
    }

    /// Ends the playlists: the ladders are published.
    pub(crate) async fn end(mut self) {
        self.known.state().ended = true;
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
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write_on(machine: Arc<Machine>, known: Arc<Known>) {
    loop {
        known.changed.notified().await;
        if !known.state().ended {
            sleep(GATHER).await;
        }
        let (ladders, ended) = {
            let mut state = known.state();
            let ended = state.ended;
            let due = state.titles.iter_mut().filter(|(_, title)| title.changed || ended);
            let ladders: Vec<_> = due
                .map(|(source, title)| {
                    title.changed = false;
                    (source.clone(), title.live.ladder(ended))
                })
                .collect();
            (ladders, ended)
        };
        for (source, ladder) in ladders {
            let written = match ladder {
                Ok(Some((ladder, extent))) => live::write(&machine, &ladder, extent).await,
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            // The published ladder does not depend on it.
            match written {
                Ok(uri) => {
                    if let Some(title) = known.state().titles.get_mut(&source).filter(|title| !title.playable) {
                        title.playable = true;
                        info!(uri, "playable while the rest is encoded");
                    }
                }
                Err(error) => warn!(%error, "cannot write live playlists; the next row tries again"),
            }
        }
        if ended {
            return;
        }
    }
}
