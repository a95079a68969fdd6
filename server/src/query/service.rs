//! Queries over what the store knows: they read, they see one tenant's tables, and they end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow_json::ArrayWriter;
use datafusion::{
    arrow::array::RecordBatch,
    common::tree_node::{TreeNode, TreeNodeRecursion},
    error::DataFusionError,
    execution::{memory_pool::GreedyMemoryPool, runtime_env::RuntimeEnvBuilder},
    logical_expr::{Expr, LogicalPlan, Operator},
    prelude::{SQLOptions, SessionConfig, SessionContext},
};
use futures::TryStreamExt;
use serde_json::Value;
use spool_jobs::Store;
use spool_storage::Stores;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    problem::{Problem, ProblemKind},
    query::tables::{Table, TableKind},
};

/// Queries at a time, and how long others wait for their turn.
const MAX_QUERIES: usize = 4;
const MAX_QUERIES_PER_TENANT: usize = 2;
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one may take, and the memory that it may have, in bytes.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_MEMORY: usize = 64 << 20;

/// Functions that a query may call: none that makes much of little, or takes long in one step, where nothing can stop it.
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

/// How often a query may put texts together.
const MAX_CONCATS: usize = 8;

/// The longest statement, and the longest answer, in bytes; and its rows.
const MAX_SQL_BYTES: usize = 16 << 10;
const MAX_RESULT_BYTES: usize = 8 << 20;
const MAX_ROWS: usize = 10_000;

/// Where queries are answered.
#[derive(Clone)]
pub(crate) struct QueryService {
    store: Arc<dyn Store>,
    stores: Stores,
    turns: Arc<Semaphore>,
    running: Arc<Mutex<HashMap<String, usize>>>,
}

/// What a query gives.
pub(crate) struct QueryResult {
    /// The columns' names, in order.
    pub(crate) columns: Vec<String>,
    /// A JSON object each.
    pub(crate) rows: Vec<Value>,
    /// Were there more rows than are given?
    pub(crate) more: bool,
}

impl QueryService {
    pub(crate) fn new(store: Arc<dyn Store>, stores: Stores) -> Self {
        Self { store, stores, turns: Arc::new(Semaphore::new(MAX_QUERIES)), running: Arc::default() }
    }

    /// Answers a tenant's query.
    pub(crate) async fn query(&self, tenant: &str, sql: String) -> Result<QueryResult, Problem> {
        if sql.len() > MAX_SQL_BYTES || sql.trim().is_empty() {
            return Err(Problem::new(
                ProblemKind::Invalid,
                format!("sql: it must be of 1 to {MAX_SQL_BYTES} bytes"),
            ));
        }
        let own = self.turn(tenant).ok_or_else(|| {
            Problem::new(
                ProblemKind::TooManyConcurrent,
                format!(
                    "{MAX_QUERIES_PER_TENANT} queries of yours run already: try again when one has ended"
                ),
            )
        })?;
        let busy = || {
            Problem::new(
                ProblemKind::TooManyConcurrent,
                "as many queries run as this server takes: try again",
            )
        };
        let turn = timeout(QUEUE_TIMEOUT, self.turns.clone().acquire_owned())
            .await
            .map_err(|_| busy())?
            .map_err(|_| busy())?;
        let context = self.context(tenant).map_err(|error| query_error(&error))?;
        // Dropped, it ends at its next batch.
        let mut run = tokio::task::JoinSet::new();
        run.spawn(async move {
            let _turns = (own, turn);
            execute(&context, &sql).await
        });
        let late = || {
            Problem::new(
                ProblemKind::Invalid,
                format!("sql: it takes longer than {} s: ask for less", QUERY_TIMEOUT.as_secs()),
            )
        };
        match timeout(QUERY_TIMEOUT, run.join_next()).await {
            Err(_) => Err(late()),
            Ok(Some(Ok(answer))) => answer,
            Ok(_) => Err(Problem::new(ProblemKind::Internal, "a query broke off: see the server's log")),
        }
    }

    /// Takes one of a tenant's own turns, so that it leaves some to others.
    fn turn(&self, tenant: &str) -> Option<Turn> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(tenant.to_owned()).or_default();
        (*count < MAX_QUERIES_PER_TENANT).then(|| {
            *count += 1;
            Turn { running: self.running.clone(), tenant: tenant.to_owned() }
        })
    }

    fn context(&self, tenant: &str) -> datafusion::error::Result<SessionContext> {
        let config = SessionConfig::new().with_target_partitions(1).with_information_schema(true);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(MAX_MEMORY)))
            .build_arc()?;
        let context = SessionContext::new_with_config_rt(config, runtime);
        for kind in TableKind::ALL {
            let table = Table {
                kind,
                tenant: Arc::from(tenant),
                store: self.store.clone(),
                stores: self.stores.clone(),
            };
            context.register_table(kind.name(), Arc::new(table))?;
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

/// A tenant's turn, as long as this is there.
struct Turn {
    running: Arc<Mutex<HashMap<String, usize>>>,
    tenant: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.tenant);
            }
        }
    }
}

/// Texts that are put together grow with each time: twice as long, and twice as long again.
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
        format!("sql: it puts texts together {concats} times: at most {MAX_CONCATS} are taken"),
    ))
}

async fn execute(context: &SessionContext, sql: &str) -> Result<QueryResult, Problem> {
    let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = context.sql_with_options(sql, reads).await.map_err(|error| query_error(&error))?;
    check_growth(frame.logical_plan())?;
    let columns = frame.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut batches = frame.execute_stream().await.map_err(|error| query_error(&error))?;
    let (mut rows, mut bytes, mut more) = (Vec::new(), 0, false);
    while let Some(batch) = batches.try_next().await.map_err(|error| query_error(&error))? {
        let room = MAX_ROWS - rows.len();
        more = batch.num_rows() > room;
        let written = to_json(&batch.slice(0, batch.num_rows().min(room)))?;
        bytes += written.len();
        if bytes > MAX_RESULT_BYTES {
            return Err(Problem::new(
                ProblemKind::Invalid,
                format!("sql: the answer is longer than {MAX_RESULT_BYTES} bytes: select less"),
            ));
        }
        let read: Vec<Value> = if written.is_empty() {
            Vec::new()
        } else {
            serde_json::from_slice(&written).map_err(internal_error)?
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
        Problem::new(ProblemKind::Invalid, format!("sql: its answer is not to be said in JSON: {error}"))
    })?;
    writer.finish().map_err(internal_error)?;
    drop(writer);
    Ok(bytes)
}

fn internal_error(error: impl std::fmt::Display) -> Problem {
    tracing::error!(%error, "the answer to a query cannot be written");
    Problem::new(ProblemKind::Internal, "the answer cannot be written: see the server's log")
}

/// What is wrong is the query's, unless the store says so itself.
fn query_error(error: &DataFusionError) -> Problem {
    let root = error.find_root();
    if let DataFusionError::External(source) = root {
        if source.downcast_ref::<spool_jobs::Error>().is_some() {
            tracing::warn!(%error, "a query failed");
            return Problem::new(
                ProblemKind::Unavailable,
                "the store of jobs did not answer as it should: try again, and see the server's log",
            );
        }
        if let Some(error) = source.downcast_ref::<spool_media::Error>() {
            return Problem::new(ProblemKind::Invalid, format!("sql: {error}"));
        }
    }
    let text = root.strip_backtrace();
    let said: String = text.chars().take(500).collect();
    Problem::new(ProblemKind::Invalid, format!("sql: {said}"))
}
