//! How does a client run statements on a scheduler elsewhere? One call for each: its end by the client cancels the statement. Where the
//! scheduler goes away it is called again.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow_ipc::reader::StreamReader;
use backon::BackoffBuilder;
use spool_media::encode::events::RowEvent;
use spool_storage::ErrorKind;
use spool_udfs::error::Failure;
use spool_wire::v1::{
    self, Done, Statement, failure::Cause, statement_message::Message, statements_client::StatementsClient,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::warn;

use crate::{
    error::{Error, Result},
    run::{Outcome, Spent},
};

/// How long a scheduler may take to say that it heard a statement.
const ANSWER: Duration = Duration::from_secs(15);

/// How long it is tried to reach a scheduler that was never reached, and one that went away.
const FIRST_TRIES: Duration = Duration::from_secs(5);
const LATER_TRIES: Duration = Duration::from_secs(300);

/// The wait before a scheduler is called again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// A call that went on for so long was in good hands.
const STAYED: Duration = Duration::from_secs(10);

/// The largest result that is taken: rows of names and numbers.
const RESULT_BYTES_MAX: usize = 1 << 30;

/// A scheduler elsewhere.
#[derive(Debug, Clone)]
pub struct Remote {
    address: String,
    token: Option<String>,
    /// Did it ever answer? Then it will be back.
    reached: Arc<AtomicBool>,
}

impl Remote {
    /// The scheduler at `HOST:PORT`, which is shown `token`.
    pub fn new(address: impl Into<String>, token: Option<String>) -> Self {
        Self { address: address.into(), token, reached: Arc::default() }
    }

    /// Runs one statement there to its end, as [`crate::Scheduler::run`] does here. Where the scheduler goes away meanwhile, for up to five
    /// minutes, the statement is sent again: rows that are done are found by their records.
    ///
    /// # Errors
    /// As there; and [`Error::Unreachable`] where there is no scheduler, or it stays away: what was recorded is not lost, and the same
    /// statement goes on.
    pub async fn run(
        &self,
        sql: &str,
        settings: &[(&str, &str)],
        cancel: &CancellationToken,
        tell: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<Outcome> {
        let settings: HashMap<String, String> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let statement =
            Statement { sql: sql.to_owned(), settings, client_version: env!("CARGO_PKG_VERSION").to_owned() };
        tokio::select! {
            outcome = self.call_until_done(statement, tell) => outcome,
            // Dropping the call is what cancels.
            () = cancel.cancelled() => Err(Error::Canceled),
        }
    }

    async fn call_until_done(
        &self,
        statement: Statement,
        tell: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<Outcome> {
        let waits = || {
            let shape =
                backon::ExponentialBuilder::new().with_min_delay(RETRY_FIRST).with_max_delay(RETRY_MOST);
            shape.without_max_times().with_jitter().build()
        };
        let (mut backoff, mut away) = (waits(), Instant::now());
        loop {
            let called = Instant::now();
            match self.call(statement.clone(), tell).await {
                Err(error @ Error::Unreachable { accepted, .. }) => {
                    self.reached.fetch_or(accepted, Ordering::Relaxed);
                    // It was there until now: what counts is how long it is away from here on. One that goes away with each call does not
                    // count as there.
                    if accepted && called.elapsed() > STAYED {
                        (backoff, away) = (waits(), Instant::now());
                    }
                    let patience =
                        if self.reached.load(Ordering::Relaxed) { LATER_TRIES } else { FIRST_TRIES };
                    if away.elapsed() > patience {
                        return Err(error);
                    }
                    warn!(%error, "trying again");
                    sleep(backoff.next().unwrap_or(RETRY_MOST)).await;
                }
                outcome => {
                    self.reached.store(true, Ordering::Relaxed);
                    return outcome;
                }
            }
        }
    }

    async fn call(&self, statement: Statement, tell: &(dyn Fn(RowEvent) + Send + Sync)) -> Result<Outcome> {
        let failed = |status: Status| self.failure(&status, false);
        let begun = async {
            let channel = spool_wire::connect(&self.address, self.token.as_deref()).await?;
            let mut client = StatementsClient::new(channel);
            Ok(client.run(statement).await?.into_inner())
        };
        let late = || Status::unavailable("it did not answer in time");
        let mut messages = timeout(ANSWER, begun).await.unwrap_or_else(|_| Err(late())).map_err(failed)?;
        let (mut bytes, mut accepted) = (Vec::new(), false);
        loop {
            let message = messages.message().await.map_err(|status| self.failure(&status, accepted))?;
            match message.and_then(|message| message.message) {
                Some(Message::Accepted(_)) => accepted = true,
                Some(Message::Row(row)) => {
                    // One that makes no sense tells nothing.
                    if let Ok(event) = row.try_into() {
                        tell(event);
                    }
                }
                Some(Message::Arrow(piece)) => {
                    if bytes.len() + piece.len() > RESULT_BYTES_MAX {
                        return Err(Error::Engine {
                            message: format!(
                                "the result has more than {RESULT_BYTES_MAX} bytes: add a LIMIT"
                            ),
                        });
                    }
                    bytes.extend(piece);
                }
                Some(Message::Failure(failure)) => return Err(error_of(failure)),
                Some(Message::Done(done)) => return read(bytes, done),
                None => {
                    return Err(self
                        .failure(&Status::unavailable("the call ended before the statement did"), accepted));
                }
            }
        }
    }

    fn failure(&self, status: &Status, accepted: bool) -> Error {
        let (scheduler, why) = (self.address.clone(), status.message().to_owned());
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => {
                Error::Failed(Failure { kind: ErrorKind::NotAllowed, message: format!("{scheduler}: {why}") })
            }
            Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented => {
                Error::Failed(Failure { kind: ErrorKind::BadInput, message: format!("{scheduler}: {why}") })
            }
            _ => Error::Unreachable { scheduler, why, accepted },
        }
    }
}

/// The error that the scheduler told.
fn error_of(failure: v1::Failure) -> Error {
    let v1::Failure { kind, message, cause } = failure;
    match (cause, serde_json::from_value(serde_json::Value::String(kind)).unwrap_or(ErrorKind::Bug)) {
        (Some(Cause::Refused(_)), _) => Error::Sql { message },
        (Some(Cause::NoExecutors(_)), _) => Error::NoExecutors { message },
        (None, ErrorKind::Canceled) => Error::Canceled,
        (None, kind) => Error::Failed(Failure { kind, message }),
    }
}

fn read(bytes: Vec<u8>, done: Done) -> Result<Outcome> {
    let broken = |e: datafusion::arrow::error::ArrowError| Error::Engine {
        message: format!("the result cannot be read: {e}"),
    };
    let reader = StreamReader::try_new(std::io::Cursor::new(bytes), None).map_err(broken)?;
    let schema = Arc::clone(&reader.schema());
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>().map_err(broken)?;
    let Done { planning_us, rows_us, merging_us } = done;
    let [planning, rows, merging] = [planning_us, rows_us, merging_us].map(Duration::from_micros);
    Ok(Outcome { schema, batches, spent: Spent { planning, rows, merging } })
}
