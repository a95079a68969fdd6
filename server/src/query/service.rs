//! Query service: read-only SQL over the tables of one tenant, within limits of time, memory and result.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arrow_json::ArrayWriter;
use datafusion::{
    arrow::array::RecordBatch,
    common::tree_node::{TreeNode, TreeNodeRecursion},
    error::DataFusionError,
    execution::{SessionStateBuilder, memory_pool::GreedyMemoryPool, runtime_env::RuntimeEnvBuilder},
    logical_expr::{Expr, LogicalPlan, Operator},
    prelude::{SQLOptions, SessionConfig, SessionContext},
};
use futures::TryStreamExt;
use parking_lot::Mutex;
use serde_json::Value;
use spool_jobs::{JobStore, check_statement};
use spool_storage::{ConcurrencyLimit, ConcurrencyPermit, Stores};
use spool_udfs::cooperative::YieldBetweenBatches;
use strum::IntoEnumIterator;
use tokio::{
    runtime::{self, Handle, Runtime},
    time::timeout,
};

use crate::{
    problem::{Problem, ProblemKind},
    query::tables::{Table, TableKind},
};

/// Maximum of concurrent queries, in all and per tenant, and time that a query waits for a permit of the
/// server.
const MAX_QUERIES: usize = 4;
const MAX_QUERIES_PER_TENANT: usize = 2;
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit and memory limit of a query; the latter in bytes.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_MEMORY: usize = 64 << 20;

/// Functions that a query may call. Functions that make large values of small ones are excluded, and so are
/// those that take long in one call, during which a query cannot be canceled.
const ALLOWED_FUNCTIONS: [&str; 31] = [
    "abs",
    "bit_length",
    "btrim",
    "char_length",
    "character_length",
    "coalesce",
    "contains",
    "date_part",
    "date_trunc",
    "datepart",
    "datetrunc",
    "ends_with",
    "from_unixtime",
    "greatest",
    "least",
    "left",
    "length",
    "lower",
    "ltrim",
    "now",
    "nullif",
    "nvl",
    "octet_length",
    "right",
    "rtrim",
    "starts_with",
    "strpos",
    "substr",
    "to_timestamp_millis",
    "trim",
    "upper",
];

/// Maximum of string concatenations, of joins and of tables read in a query.
const MAX_CONCATS: usize = 8;
const MAX_JOINS: usize = 3;
const MAX_SCANS: usize = 4;

/// Threads that run queries. They are their own, and yield to those that answer requests: a join computes for
/// long between two points at which another task could run.
const QUERY_THREADS: usize = 2;
const QUERY_NICE: i32 = 10;
const QUERY_STACK_BYTES: usize = 16 << 20;

/// Maximum length of a SQL text and of a result, in bytes, and maximum number of rows of a result.
const MAX_SQL_BYTES: usize = 16 << 10;
const MAX_RESULT_BYTES: usize = 8 << 20;
const MAX_ROWS: usize = 10_000;

/// Runs queries of tenants.
#[derive(Clone)]
pub(crate) struct QueryService {
    job_store: Arc<dyn JobStore>,
    object_stores: Stores,
    queries: ConcurrencyLimit,
    /// Limits of the tenants whose queries run.
    tenant_queries: Arc<Mutex<HashMap<String, ConcurrencyLimit>>>,
    threads: Arc<QueryThreads>,
}

/// Threads that run queries.
struct QueryThreads(Option<Runtime>);

impl QueryThreads {
    fn start() -> std::io::Result<Self> {
        runtime::Builder::new_multi_thread()
            .worker_threads(QUERY_THREADS)
            .thread_name("query")
            .thread_stack_size(QUERY_STACK_BYTES)
            // On Linux the priority is the thread's own. A failure costs nothing but latency under load.
            .on_thread_start(|| {
                let _ = rustix::process::setpriority_process(None, QUERY_NICE);
            })
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
    }

    fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for QueryThreads {
    fn drop(&mut self) {
        if let Some(threads) = self.0.take() {
            threads.shutdown_background();
        }
    }
}

/// Result of a query.
pub(crate) struct QueryResult {
    /// Names of the columns, in order.
    pub(crate) columns: Vec<String>,
    /// Rows, each a JSON object.
    pub(crate) rows: Vec<Value>,
    /// Whether rows beyond `MAX_ROWS` were left out.
    pub(crate) more: bool,
}

impl QueryService {
    /// Creates the service.
    ///
    /// # Errors
    /// Returns the system's error if its threads cannot be started.
    pub(crate) fn new(job_store: Arc<dyn JobStore>, object_stores: Stores) -> std::io::Result<Self> {
        let queries = ConcurrencyLimit::new("queries", MAX_QUERIES);
        let threads = Arc::new(QueryThreads::start()?);
        Ok(Self { job_store, object_stores, queries, tenant_queries: Arc::default(), threads })
    }

