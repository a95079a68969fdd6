//! Executor calls: messages to executors over their sessions, and the results that they send back. The
//! scheduler opens no connection to an executor.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use arrow_flight::{FlightData, decode::FlightRecordBatchStream, error::FlightError};
use async_trait::async_trait;
use ballista_core::{
    JobId,
    error::BallistaError,
    serde::{
        protobuf::{
            Action, FetchPartition, LaunchMultiTaskParams, MultiTaskDefinition, PartitionLocation,
            ShuffleFileKind, ShuffleLayout, action::ActionType,
        },
        scheduler::ExecutorMetadata,
    },
};
use ballista_scheduler::state::{executor_manager::ExecutorManager, task_manager::TaskLauncher};
use datafusion::arrow::array::RecordBatch;
use futures::TryStreamExt;
use parking_lot::Mutex;
use prost::Message as _;
use spool_wire::v1::{
    CancelJobs, FetchResult, LaunchTasks, SchedulerMessage, result_message::Part,
    scheduler_message::Message as ToExecutor,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::StreamExt;
use tonic::Status;
use uuid::Uuid;

use crate::error::{Error, Result};

/// How long a message may wait for room in an executor's queue. A queue is full if the network is cut.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Parts of a result that wait to be read: the executor waits while there are more.
const PARTS_QUEUE: usize = 4;

/// A session's queue of messages to its executor.
pub(crate) type Outbound = mpsc::Sender<std::result::Result<SchedulerMessage, Status>>;

/// One part of a result, `None` for its end, or why the executor cannot read it.
type ResultPart = std::result::Result<Option<FlightData>, Status>;

/// The open sessions, and the results that are on their way.
#[derive(Clone, Default)]
pub(crate) struct ExecutorCalls(Arc<Shared>);

#[derive(Default)]
struct Shared {
    sessions: Mutex<HashMap<String, Outbound>>,
    /// Readers of results, by the ID of the fetch.
    fetches: Mutex<HashMap<String, mpsc::Sender<ResultPart>>>,
}

/// A result that is on its way. Dropping it lets the executor stop.
struct Fetch {
    calls: ExecutorCalls,
    id: String,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.calls.0.fetches.lock().remove(&self.id);
    }
}

impl ExecutorCalls {
    /// Adds the session of an executor.
    pub(crate) fn open(&self, executor: &str, outbound: Outbound) {
        self.0.sessions.lock().insert(executor.to_owned(), outbound);
    }

    /// Removes the session of an executor.
    pub(crate) fn close(&self, executor: &str) {
        self.0.sessions.lock().remove(executor);
    }

    /// Cancels the tasks of a job on every executor. A message that is lost is made up for by the next
    /// heartbeat that reports the job.
    pub(crate) fn cancel(&self, job: &JobId) {
        let sessions: Vec<Outbound> = self.0.sessions.lock().values().cloned().collect();
        for outbound in sessions {
            let cancel = CancelJobs { jobs: vec![job.as_str().to_owned()] };
            let _ = outbound.try_send(Ok(SchedulerMessage { message: Some(ToExecutor::CancelJobs(cancel)) }));
        }
    }

    /// Reads the rows of a finished job from the executors that hold them, in order.
    ///
    /// # Errors
    /// [`Error::Lost`] if an executor is gone, [`Error::Engine`] if it cannot read the result.
    pub(crate) async fn fetch(&self, mut locations: Vec<PartitionLocation>) -> Result<Vec<RecordBatch>> {
        // Locations are listed as their tasks ended; a statement without ORDER BY still reads better in the
        // order of its rows.
        locations.sort_by_key(|location| {
            (location.partition_id.as_ref().map(|id| id.partition_id), location.map_partition_id)
        });
        let mut batches = Vec::new();
        for location in locations {
            batches.extend(self.fetch_partition(location).await?);
        }
        Ok(batches)
    }

