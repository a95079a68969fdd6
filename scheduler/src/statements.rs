//! Which statements run, and how does a client run one? A list that can be read and canceled from, and a call for each.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arrow_ipc::writer::StreamWriter;
use futures::Stream;
use serde::Serialize;
use spool_media::{
    encode::events::{RowEvent as Event, RowEventKind},
    plan::segments::Segment,
};
use spool_storage::redact_in;
use spool_wire::{
    authenticate,
    v1::{
        Accepted, Done, Failure, RowEvent, Statement, StatementMessage, failure::Cause,
        statement_message::Message, statements_server,
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    error::{Error, Result},
    run::{Outcome, Spent},
    service::Scheduler,
};

/// Messages to a client that wait for a slow network.
const QUEUE: usize = 1024;

/// How long a client may take to read a piece of its result.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// Bytes of a result that go into one message.
const PIECE_BYTES: usize = 1 << 20;

/// The statements that run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statements {
    list: Arc<Mutex<BTreeMap<u64, Listed>>>,
    last: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Listed {
    sql: String,
    started: Instant,
    cancel: CancellationToken,
    work: Work,
}

/// What of a statement is done and what is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Work {
    /// Rows of the statement.
    pub(crate) rows: usize,
    /// Rows that are done.
    pub(crate) rows_done: usize,
    /// Milliseconds of media in its rows.
    pub(crate) media_ms: i64,
    /// Milliseconds of media in rows that are done.
    pub(crate) media_done_ms: i64,
}

/// A statement as a list shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    /// Its number, by which it is canceled.
    pub(crate) id: u64,
    /// The statement.
    pub(crate) sql: String,
    /// Seconds since it began.
    pub(crate) seconds: u64,
    #[serde(flatten)]
    pub(crate) work: Work,
}

/// A statement's place in the list, until dropped.
pub(crate) struct Entry {
    statements: Statements,
    number: u64,
    started: Instant,
    cancel: CancellationToken,
}

impl Statements {
    /// Enters a statement, which ends when `cancel` fires or somebody cancels it from the list.
    pub(crate) fn enter(&self, sql: &str, cancel: &CancellationToken) -> Entry {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (cancel, started) = (cancel.child_token(), Instant::now());
        let listed = Listed { sql: sql.to_owned(), started, cancel: cancel.clone(), work: Work::default() };
        self.list().insert(number, listed);
        Entry { statements: self.clone(), number, started, cancel }
    }

