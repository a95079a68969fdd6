//! Tables of a tenant: jobs, rows, attempts, videos, renditions and parts. A table is read page by page, as
//! far as a query consumes it, and only with the rows of its tenant.

use std::sync::Arc;

use arrow_json::ReaderBuilder;
use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::RecordBatch,
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::{Session, TableProvider, streaming::StreamingTable},
    common::ScalarValue,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType},
    physical_plan::{ExecutionPlan, stream::RecordBatchStreamAdapter, streaming::PartitionStream},
};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use spool_jobs::{Id, JobStore};
use spool_media::package::{part_store, parts::PartRecord};
use spool_storage::Stores;
use strum::{EnumIter, IntoStaticStr};

/// Rows that are read from the database at a time.
const PAGE: u32 = 500;

/// Tables, by the names that queries use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum TableKind {
    Jobs,
    Rows,
    Attempts,
    Videos,
    Renditions,
    Parts,
}

impl TableKind {
    /// Returns the names of the text columns, then those of the integer columns.
    fn columns(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Jobs => (
                &["id", "video", "state", "phase", "source", "destination", "sql", "error_kind", "error"],
                &[
                    "priority",
                    "percent",
                    "tries",
                    "created_ms",
                    "due_ms",
                    "started_ms",
                    "ended_ms",
                    "rows",
                    "rows_done",
                    "media_ms",
                    "media_done_ms",
                ],
            ),
            Self::Rows => (
                &["job", "track", "state"],
                &[
                    "ordinal",
                    "track_index",
                    "first_frame",
                    "frames",
                    "expected",
                    "start_ms",
                    "duration_ms",
                    "done_ms",
                    "attempts",
                    "encoded",
                    "reused",
                ],
            ),
            Self::Attempts => (&["job", "reason"], &["ordinal", "fencing_token", "attempt", "at_ms"]),
            Self::Videos => (
                &["id", "name", "source", "destination", "master"],
                &["created_ms", "published_ms", "duration_ms", "bytes"],
            ),
            Self::Renditions => (
                &["video", "name", "playlist", "codecs"],
                &["width", "height", "average_bps", "peak_bps", "media_segments", "bytes"],
            ),
            Self::Parts => (
                &["video", "track", "rendition", "codecs", "key"],
                &[
                    "index",
                    "first_frame",
                    "frames",
                    "start_ms",
                    "duration_ms",
                    "media_segments",
                    "bytes",
                    "encode_ms",
                ],
            ),
        }
    }

    /// Returns the column by which the database finds rows without reading the whole table.
    fn key(self) -> &'static str {
        match self {
            Self::Jobs | Self::Videos => "id",
            Self::Rows | Self::Attempts => "job",
            Self::Renditions | Self::Parts => "video",
        }
    }

    fn schema(self) -> SchemaRef {
        let (texts, numbers) = self.columns();
        let texts = texts.iter().map(|name| Field::new(*name, DataType::Utf8, true));
        let numbers = numbers.iter().map(|name| Field::new(*name, DataType::Int64, true));
        Arc::new(Schema::new(texts.chain(numbers).collect::<Vec<_>>()))
    }
}

/// Table of one tenant.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) kind: TableKind,
    pub(crate) tenant: Arc<str>,
    pub(crate) job_store: Arc<dyn JobStore>,
    pub(crate) object_stores: Stores,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("kind", &self.kind)
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        self.kind.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // A filter on the key column limits the rows that are read; DataFusion still applies every filter.
        Ok(filters.iter().map(|_| TableProviderFilterPushDown::Inexact).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let key = filters.iter().find_map(|filter| literal_of(filter, self.kind.key()));
        let pages = Pages { table: self.clone(), key: key.map(Id::from_text), schema: self.schema() };
        StreamingTable::try_new(self.schema(), vec![Arc::new(pages)])?
            .scan(state, projection, &[], limit)
            .await
    }
}

