//! `StatementsService`: statements by gRPC, one call each. The end of the call by the client cancels the
//! statement.

use std::{pin::Pin, sync::Arc, time::Duration};

use arrow_ipc::writer::StreamWriter;
use datafusion::arrow::error::ArrowError;
use futures::Stream;
use spool_media::encode::events::{RowEvent, RowEventKind};
use spool_wire::{
    authenticate,
    v1::{
        self, Accepted, Done, Failure, Held, StartRequest, StartResponse, Statement, StatementMessage,
        failure::Cause, statement_message::Message, statements_server,
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    error::{Error, Result},
    queue::statement_list::BeforeRows,
    run::results::{StatementResult, StatementTiming},
    scheduler::Scheduler,
};

/// Messages to a client that wait for a slow network. The queue takes memory only as it fills. It has room
/// for the `Planned` events of far more rows than a statement has (ten hours of video in segments of 8 s are
/// 4,500): the client ignores later events of a row without its `Planned`.
const MESSAGE_QUEUE: usize = 1 << 16;

/// Waiting messages beyond which progress is dropped: the next progress replaces it.
const PROGRESS_QUEUE: usize = 512;

/// Time limit of a client for reading one chunk of its result.
const RESULT_CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of a result per message.
const RESULT_CHUNK_BYTES: usize = 1 << 20;

/// Runs statements for clients by gRPC.
#[derive(Clone)]
pub(crate) struct StatementsService {
    pub(crate) scheduler: Scheduler,
    pub(crate) token: Option<Arc<str>>,
}

#[tonic::async_trait]
impl statements_server::Statements for StatementsService {
    type RunStream = Pin<Box<dyn Stream<Item = std::result::Result<StatementMessage, Status>> + Send>>;

    async fn run(
        &self,
        request: Request<Statement>,
    ) -> std::result::Result<Response<Self::RunStream>, Status> {
        authenticate(request.metadata(), self.token.as_deref())?;
        let Statement { sql, settings, client_version, hold } = request.into_inner();
        let version = env!("CARGO_PKG_VERSION");
        if client_version != version {
            return Err(Status::failed_precondition(format!(
                "this spool is {client_version} and the scheduler is {version}: install {version}"
            )));
        }
        let (sender, messages) = mpsc::channel(MESSAGE_QUEUE);
        let scheduler = self.scheduler.clone();
        // Cancels the statement when the client is gone, and its stream is dropped.
        let cancel = CancellationToken::new();
        let guard = cancel.clone().drop_guard();
        let entry = scheduler.add(&sql, &cancel);
        let before_rows = hold.then(|| hold_until_start(&sender, entry.start_token()));
        let entry = entry.with_before_rows(before_rows);
        tokio::spawn(async move {
            let accepted = Accepted { statement_id: entry.id().to_string() };
            let _ = sender.send(message(Message::Accepted(accepted))).await;
            let settings: Vec<(&str, &str)> =
                settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let on_event = |event: RowEvent| {
                let queued = sender.max_capacity() - sender.capacity();
                if !matches!(event.kind, RowEventKind::Progress { .. }) || queued < PROGRESS_QUEUE {
                    let _ = sender.try_send(message(Message::Row(v1::RowEvent::from(&event))));
                }
            };
            let result = scheduler.run_added(&entry, &sql, &settings, &on_event).await;
            drop(entry);
            for last in last_messages(result) {
                // A client that does not read counts as gone.
                match timeout(RESULT_CHUNK_TIMEOUT, sender.send(message(last))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return,
                }
            }
        });
        let stream = ReceiverStream::new(messages).map(move |message| {
            let _ = &guard;
            Ok(message)
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn start(
        &self,
        request: Request<StartRequest>,
    ) -> std::result::Result<Response<StartResponse>, Status> {
        authenticate(request.metadata(), self.token.as_deref())?;
        let StartRequest { statement_id } = request.into_inner();
        let started = statement_id.parse().is_ok_and(|id| self.scheduler.statements.start(id));
        let missing = || Status::not_found(format!("statement {statement_id} does not run here"));
        started.then(|| Response::new(StartResponse {})).ok_or_else(missing)
    }
}

/// Returns the hook of a held statement: reports to the client that the rows are planned, and waits for
/// `Start`.
fn hold_until_start(sender: &mpsc::Sender<StatementMessage>, start: CancellationToken) -> BeforeRows {
    let sender = sender.clone();
    Arc::new(move || {
        let (sender, start) = (sender.clone(), start.clone());
        Box::pin(async move {
            // If the client is gone, the statement is canceled.
            let _ = sender.send(message(Message::Held(Held {}))).await;
            start.cancelled().await;
            Ok(())
        })
    })
}

fn message(message: Message) -> StatementMessage {
    StatementMessage { message: Some(message) }
}

/// Returns the chunks of the result and the timing, or the failure.
fn last_messages(result: Result<StatementResult>) -> Vec<Message> {
    let encoded = result.and_then(|result| {
        let bytes = encode(&result).map_err(|e| Error::Engine { message: e.to_string() })?;
        Ok((bytes, result.timing))
    });
    match encoded {
        Ok((bytes, StatementTiming { planning, rows, merging })) => {
            let chunks = bytes.chunks(RESULT_CHUNK_BYTES).map(|chunk| Message::Arrow(chunk.to_vec()));
            let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            let done =
                Done { planning_us: micros(planning), rows_us: micros(rows), merging_us: micros(merging) };
            chunks.chain([Message::Done(done)]).collect()
        }
        Err(error) => {
            let cause = match error {
                Error::Refused(_) | Error::Sql { .. } => Some(Cause::Refused(true)),
                Error::NoExecutors { .. } => Some(Cause::NoExecutors(true)),
                _ => None,
            };
            let kind = error.kind().name().to_owned();
            vec![Message::Failure(Failure { kind, message: error.to_string(), cause })]
        }
    }
}

/// Encodes a result as one Arrow IPC stream.
fn encode(result: &StatementResult) -> std::result::Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &result.schema)?;
    for batch in &result.batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spool_media::{
        encode::worker::Worker,
        environment::Environment,
        ffmpeg::{SandboxMode, Tools},
    };
    use spool_storage::Stores;
    use spool_wire::v1::statements_client::StatementsClient;

    use super::*;
    use crate::service::{Service, Settings};

    /// Starts a scheduler without executors: a statement with rows waits there until it is canceled.
    async fn scheduler_without_executors(scratch: &std::path::Path) -> Service {
        let tools = Tools {
            ffmpeg: "ffmpeg".into(),
            ffprobe: "ffprobe".into(),
            confinement: SandboxMode::None,
            libraries: Vec::new(),
        };
        let worker = Arc::new(Worker::new(Environment::new(Stores::from_env(), tools, scratch).unwrap()));
        Service::start(Settings::embedded(), worker).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_accepted_statement_is_canceled_by_the_id_that_the_client_got() {
        let scratch = tempfile::tempdir().unwrap();
        let service = scheduler_without_executors(scratch.path()).await;
        let channel = spool_wire::connect(service.address(), None).await.unwrap();
        let mut client = StatementsClient::new(channel);
        let statement = |sql: &str| Statement {
            sql: sql.to_owned(),
            settings: Default::default(),
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            hold: false,
        };
        let mut other = client.run(statement("SELECT 1")).await.unwrap().into_inner();
        let mut canceled = client.run(statement("SELECT 2")).await.unwrap().into_inner();
        let mut ids = Vec::new();
        for messages in [&mut other, &mut canceled] {
            match messages.message().await.unwrap().and_then(|message| message.message) {
                Some(Message::Accepted(accepted)) => ids.push(accepted.statement_id.parse::<u64>().unwrap()),
                first => panic!("the first message is {first:?}"),
            }
        }
        let statements = &service.scheduler().statements;
        let listed = statements.all().into_iter().find(|statement| statement.id == ids[1]);
        assert_eq!(listed.map(|statement| statement.sql).as_deref(), Some("SELECT 2"));
        assert!(statements.cancel(ids[1]));
        match canceled.message().await.unwrap().and_then(|message| message.message) {
            Some(Message::Failure(failure)) => assert_eq!(failure.kind, "canceled"),
            last => panic!("the last message is {last:?}"),
        }
        let left: Vec<u64> = statements.all().into_iter().map(|statement| statement.id).collect();
        assert_eq!(left, [ids[0]]);
    }
}