    async fn fetch_partition(&self, location: PartitionLocation) -> Result<Vec<RecordBatch>> {
        let layout = ShuffleLayout::from(location.layout());
        let (Some(executor), Some(partition)) = (location.executor_meta, location.partition_id) else {
            return Err(Error::Engine { message: "a result names no executor".to_owned() });
        };
        let ticket = FetchPartition {
            job_id: partition.job_id,
            stage_id: partition.stage_id,
            partition_id: partition.partition_id,
            file_id: location.file_id,
            layout: layout.into(),
            file_kind: ShuffleFileKind::Data.into(),
            ..FetchPartition::default()
        };
        let ticket = Action { action_type: Some(ActionType::FetchPartition(ticket)), settings: Vec::new() };
        let (sender, parts) = mpsc::channel(PARTS_QUEUE);
        let fetch = Fetch { calls: self.clone(), id: Uuid::new_v4().to_string() };
        self.0.fetches.lock().insert(fetch.id.clone(), sender);
        let message = FetchResult { fetch_id: fetch.id.clone(), ticket: ticket.encode_to_vec() };
        self.send(&executor.id, ToExecutor::FetchResult(message)).await?;
        let rows = FlightRecordBatchStream::new_from_flight_data(until_end(parts));
        rows.try_collect().await.map_err(|e| Error::from_engine(&e.to_string()))
    }

    /// Passes the parts of a result to its reader, as an executor sends them. A fetch that is over takes
    /// none.
    pub(crate) async fn receive(
        &self,
        fetch: &str,
        mut parts: impl tokio_stream::Stream<Item = std::result::Result<Option<Part>, Status>> + Unpin,
    ) {
        let Some(reader) = self.0.fetches.lock().remove(fetch) else { return };
        while let Some(part) = parts.next().await {
            let part = match part {
                Ok(Some(Part::FlightData(bytes))) => FlightData::decode(bytes.as_slice())
                    .map(Some)
                    .map_err(|e| Status::internal(format!("the executor sent an invalid result: {e}"))),
                Ok(Some(Part::End(_))) => Ok(None),
                Ok(Some(Part::Error(message))) => Err(Status::internal(message)),
                Ok(None) => continue,
                Err(status) => Err(status),
            };
            if reader.send(part).await.is_err() {
                return;
            }
        }
    }

    async fn send(&self, executor: &str, message: ToExecutor) -> Result<()> {
        let lost = || Error::Lost { executor: executor.to_owned() };
        let outbound = self.0.sessions.lock().get(executor).cloned().ok_or_else(lost)?;
        let message = Ok(SchedulerMessage { message: Some(message) });
        timeout(SEND_TIMEOUT, outbound.send(message)).await.map_err(|_| lost())?.map_err(|_| lost())
    }
}

/// Returns the parts of a result up to its end. A result that stops before its end is an error: the call that
/// carried it broke, and its rows are not all.
fn until_end(
    parts: mpsc::Receiver<ResultPart>,
) -> impl futures::Stream<Item = std::result::Result<FlightData, FlightError>> {
    futures::stream::unfold(Some(parts), |parts| async {
        let mut parts = parts?;
        let failed = |status| Err(FlightError::Tonic(Box::new(status)));
        match parts.recv().await {
            Some(Ok(Some(data))) => Some((Ok(data), Some(parts))),
            Some(Ok(None)) => None,
            Some(Err(status)) => Some((failed(status), None)),
            None => Some((failed(Status::unavailable("the result broke off before its end")), None)),
        }
    })
}

#[async_trait]
impl TaskLauncher for ExecutorCalls {
    async fn launch_tasks(
        &self,
        executor: &ExecutorMetadata,
        tasks: Vec<MultiTaskDefinition>,
        _: &ExecutorManager,
    ) -> ballista_core::error::Result<HashSet<JobId>> {
        let launch = LaunchMultiTaskParams { multi_tasks: tasks, scheduler_endpoint: String::new() };
        let launch = ToExecutor::LaunchTasks(LaunchTasks { tasks: launch.encode_to_vec() });
        // An executor reports the tasks that it refuses as failed.
        self.send(&executor.id, launch)
            .await
            .map(|()| HashSet::new())
            .map_err(|error| BallistaError::General(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn sent(parts: Vec<ResultPart>) -> mpsc::Receiver<ResultPart> {
        let (sender, receiver) = mpsc::channel(parts.len().max(1));
        parts.into_iter().for_each(|part| sender.try_send(part).unwrap());
        receiver
    }

    #[tokio::test]
    async fn a_result_that_stops_before_its_end_is_an_error() {
        let data = || Ok(Some(FlightData::default()));
        let whole: Vec<_> = until_end(sent(vec![data(), data(), Ok(None)])).collect().await;
        assert!(whole.len() == 2 && whole.iter().all(|part| part.is_ok()));
        let broken: Vec<_> = until_end(sent(vec![data()])).collect().await;
        assert!(broken.len() == 2 && broken[1].as_ref().is_err_and(|e| e.to_string().contains("broke off")));
        let nothing: Vec<_> = until_end(sent(Vec::new())).collect().await;
        assert!(nothing.len() == 1 && nothing[0].is_err());
    }
}
