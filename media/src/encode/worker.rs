//! The worker of a process: encodes rows in a bounded number of slots, and keeps the state that rows share:
//! open sources, the cost model and the complexity of sources.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit, broadcast};
use tracing::debug;

use spool_storage::ErrorKind;

use crate::{
    Result,
    encode::{
        events::AttemptEvent,
        timing::{Step, Timing},
    },
    environment::Environment,
    plan::{
        deinterlace::Deinterlace,
        ladder::Ladder,
        segments::Segment,
        timeline::{Timeline, TimelineCache},
    },
    predict::{complexity::Complexity, cost_model::CostModel, sampling::ComplexityCache},
    source::source_cache::SourceCache,
};

/// Events that a slow subscriber may fall behind before it misses some.
const EVENT_QUEUE: usize = 4096;

/// Encodes the rows of one process.
#[derive(Debug)]
pub struct Worker {
    environment: Arc<Environment>,
    timelines: TimelineCache,
    complexity: ComplexityCache,
    /// One permit per row that is encoded at a time.
    slots: Semaphore,
    events: broadcast::Sender<AttemptEvent>,
    cost_model: Mutex<CostModel>,
    cost_model_file: Option<PathBuf>,
}

/// Reason why a worker gives up a row.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process is ending, or its executor has left the cluster.
    #[error("the executor that ran this row is shutting down")]
    ShuttingDown,
}

impl Error {
    /// Classifies the failure for the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::ShuttingDown => ErrorKind::Transient,
        }
    }
}

impl Worker {
    /// Creates a worker without a limit on slots.
    pub fn new(environment: Environment) -> Self {
        let environment = Arc::new(environment);
        Self {
            timelines: TimelineCache::new(SourceCache::new(environment.clone())),
            complexity: ComplexityCache::default(),
            slots: Semaphore::new(Semaphore::MAX_PERMITS),
            events: broadcast::channel(EVENT_QUEUE).0,
            cost_model: Mutex::default(),
            cost_model_file: None,
            environment,
        }
    }

    /// Limits how many rows are encoded at a time, returning the updated worker.
    #[must_use]
    pub fn with_slots(self, slots: usize) -> Self {
        Self { slots: Semaphore::new(slots), ..self }
    }

    /// Keeps the cost model in a file from one process to the next, returning the updated worker.
    #[must_use]
    pub fn with_cost_model_in(mut self, file: PathBuf) -> Self {
        // A missing file, or one of another version, means that costs are learned anew.
        let known = fs::read(&file).ok().and_then(|json| serde_json::from_slice(&json).ok());
        self.cost_model = Mutex::new(known.unwrap_or_default());
        Self { cost_model_file: Some(file), ..self }
    }

    /// Returns the process's stores, tools, limits and scratch space.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Opens the current version of the source at a path or URI.
    ///
    /// # Errors
    /// Returns an error if the source is missing, not readable, or not a video.
    pub async fn open(&self, uri: &str, deinterlace: Deinterlace) -> Result<Arc<Timeline>> {
        self.timelines.open(uri, deinterlace).await
    }

    /// Opens the source of a row in exactly the version that was planned.
    ///
    /// # Errors
    /// Returns the errors of [`Worker::open`], and [`crate::source::Error::SourceChanged`] if the source has
    /// another version now.
    pub async fn open_planned(&self, segment: &Segment) -> Result<Arc<Timeline>> {
        self.timelines.open_planned(segment).await
    }

    /// Returns the timelines of the sources that are open.
    pub fn timelines(&self) -> &TimelineCache {
        &self.timelines
    }

    /// Returns the complexity of a source's pictures; `None` if its samples do not show it.
    pub async fn complexity(&self, timeline: &Timeline, ladder: &Ladder) -> Option<Complexity> {
        self.complexity.of(&self.environment, &self.cost_model(), timeline, ladder).await
    }

    /// Returns a snapshot of the cost model.
    pub fn cost_model(&self) -> CostModel {
        self.cost_model.lock().clone()
    }

    /// Updates the cost model from the timing of a finished row.
    pub fn learn(&self, timing: &Timing) {
        let Timing { encode: Some(encode), spans, host, .. } = timing else { return };
        let ran = spans
            .iter()
            .filter(|span| matches!(span.step, Step::Start | Step::Encode))
            .map(|span| span.took_us)
            .sum();
        let (wall, cpu) = (Duration::from_micros(ran), Duration::from_micros(encode.cpu_us));
        let here = *host == self.environment.host;
        self.cost_model.lock().learn(&encode.features, wall, cpu, encode.written_bytes, here);
    }

    /// Saves the cost model. The last process to save wins: what another learned meanwhile is lost.
    pub fn save_cost_model(&self) {
        let Some(file) = &self.cost_model_file else { return };
        let save = || -> io::Result<()> {
            let folder = file.parent().ok_or(io::ErrorKind::NotADirectory)?;
            fs::create_dir_all(folder)?;
            let new = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer(&new, &self.cost_model())?;
            new.persist(file)?;
            Ok(())
        };
        if let Err(error) = save() {
            debug!(path = %file.display(), %error, "failed to save the cost model");
        }
    }

    /// Waits for a free slot to encode in.
    pub(crate) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.slots.acquire().await.ok()
    }

    /// Subscribes to the events of this process's rows.
    pub fn events(&self) -> broadcast::Receiver<AttemptEvent> {
        self.events.subscribe()
    }

    pub(crate) fn emit(&self, event: AttemptEvent) {
        // No subscriber is fine.
        let _ = self.events.send(event);
    }
}
