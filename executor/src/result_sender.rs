//! Result sender: answers the scheduler's `FetchResult` with the rows that a task wrote.

use std::time::Duration;

use arrow_flight::{FlightData, Ticket, flight_service_server::FlightService};
use ballista_executor::flight_service::BallistaFlightService;
use futures::{Stream, StreamExt, stream};
use prost::Message;
use spool_wire::{
    Connection,
    v1::{FetchResult, ResultMessage, executor_service_client::ExecutorServiceClient, result_message::Part},
};
use tokio::time::timeout;
use tonic::{Request, Status};
use tracing::debug;

/// How long the scheduler may take to read one result.
const SEND_TIMEOUT: Duration = Duration::from_secs(120);

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
            let id = fetch.fetch_id;
            // Ballista's Flight service, called as a function: it listens nowhere.
            let read = files.do_get(Request::new(Ticket { ticket: fetch.ticket.into() })).await;
            let parts = match read {
                Ok(rows) => rows.into_inner().map(part).left_stream(),
                Err(status) => stream::once(async move { failed(&status) }).right_stream(),
            };
            match timeout(SEND_TIMEOUT, client.send_result(Request::new(messages(id.clone(), parts)))).await {
                Ok(Ok(_)) => {}
                Ok(Err(status)) => debug!(fetch = id, %status, "failed to send a result"),
                Err(_) => debug!(fetch = id, "the scheduler did not read a result in time"),
            }
        });
    }
}

/// Puts a message that names the fetch before the parts of its result.
fn messages(fetch_id: String, parts: impl Stream<Item = Part>) -> impl Stream<Item = ResultMessage> {
    let first = ResultMessage { fetch_id, part: None };
    let rest = parts.map(|part| ResultMessage { fetch_id: String::new(), part: Some(part) });
    stream::once(async move { first }).chain(rest)
}

fn part(data: Result<FlightData, Status>) -> Part {
    match data {
        Ok(data) => Part::FlightData(data.encode_to_vec()),
        Err(status) => failed(&status),
    }
}

fn failed(status: &Status) -> Part {
    Part::Error(status.message().to_owned())
}