    /// How many there were.
    pub(crate) fn so_far(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// All that run, the oldest first.
    pub(crate) fn all(&self) -> Vec<Shown> {
        let shown = |(id, listed): (&u64, &Listed)| Shown {
            id: *id,
            sql: redact_in(&listed.sql),
            seconds: listed.started.elapsed().as_secs(),
            work: listed.work,
        };
        self.list().iter().map(shown).collect()
    }

    /// What all of them have to do.
    pub(crate) fn work(&self) -> Work {
        self.list().values().fold(Work::default(), |sum, listed| Work {
            rows: sum.rows + listed.work.rows,
            rows_done: sum.rows_done + listed.work.rows_done,
            media_ms: sum.media_ms + listed.work.media_ms,
            media_done_ms: sum.media_done_ms + listed.work.media_done_ms,
        })
    }

    /// Cancels one; tells whether there was one by this number.
    pub(crate) fn cancel(&self, number: u64) -> bool {
        let list = self.list();
        let listed = list.get(&number);
        listed.inspect(|listed| listed.cancel.cancel()).is_some()
    }

    fn list(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Listed>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Waits until it is canceled.
    pub(crate) async fn canceled(&self) {
        self.cancel.cancelled().await;
    }

    /// Notes the rows that it has to run.
    pub(crate) fn add_rows(&self, segments: &[Option<Segment>]) {
        self.change(|work| {
            work.rows += segments.len();
            work.media_ms += segments.iter().flatten().map(|segment| segment.duration_ms).sum::<i64>();
        });
    }

    /// Notes what happened to a row.
    pub(crate) fn hear(&self, event: &Event) {
        if let RowEventKind::Finished { .. } = event.kind {
            self.change(|work| {
                // Of a row that ran twice both may say that they finished.
                work.rows_done = (work.rows_done + 1).min(work.rows);
                work.media_done_ms = (work.media_done_ms + event.segment.duration_ms).min(work.media_ms);
            });
        }
    }

    fn change(&self, change: impl FnOnce(&mut Work)) {
        if let Some(listed) = self.statements.list().get_mut(&self.number) {
            change(&mut listed.work);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.statements.list().remove(&self.number);
    }
}

/// Statements by gRPC.
#[derive(Clone)]
pub(crate) struct Door(pub(crate) Scheduler);

#[tonic::async_trait]
impl statements_server::Statements for Door {
    type RunStream = Pin<Box<dyn Stream<Item = std::result::Result<StatementMessage, Status>> + Send>>;

    async fn run(
        &self,
        request: Request<Statement>,
    ) -> std::result::Result<Response<Self::RunStream>, Status> {
        authenticate(request.metadata(), self.0.settings.token.as_deref())?;
        let Statement { sql, settings, client_version } = request.into_inner();
        let ours = env!("CARGO_PKG_VERSION");
        if client_version != ours {
            return Err(Status::failed_precondition(format!(
                "this spool is {client_version} and the scheduler is {ours}: install {ours}"
            )));
        }
        let (sender, messages) = mpsc::channel(QUEUE);
        let scheduler = self.0.clone();
        // Ends the statement when the client is gone: the stream that it reads is dropped then.
        let cancel = CancellationToken::new();
        let gone = cancel.clone().drop_guard();
        tokio::spawn(async move {
            let accepted =
                Message::Accepted(Accepted { statement_id: scheduler.server.scheduler_id.clone() });
            let _ = sender.send(said(accepted)).await;
            let settings: Vec<(&str, &str)> =
                settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let tell = |event: Event| {
                // Progress that a slow network misses is made up for by the next; half of the queue is kept for what happens once, which a
                // client misses that reads none of hundreds of rows' ends: its tally is short then, its result is not.
                if !matches!(event.kind, RowEventKind::Planned | RowEventKind::Progress { .. })
                    || sender.capacity() > QUEUE / 2
                {
                    let _ = sender.try_send(said(Message::Row(RowEvent::from(&event))));
                }
            };
            let outcome = scheduler.run(&sql, &settings, &cancel, &tell).await;
            for message in last_words(outcome) {
                // Whoever does not read any more is gone, and its connection with it, soon.
                match timeout(LAST_WORDS, sender.send(said(message))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return,
                }
            }
        });
        let stream = ReceiverStream::new(messages).map(move |message| {
            let _ = &gone;
            Ok(message)
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

fn said(message: Message) -> StatementMessage {
    StatementMessage { message: Some(message) }
}

/// The result in pieces, or the failure.
fn last_words(outcome: Result<Outcome>) -> Vec<Message> {
    let written = outcome.and_then(|outcome| {
        let bytes = write(&outcome).map_err(|e| Error::Engine { message: e.to_string() })?;
        Ok((bytes, outcome.spent))
    });
    match written {
        Ok((bytes, Spent { planning, rows, merging })) => {
            let pieces = bytes.chunks(PIECE_BYTES).map(|piece| Message::Arrow(piece.to_vec()));
            let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            let done =
                Done { planning_us: micros(planning), rows_us: micros(rows), merging_us: micros(merging) };
            pieces.chain([Message::Done(done)]).collect()
        }
        Err(error) => {
            let kind = serde_json::to_value(error.kind())
                .ok()
                .and_then(|kind| Some(kind.as_str()?.to_owned()))
                .unwrap_or_default();
            let cause = match error {
                Error::Refused(_) | Error::Sql { .. } => Some(Cause::Refused(true)),
                Error::NoExecutors { .. } => Some(Cause::NoExecutors(true)),
                _ => None,
            };
            vec![Message::Failure(Failure { kind, message: error.to_string(), cause })]
        }
    }
}

fn write(outcome: &Outcome) -> std::result::Result<Vec<u8>, datafusion::arrow::error::ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &outcome.schema)?;
    for batch in &outcome.batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canceled_statement_is_off_the_list_when_it_has_ended() {
        let statements = Statements::default();
        let entry = statements.enter("SELECT 1", &CancellationToken::new());
        assert!(!statements.cancel(entry.number() + 1));
        assert!(statements.cancel(entry.number()) && entry.cancel.is_cancelled());
        drop(entry);
        assert!(statements.all().is_empty() && statements.so_far() == 1);
    }
}