    /// Runs a query over the tables of a tenant.
    pub(crate) async fn query(&self, tenant: &str, sql: String) -> Result<QueryResult, Problem> {
        if sql.len() > MAX_SQL_BYTES || sql.trim().is_empty() {
            let detail = format!("sql: must have 1 to {MAX_SQL_BYTES} bytes");
            return Err(Problem::new(ProblemKind::Invalid, detail));
        }
        if let Err(too_large) = check_statement(&sql) {
            return Err(Problem::new(ProblemKind::Invalid, format!("sql: {too_large}")));
        }
        let tenant_permit = self.tenant_permit(tenant).ok_or_else(|| {
            let detail = format!(
                "too many queries: this tenant runs {MAX_QUERIES_PER_TENANT}; retry when one has ended"
            );
            Problem::new(ProblemKind::TooManyConcurrent, detail)
        })?;
        let permit = self.queries.acquire_within(QUEUE_TIMEOUT).await.ok_or_else(|| {
            let detail = format!("too many queries: this server runs {MAX_QUERIES}; retry later");
            Problem::new(ProblemKind::TooManyConcurrent, detail)
        })?;
        let context = self.context(tenant).map_err(|error| query_error(&error))?;
        // When the set is dropped, the query ends at its next batch.
        let mut run = tokio::task::JoinSet::new();
        let Some(threads) = self.threads.handle() else {
            return Err(Problem::new(ProblemKind::Unavailable, "the server shuts down"));
        };
        run.spawn_on(
            async move {
                let _permits = (tenant_permit, permit);
                execute(&context, &sql).await
            },
            threads,
        );
        match timeout(QUERY_TIMEOUT, run.join_next()).await {
            Err(_) => {
                let detail = format!("sql: took longer than {} s; select less", QUERY_TIMEOUT.as_secs());
                Err(Problem::new(ProblemKind::Invalid, detail))
            }
            Ok(Some(Ok(result))) => result,
            Ok(_) => Err(Problem::new(ProblemKind::Internal, "the query panicked; see the server's log")),
        }
    }

    /// Takes one of a tenant's permits, so that one tenant does not use up the permits of the server.
    fn tenant_permit(&self, tenant: &str) -> Option<ConcurrencyPermit> {
        let mut limits = self.tenant_queries.lock();
        limits.retain(|_, limit| limit.in_use() > 0);
        let limit = limits
            .entry(tenant.to_owned())
            .or_insert_with(|| ConcurrencyLimit::new("tenant queries", MAX_QUERIES_PER_TENANT));
        limit.try_acquire()
    }

    fn context(&self, tenant: &str) -> datafusion::error::Result<SessionContext> {
        let config = SessionConfig::new().with_target_partitions(1).with_information_schema(true);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(MAX_MEMORY)))
            .build_arc()?;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .with_physical_optimizer_rule(Arc::new(YieldBetweenBatches))
            .build();
        let context = SessionContext::new_with_state(state);
        for kind in TableKind::iter() {
            let name: &'static str = kind.into();
            let table = Table {
                kind,
                tenant: Arc::from(tenant),
                job_store: self.job_store.clone(),
                object_stores: self.object_stores.clone(),
            };
            context.register_table(name, Arc::new(table))?;
        }
        for name in context
            .state()
            .scalar_functions()
            .keys()
            .filter(|name| !ALLOWED_FUNCTIONS.contains(&name.as_str()))
        {
            context.deregister_udf(name);
        }
        for name in context.state().table_functions().keys() {
            context.deregister_udtf(name);
        }
        Ok(context)
    }
}