/// Returns the text that a filter requires a column to equal.
fn literal_of(filter: &Expr, key: &str) -> Option<String> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
    match (&**left, op, &**right) {
        (left, Operator::And, right) => literal_of(left, key).or_else(|| literal_of(right, key)),
        (Expr::Column(column), Operator::Eq, Expr::Literal(value, _))
        | (Expr::Literal(value, _), Operator::Eq, Expr::Column(column))
            if column.name == key =>
        {
            match value {
                ScalarValue::Utf8(text) | ScalarValue::Utf8View(text) | ScalarValue::LargeUtf8(text) => {
                    text.clone()
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// Rows of a table, or those with one key, read page by page.
#[derive(Debug)]
struct Pages {
    table: Table,
    key: Option<Id>,
    schema: SchemaRef,
}

impl PartitionStream for Pages {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = self.schema.clone();
        let (table, key) = (self.table.clone(), self.key.clone());
        let batches = items(table, key).ready_chunks(PAGE as usize).map(move |items| {
            let items: Vec<Value> = items.into_iter().collect::<Result<_>>()?;
            batch(&schema, &items)
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

fn batch(schema: &SchemaRef, items: &[Value]) -> Result<RecordBatch> {
    let mut decoder =
        ReaderBuilder::new(schema.clone()).with_batch_size(items.len().max(1)).build_decoder()?;
    decoder.serialize(items)?;
    Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema.clone())))
}

type Items = stream::BoxStream<'static, Result<Value>>;

/// Returns the rows of a table as JSON objects, the newest job or video first.
fn items(table: Table, key: Option<Id>) -> Items {
    let of_each = move |table: Table, parent: Items, key: &'static str| -> Items {
        let children = move |parent: Value| {
            let table = table.clone();
            async move {
                let id = Id::from_text(parent[key].as_str().unwrap_or_default());
                Ok::<_, DataFusionError>(children(table, id, parent))
            }
        };
        parent.and_then(children).try_flatten().boxed()
    };
    match table.kind {
        TableKind::Jobs => jobs(table, key),
        TableKind::Videos => videos(table, key),
        TableKind::Rows | TableKind::Attempts => of_each(table.clone(), jobs(table, key), "id"),
        TableKind::Renditions | TableKind::Parts => of_each(table.clone(), videos(table, key), "id"),
    }
}

fn jobs(table: Table, key: Option<Id>) -> Items {
    pages(key, move |key, after| {
        let table = table.clone();
        async move {
            let page = match key {
                Some(id) => (found(table.job_store.job(&table.tenant, &id).await)?, None),
                None => {
                    let page = table
                        .job_store
                        .jobs(&table.tenant, &spool_jobs::JobFilter::default(), after.as_ref(), PAGE)
                        .await;
                    let page = page.map_err(store_error)?;
                    (page.items, page.next)
                }
            };
            Ok((page.0.into_iter().map(job).collect(), page.1))
        }
    })
}

fn videos(table: Table, key: Option<Id>) -> Items {
    pages(key, move |key, after| {
        let table = table.clone();
        async move {
            let page = match key {
                Some(id) => (found(table.job_store.video(&table.tenant, &id).await)?, None),
                None => {
                    let page = table
                        .job_store
                        .videos(&table.tenant, after.as_ref(), PAGE)
                        .await
                        .map_err(store_error)?;
                    (page.items, page.next)
                }
            };
            Ok((page.0.into_iter().map(video).collect(), page.1))
        }
    })
}

/// Returns the rows of all pages. A page is read when the previous one is consumed.
fn pages<F>(key: Option<Id>, read: impl Fn(Option<Id>, Option<Id>) -> F + Send + Sync + 'static) -> Items
where
    F: Future<Output = Result<(Vec<Value>, Option<Id>)>> + Send + 'static,
{
    let read = Arc::new(read);
    let read_page = move |cursor: Option<Option<Id>>| {
        let (read, key) = (read.clone(), key.clone());
        async move {
            let Some(after) = cursor else { return Ok::<_, DataFusionError>(None) };
            let (items, next) = read(key, after).await?;
            Ok(Some((stream::iter(items.into_iter().map(Ok)), next.map(Some))))
        }
    };
    stream::try_unfold(Some(None), read_page).try_flatten().boxed()
}

/// Returns the rows of a table that belong to one job or video.
fn children(table: Table, id: Id, parent: Value) -> Items {
    let read = async move {
        match table.kind {
            TableKind::Rows => rows(&table, &id).await,
            TableKind::Attempts => {
                let attempts =
                    table.job_store.attempts(&table.tenant, &id, 1000).await.map_err(store_error)?;
                Ok(attempts
                    .into_iter()
                    .map(|attempt| {
                        json!({
                            "job": id, "ordinal": attempt.ordinal, "fencing_token": attempt.fencing_token,
                            "attempt": attempt.attempt, "at_ms": attempt.at_ms, "reason": attempt.reason,
                        })
                    })
                    .collect())
            }
            TableKind::Renditions => Ok(renditions(&id, &parent)),
            TableKind::Parts => parts(&table, &id, &parent).await,
            TableKind::Jobs | TableKind::Videos => Ok(Vec::new()),
        }
    };
    stream::once(read)
        .map_ok(|items: Vec<Value>| stream::iter(items.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

async fn rows(table: &Table, id: &Id) -> Result<Vec<Value>> {
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let rows = table.job_store.rows(&table.tenant, id, from, PAGE).await.map_err(store_error)?;
        let Some(last) = rows.last() else { return Ok(all) };
        from = last.ordinal + 1;
        all.extend(rows.into_iter().map(|row| {
            let done = row.state == spool_jobs::RowState::Done;
            json!({
                "job": id, "ordinal": row.ordinal, "track": row.track, "track_index": row.track_index,
                "first_frame": row.first_frame,
                // A part is committed only with as many frames as were planned.
                "frames": if done { row.frames } else { 0 }, "expected": row.frames, "start_ms": row.start_ms,
                "duration_ms": row.duration_ms, "state": row.state, "done_ms": row.done_ms,
                "attempts": row.attempts, "encoded": row.encoded, "reused": row.reused,
            })
        }));
    }
}

fn job(job: spool_jobs::Job) -> Value {
    let percent = job.percent();
    let request = serde_json::to_value(job.request.without_secrets()).unwrap_or_default();
    let error = job.error.as_ref();
    json!({
        "id": job.id, "video": job.video, "state": job.state, "phase": job.phase,
        "source": request["source"], "destination": request["destination"], "sql": request["sql"],
        "priority": job.priority, "percent": percent, "tries": job.tries, "created_ms": job.created_ms,
        "due_ms": job.due_ms, "started_ms": job.started_ms, "ended_ms": job.ended_ms, "rows": job.rows,
        "rows_done": job.rows_done, "media_ms": job.media_ms, "media_done_ms": job.media_done_ms,
        "error_kind": error.map(|error| error.kind), "error": error.map(|error| &error.message),
    })
}

/// Returns a video with its `renditions`, which are not a column: the table of renditions reads them.
fn video(video: spool_jobs::Video) -> Value {
    let published = video.published.unwrap_or_default();
    json!({
        "id": video.id, "name": video.name, "source": video.source, "destination": video.destination,
        "created_ms": video.created_ms, "published_ms": video.published_ms, "master": published["master"],
        "duration_ms": published["duration_ms"], "bytes": published["bytes"],
        "renditions": published["renditions"],
    })
}

fn renditions(id: &Id, video: &Value) -> Vec<Value> {
    let all = video["renditions"].as_array().into_iter().flatten();
    let with_video = |rendition: &Value| {
        let mut rendition = rendition.clone();
        rendition["video"] = json!(id);
        rendition
    };
    all.map(with_video).collect()
}

async fn parts(table: &Table, id: &Id, video: &Value) -> Result<Vec<Value>> {
    if video["published_ms"].is_null() {
        return Ok(Vec::new());
    }
    let destination = video["destination"].as_str().unwrap_or_default();
    let location = table.object_stores.locate(destination).map_err(external)?;
    let records = part_store::list(&location).await.map_err(external)?;
    let part = |record: &PartRecord| {
        let (segment, rendition) = (json!(record.segment), json!(record.rendition));
        let media_segments = rendition["media_segments"].as_array();
        let bytes = media_segments.map(|all| all.iter().filter_map(|one| one["bytes"].as_i64()).sum::<i64>());
        json!({
            "video": id, "track": segment["track"], "rendition": rendition["name"],
            "codecs": rendition["codecs"], "key": rendition["key"], "index": segment["index"],
            "first_frame": segment["first_frame"], "frames": segment["frames"],
            "start_ms": segment["start_ms"], "duration_ms": segment["duration_ms"],
            "media_segments": media_segments.map(Vec::len), "bytes": bytes,
            "encode_ms": rendition["encode_ms"],
        })
    };
    Ok(records.iter().map(part).collect())
}

/// Returns one row, or none if the job or video does not exist.
fn found<T>(found: spool_jobs::Result<T>) -> Result<Vec<T>> {
    match found {
        Ok(item) => Ok(vec![item]),
        Err(spool_jobs::Error::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(store_error(error)),
    }
}

fn store_error(error: spool_jobs::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn external(error: impl Into<spool_media::Error>) -> DataFusionError {
    DataFusionError::External(Box::new(error.into()))
}
