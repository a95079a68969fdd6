//! Result sender: answers the scheduler's `FetchResult` with the rows that a task wrote.

use std::time::Duration;

use arrow_flight::{Ticket, flight_service_server::FlightService};
use ballista_executor::flight_service::BallistaFlightService;
use futures::{StreamExt, future::join, stream};
use prost::Message;
use spool_wire::{
    Connection,
    v1::{
        FetchResult, ResultEnd, ResultMessage, executor_service_client::ExecutorServiceClient,
        result_message::Part,
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tracing::debug;

/// How long the scheduler may take to read one result.
const SEND_TIMEOUT: Duration = Duration::from_secs(120);

/// Parts of a result that wait for a slow network.
const PARTS_QUEUE: usize = 4;

/// Sends the results of an executor's tasks.
#[derive(Clone)]
pub(crate) struct ResultSender {
    client: ExecutorServiceClient<Connection>,
    files: BallistaFlightService,
}

impl ResultSender {
    /// Returns a sender of the results in `work_dir`.
    pub(crate) fn new(client: ExecutorServiceClient<Connection>, work_dir: String) -> Self {
        Self { client, files: BallistaFlightService::new(work_dir) }
    }

    /// Sends one result, in the background. The scheduler repeats what fails.
    pub(crate) fn send(&self, fetch: FetchResult) {
        let Self { mut client, files } = self.clone();
        tokio::spawn(async move {
            let (sender, messages) = mpsc::channel(PARTS_QUEUE);
            let id = fetch.fetch_id.clone();
            let sent = join(read(files, fetch, sender), client.send_result(ReceiverStream::new(messages)));
            match timeout(SEND_TIMEOUT, sent).await {
                Ok(((), Ok(_))) => {}
                Ok(((), Err(status))) => debug!(fetch = id, %status, "failed to send a result"),
                Err(_) => debug!(fetch = id, "the scheduler did not read a result in time"),
            }
        });
    }
}

/// Reads a result into `sender`, after a message that names the fetch. Ends early if the reader is gone.
async fn read(files: BallistaFlightService, fetch: FetchResult, sender: mpsc::Sender<ResultMessage>) {
    let first = ResultMessage { fetch_id: fetch.fetch_id, part: None };
    if sender.send(first).await.is_err() {
        return;
    }
    // Ballista's Flight service, called as a function: it listens nowhere.
    let mut rows = match files.do_get(Request::new(Ticket { ticket: fetch.ticket.into() })).await {
        Ok(rows) => rows.into_inner(),
        Err(status) => stream::iter([Err(status)]).boxed(),
    };
    loop {
        let (part, last) = match rows.next().await {
            Some(Ok(data)) => (Part::FlightData(data.encode_to_vec()), false),
            Some(Err(status)) => (Part::Error(status.message().to_owned()), true),
            // The scheduler takes no result for whole that merely stops.
            None => (Part::End(ResultEnd {}), true),
        };
        let sent = sender.send(ResultMessage { fetch_id: String::new(), part: Some(part) }).await;
        if sent.is_err() || last {
            return;
        }
    }
}