/// Returns an error if the query's joins have no bound. `plan` is optimized: conditions in WHERE have become
/// those of the joins.
fn check_joins(plan: &LogicalPlan) -> Result<(), Problem> {
    let invalid = |detail: String| Err(Problem::new(ProblemKind::Invalid, format!("sql: {detail}")));
    let (mut joins, mut scans, mut unbounded, mut analyzes) = (0, 0, false, false);
    let counted = plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Join(join) => {
                joins += 1;
                let is_single = |side: &LogicalPlan| side.max_rows().is_some_and(|rows| rows <= 1);
                unbounded |= join.on.is_empty() && !is_single(&join.left) && !is_single(&join.right);
            }
            LogicalPlan::TableScan(_) => scans += 1,
            LogicalPlan::Analyze(_) => analyzes = true,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    counted.map_err(|error| query_error(&error))?;
    match () {
        () if analyzes => invalid("EXPLAIN ANALYZE is not allowed; use EXPLAIN".to_owned()),
        () if unbounded => invalid(
            "joins tables without an equality of their columns; add one, as in JOIN rows ON rows.job = jobs.id"
                .to_owned(),
        ),
        () if joins > MAX_JOINS => invalid(format!("joins {joins} times; at most {MAX_JOINS} are allowed")),
        () if scans > MAX_SCANS => {
            invalid(format!("reads tables {scans} times; at most {MAX_SCANS} are allowed"))
        }
        () => Ok(()),
    }
}

/// Returns an error if the query has many concatenations: each can double the length of its operands.
fn check_growth(plan: &LogicalPlan) -> Result<(), Problem> {
    let mut concats = 0;
    let counted = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|inner| {
                concats += usize::from(
                    matches!(inner, Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat),
                );
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    counted.map_err(|error| query_error(&error))?;
    if concats <= MAX_CONCATS {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::Invalid,
        format!("sql: concatenates strings {concats} times; at most {MAX_CONCATS} are allowed"),
    ))
}

async fn execute(context: &SessionContext, sql: &str) -> Result<QueryResult, Problem> {
    let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = context.sql_with_options(sql, reads).await.map_err(|error| query_error(&error))?;
    check_growth(frame.logical_plan())?;
    check_joins(&frame.clone().into_optimized_plan().map_err(|error| query_error(&error))?)?;
    let columns = frame.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut batches = frame.execute_stream().await.map_err(|error| query_error(&error))?;
    let (mut rows, mut bytes, mut more) = (Vec::new(), 0, false);
    while let Some(batch) = batches.try_next().await.map_err(|error| query_error(&error))? {
        let rest = MAX_ROWS - rows.len();
        more = batch.num_rows() > rest;
        let json = to_json(&batch.slice(0, batch.num_rows().min(rest)))?;
        bytes += json.len();
        if bytes > MAX_RESULT_BYTES {
            return Err(Problem::new(
                ProblemKind::Invalid,
                format!("sql: the result has more than {MAX_RESULT_BYTES} bytes; select less"),
            ));
        }
        let read: Vec<Value> = if json.is_empty() {
            Vec::new()
        } else {
            serde_json::from_slice(&json).map_err(internal_error)?
        };
        rows.extend(read);
        if more {
            break;
        }
    }
    Ok(QueryResult { columns, rows, more })
}

fn to_json(batch: &RecordBatch) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let mut writer = ArrayWriter::new(&mut bytes);
    writer.write(batch).map_err(|error| {
        let detail = format!("sql: the result has a type that JSON cannot encode: {error}");
        Problem::new(ProblemKind::Invalid, detail)
    })?;
    writer.finish().map_err(internal_error)?;
    drop(writer);
    Ok(bytes)
}

fn internal_error(error: impl std::fmt::Display) -> Problem {
    tracing::error!(%error, "failed to encode the result of a query");
    Problem::new(ProblemKind::Internal, "failed to encode the result; see the server's log")
}

/// Returns the problem of a failed query: unavailable if the store failed, else invalid.
fn query_error(error: &DataFusionError) -> Problem {
    let root = error.find_root();
    if let DataFusionError::External(source) = root {
        if source.downcast_ref::<spool_jobs::Error>().is_some() {
            tracing::warn!(%error, "failed to read the tables of a query");
            return Problem::new(
                ProblemKind::Unavailable,
                "the database failed; retry later, and see the server's log",
            );
        }
        if let Some(error) = source.downcast_ref::<spool_media::Error>() {
            return Problem::new(ProblemKind::Invalid, format!("sql: {error}"));
        }
    }
    let text = root.strip_backtrace();
    let message: String = text.chars().take(500).collect();
    Problem::new(ProblemKind::Invalid, format!("sql: {message}"))
}
