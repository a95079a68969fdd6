//! `Client`: runs statements on a scheduler by gRPC, one call each, and calls again if the scheduler goes
//! away.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow_ipc::reader::StreamReader;
use futures::future::OptionFuture;
use spool_media::encode::events::RowEvent;
use spool_storage::{Backoff, ErrorKind};
use spool_udfs::error::Failure;
use spool_wire::{
    Address,
    v1::{
        self, Done, StartRequest, Statement, failure::Cause, statement_message::Message,
        statements_client::StatementsClient,
    },
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::warn;

use crate::{
    error::{Error, Result},
    queue::statement_list::BeforeRows,
    run::results::{StatementResult, StatementTiming},
};

/// Time limit of a scheduler's response to a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Time for which calls are repeated to a scheduler that was never reached, and to one that went away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(300);

/// First and longest wait before a scheduler is called again.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// Duration of a call from which the scheduler counts as reachable.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Largest result that is read, in bytes: rows of names and numbers.
const RESULT_MAX_BYTES: usize = 1 << 30;

/// A client of a scheduler in another process. Clones share its state.
#[derive(Debug, Clone)]
pub struct Client {
    address: Address,
    token: Option<String>,
    /// Whether the scheduler has ever responded: then it is expected to come back.
    reached: Arc<AtomicBool>,
}

impl Client {
    /// Creates a client of the scheduler at this address that sends `token` with every call.
    pub fn new(address: Address, token: Option<String>) -> Self {
        Self { address, token, reached: Arc::default() }
    }

    /// Runs one statement to its end, as [`crate::Scheduler::run`] does. If the scheduler goes away
    /// meanwhile, for up to five minutes, the statement is sent again: finished rows are found by their part
    /// records.
    ///
    /// # Errors
    /// Returns the errors of [`crate::Scheduler::run`], and [`Error::Unreachable`] if there is no scheduler,
    /// or it stays away. Part records are not lost: a later run of the statement continues from them.
    pub async fn run(
        &self,
        sql: &str,
        settings: &[(&str, &str)],
        cancel: &CancellationToken,
        on_event: &(dyn Fn(RowEvent) + Send + Sync),
    ) -> Result<StatementResult> {
        self.run_held(sql, settings, cancel, on_event, None).await
    }

    /// Runs one statement as [`Client::run`] does, and awaits `before_rows` when its rows are planned, before
    /// the first of them runs. A statement that is sent again awaits `before_rows` again.
    ///
    /// # Errors
    /// Returns the errors of [`Client::run`], and the error of `before_rows`.
    pub async fn run_held(
        &self,
        sql: &str,
        settings: &[(&str, &str)],
        cancel: &CancellationToken,
        on_event: &(dyn Fn(RowEvent) + Send + Sync),
        before_rows: Option<BeforeRows>,
    ) -> Result<StatementResult> {
        let settings: HashMap<String, String> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let statement = Statement {
            sql: sql.to_owned(),
            settings,
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            hold: before_rows.is_some(),
        };
        tokio::select! {
            result = self.call_until_done(statement, on_event, before_rows.as_ref()) => result,
            // Dropping the call cancels the statement.
            () = cancel.cancelled() => Err(Error::Canceled),
        }
    }

    async fn call_until_done(
        &self,
        statement: Statement,
        on_event: &(dyn Fn(RowEvent) + Send + Sync),
        before_rows: Option<&BeforeRows>,
    ) -> Result<StatementResult> {
        let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
        let mut away_since = Instant::now();
        loop {
            let called = Instant::now();
            match self.call(statement.clone(), on_event, before_rows).await {
                Err(error @ Error::Unreachable { accepted, .. }) => {
                    self.reached.fetch_or(accepted, Ordering::Relaxed);
                    // The scheduler was reachable until now, so the time away starts here. A scheduler that
                    // goes away with each call does not count as reachable.
                    if accepted && called.elapsed() > STABLE_AFTER {
                        backoff.reset();
                        away_since = Instant::now();
                    }
                    let timeout = if self.reached.load(Ordering::Relaxed) {
                        RECONNECT_TIMEOUT
                    } else {
                        CONNECT_TIMEOUT
                    };
                    if away_since.elapsed() > timeout {
                        return Err(error);
                    }
                    warn!(%error, "call failed; retrying");
                    sleep(backoff.delay()).await;
                }
                result => {
                    self.reached.store(true, Ordering::Relaxed);
                    return result;
                }
            }
        }
    }

    async fn call(
        &self,
        statement: Statement,
        on_event: &(dyn Fn(RowEvent) + Send + Sync),
        before_rows: Option<&BeforeRows>,
    ) -> Result<StatementResult> {
        let failed = |status: Status| self.failure(&status, false);
        let calling = async {
            let channel = spool_wire::connect(&self.address, self.token.as_deref()).await?;
            let mut client = StatementsClient::new(channel);
            let messages = client.run(statement).await?.into_inner();
            Ok((client, messages))
        };
        let late = || Status::unavailable(format!("no answer within {} s", CALL_TIMEOUT.as_secs()));
        let (client, mut messages) =
            timeout(CALL_TIMEOUT, calling).await.unwrap_or_else(|_| Err(late())).map_err(failed)?;
        let (mut bytes, mut accepted, mut statement_id) = (Vec::new(), false, String::new());
        // The start of a held statement. Meanwhile the call is read on, to detect the loss of the scheduler.
        let mut starting: OptionFuture<_> = None.into();
        loop {
            let message = tokio::select! {
                message = messages.message() => message.map_err(|status| self.failure(&status, accepted))?,
                Some(started) = &mut starting => {
                    started?;
                    starting = None.into();
                    continue;
                }
            };
            match message.and_then(|message| message.message) {
                Some(Message::Accepted(statement)) => {
                    (accepted, statement_id) = (true, statement.statement_id);
                }
                Some(Message::Held(_)) => {
                    let (mut client, statement_id) = (client.clone(), statement_id.clone());
                    starting = Some(Box::pin(async move {
                        if let Some(before_rows) = before_rows {
                            before_rows().await?;
                        }
                        let started = client.start(StartRequest { statement_id }).await;
                        started.map(drop).map_err(|status| self.failure(&status, true))
                    }))
                    .into();
                }
                Some(Message::Row(row)) => {
                    // An event that cannot be read is dropped.
                    if let Ok(event) = row.try_into() {
                        on_event(event);
                    }
                }
                Some(Message::Arrow(chunk)) => {
                    if bytes.len() + chunk.len() > RESULT_MAX_BYTES {
                        return Err(Error::Engine {
                            message: format!(
                                "the result has more than {RESULT_MAX_BYTES} bytes: add a LIMIT"
                            ),
                        });
                    }
                    bytes.extend(chunk);
                }
                Some(Message::Failure(failure)) => return Err(to_error(failure)),
                Some(Message::Done(done)) => return decode(bytes, done),
                None => {
                    return Err(self
                        .failure(&Status::unavailable("the call ended before the statement did"), accepted));
                }
            }
        }
    }

    fn failure(&self, status: &Status, accepted: bool) -> Error {
        let (scheduler, reason) = (self.address.to_string(), spool_wire::reason(&self.address, status));
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Error::Failed(Failure {
                kind: ErrorKind::NotAllowed,
                message: format!("{scheduler}: {reason}"),
            }),
            Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented => {
                Error::Failed(Failure {
                    kind: ErrorKind::BadInput,
                    message: format!("{scheduler}: {reason}"),
                })
            }
            _ => Error::Unreachable { scheduler, reason, accepted },
        }
    }
}

/// Converts a failure from its message.
fn to_error(failure: v1::Failure) -> Error {
    let v1::Failure { kind, message, cause } = failure;
    match (cause, kind.parse().unwrap_or(ErrorKind::Bug)) {
        (Some(Cause::Refused(_)), _) => Error::Sql { message },
        (Some(Cause::NoExecutors(_)), _) => Error::NoExecutors { message },
        (None, ErrorKind::Canceled) => Error::Canceled,
        (None, kind) => Error::Failed(Failure { kind, message }),
    }
}

/// Decodes a result from one Arrow IPC stream.
fn decode(bytes: Vec<u8>, done: Done) -> Result<StatementResult> {
    let broken = |e: datafusion::arrow::error::ArrowError| Error::Engine {
        message: format!("failed to read the result: {e}"),
    };
    let reader = StreamReader::try_new(std::io::Cursor::new(bytes), None).map_err(broken)?;
    let schema = Arc::clone(&reader.schema());
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>().map_err(broken)?;
    let Done { planning_us, rows_us, merging_us } = done;
    let [planning, rows, merging] = [planning_us, rows_us, merging_us].map(Duration::from_micros);
    Ok(StatementResult { schema, batches, timing: StatementTiming { planning, rows, merging } })
}
