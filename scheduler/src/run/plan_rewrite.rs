//! Plan rewriting: finds the projections of a plan that encode, and replaces each by its rows.
//!
//! Pure functions on plans: nothing here runs.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::RecordBatch,
        datatypes::{Field, Schema},
    },
    catalog::TableProvider,
    common::{
        Column, DFSchema,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::{MemTable, provider_as_source},
    error::Result,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection, expr::ScalarFunction},
};
use spool_udfs::functions::transcode;

/// Name of the tables of encoded rows; only `EXPLAIN` shows it.
const TABLE: &str = "encoded_rows";

/// A projection that calls `transcode`, over rows that need no encoding themselves.
#[derive(Debug, Clone)]
pub(crate) struct Encode {
    projection: Projection,
    /// The segment: the first argument of the call.
    pub(crate) segment: Expr,
    /// The ladders of all calls: their second arguments.
    pub(crate) ladders: Vec<Expr>,
}

impl Encode {
    /// Returns the plan of the rows to encode.
    pub(crate) fn input(&self) -> &LogicalPlan {
        &self.projection.input
    }

    /// Returns the columns of the projection.
    pub(crate) fn schema(&self) -> &DFSchema {
        &self.projection.schema
    }

    /// Returns the projection over collected rows, one partition per batch.
    pub(crate) fn over(&self, rows: Vec<RecordBatch>) -> Result<LogicalPlan> {
        let input = Arc::new(table(self.input().schema(), rows.into_iter().map(|row| vec![row]).collect())?);
        let projection = Projection::try_new_with_schema(
            self.projection.expr.clone(),
            input,
            self.projection.schema.clone(),
        )?;
        Ok(LogicalPlan::Projection(projection))
    }
}

/// Returns the plan with no call of `transcode` among the arguments of another: the optimizer merges
/// projections, and the engine would call one from within the other. The inner call moves into a projection
/// below.
pub(crate) fn unnest(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Projection(mut projection) = node else { return Ok(Transformed::no(node)) };
        let mut changed = false;
        while let Some(split) = split(&projection)? {
            (projection, changed) = (split, true);
        }
        Ok(Transformed::new_transformed(LogicalPlan::Projection(projection), changed))
    })
    .map(|unnested| unnested.data)
}

/// Returns the projection over a new one that makes the innermost calls among its calls' arguments; `None` if
/// there are none.
fn split(projection: &Projection) -> Result<Option<Projection>> {
    let known = projection.input.schema().fields().len();
    let mut calls: Vec<Expr> = Vec::new();
    let mut take = |expr: Expr| {
        // A call that depends on a call moved here is moved by the next split.
        let needs_another = expr
            .column_refs()
            .iter()
            .any(|column| calls.iter().any(|call| call.schema_name().to_string() == column.name));
        if !is_call(&expr) || needs_another {
            return Ok(Transformed::no(expr));
        }
        let name = format!("encoded_{}", known + calls.len());
        calls.push(expr.alias(&name));
        Ok(Transformed::yes(Expr::Column(Column::new_unqualified(name))))
    };
    let mut outer = |expr: Expr| match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == transcode::NAME => {
            let args = args
                .into_iter()
                .map(|arg| arg.transform_up(&mut take).map(|taken| taken.data))
                .collect::<Result<_>>()?;
            let call = Expr::ScalarFunction(ScalarFunction { func, args });
            Ok(Transformed::new(call, true, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::no(other)),
    };
    let exprs =
        projection.expr.iter().map(|expr| expr.clone().transform_down(&mut outer).map(|found| found.data));
    let exprs: Vec<Expr> = exprs.collect::<Result<_>>()?;
    if calls.is_empty() {
        return Ok(None);
    }
    let columns = projection.input.schema().columns().into_iter().map(Expr::Column);
    let below = LogicalPlanBuilder::from(projection.input.clone()).project(columns.chain(calls))?.build()?;
    Projection::try_new_with_schema(exprs, Arc::new(below), projection.schema.clone()).map(Some)
}

fn is_call(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(ScalarFunction { func, .. }) if func.name() == transcode::NAME)
}

/// Returns the projections of a plan that call `transcode`, in the order in which they must run: from the
/// leaves up.
pub(crate) fn find_encodes(plan: &LogicalPlan) -> Result<Vec<Encode>> {
    let mut found = Vec::new();
    // A post-order walk: the first projection found has no other below it.
    plan.clone().transform_up_with_subqueries(|node| {
        found.extend(encode_of(&node)?);
        Ok(Transformed::no(node))
    })?;
    Ok(found)
}

/// Returns the projection of a plan that must run next: the first that calls `transcode`.
pub(crate) fn find_encode(plan: &LogicalPlan) -> Result<Option<Encode>> {
    Ok(find_encodes(plan)?.into_iter().next())
}

/// Returns the plan with the first projection that calls `transcode` replaced by its rows.
pub(crate) fn replace_encode(
    plan: LogicalPlan,
    encode: &Encode,
    rows: Vec<RecordBatch>,
) -> Result<LogicalPlan> {
    // One partition, so that the rest of the plan is one task, whatever the number of rows.
    let mut table = Some(table(encode.schema(), vec![rows])?);
    plan.transform_up_with_subqueries(|node| match encode_of(&node)? {
        Some(_) => Ok(table.take().map_or_else(|| Transformed::no(node), Transformed::yes)),
        None => Ok(Transformed::no(node)),
    })
    .map(|replaced| replaced.data)
}

fn encode_of(node: &LogicalPlan) -> Result<Option<Encode>> {
    let LogicalPlan::Projection(projection) = node else { return Ok(None) };
    let (mut segment, mut ladders) = (None, Vec::new());
    for expr in &projection.expr {
        expr.apply(|inner| match inner {
            Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == transcode::NAME => {
                segment = args.first().cloned();
                ladders.extend(args.get(1).cloned());
                Ok(TreeNodeRecursion::Stop)
            }
            _ => Ok(TreeNodeRecursion::Continue),
        })?;
    }
    Ok(segment.map(|segment| Encode { projection: projection.clone(), segment, ladders }))
}

/// Returns a plan of these partitions under the columns of `schema`.
///
/// All columns of a table have the table's qualifier, and the plan above may use others. So the table has
/// numbered columns, and a projection renames them.
fn table(schema: &DFSchema, partitions: Vec<Vec<RecordBatch>>) -> Result<LogicalPlan> {
    let name = |at: usize| format!("column_{at}");
    let numbered = |(at, field): (usize, &Arc<Field>)| field.as_ref().clone().with_name(name(at));
    let fields: Vec<Field> = schema.fields().iter().enumerate().map(numbered).collect();
    let numbered = Arc::new(Schema::new(fields));
    let rename = |batch: RecordBatch| Ok(RecordBatch::try_new(numbered.clone(), batch.columns().to_vec())?);
    let renamed =
        partitions.into_iter().map(|batches| batches.into_iter().map(rename).collect::<Result<Vec<_>>>());
    let mut partitions = renamed.collect::<Result<Vec<_>>>()?;
    if partitions.is_empty() {
        partitions.push(Vec::new());
    }
    let table: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(numbered, partitions)?);
    let columns = schema.iter().enumerate().map(|(at, (qualifier, field))| {
        let column = Expr::Column(Column::new(Some(TABLE), name(at)));
        column.alias_qualified(qualifier.cloned(), field.name())
    });
    LogicalPlanBuilder::scan(TABLE, provider_as_source(table), None)?.project(columns)?.build()
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::{datatypes::DataType, util::pretty::pretty_format_batches},
        logical_expr::{Volatility, create_udf},
        prelude::SessionContext,
    };

    use super::*;

    /// Returns a session with a `transcode` that returns its argument.
    fn session() -> SessionContext {
        let session = SessionContext::new();
        let identity = Arc::new(|args: &[datafusion::logical_expr::ColumnarValue]| Ok(args[0].clone()));
        session.register_udf(create_udf(
            transcode::NAME,
            vec![DataType::Int64],
            DataType::Int64,
            Volatility::Volatile,
            identity,
        ));
        session
    }

    async fn rows_of(session: &SessionContext, plan: LogicalPlan) -> Vec<RecordBatch> {
        session.execute_logical_plan(plan).await.unwrap().collect().await.unwrap()
    }

    /// Runs a statement one encoding projection at a time. Returns their number, and the rows.
    async fn rewritten(session: &SessionContext, sql: &str) -> (usize, String) {
        let mut plan = unnest(session.sql(sql).await.unwrap().into_optimized_plan().unwrap()).unwrap();
        let mut encodes = 0;
        while let Some(encode) = find_encode(&plan).unwrap() {
            let rows = rows_of(session, encode.input().clone()).await;
            let encoded = rows_of(session, encode.over(rows).unwrap()).await;
            plan = replace_encode(plan, &encode, encoded).unwrap();
            encodes += 1;
        }
        let batches = rows_of(session, plan).await;
        (encodes, pretty_format_batches(&batches).unwrap().to_string())
    }

    #[tokio::test]
    async fn a_rewritten_statement_gives_the_rows_of_the_original() {
        let session = session();
        let rows = "(VALUES (3, 'c'), (1, 'a'), (2, 'b')) AS t(n, name)";
        let statements = [
            (0, format!("SELECT n FROM {rows} ORDER BY n")),
            (1, format!("SELECT sum(part) AS s FROM (SELECT transcode(n) AS part FROM {rows})")),
            (
                1,
                format!(
                    "SELECT name, part + 1 AS next FROM (SELECT name, transcode(n) AS part FROM {rows}) \
                        WHERE part > 1 ORDER BY name"
                ),
            ),
            (
                1,
                format!("SELECT count(part) AS c FROM (SELECT transcode(n) AS part FROM {rows} WHERE n > 7)"),
            ),
            (
                2,
                format!(
                    "SELECT sum(part) AS s FROM (SELECT transcode(n) AS part FROM {rows} UNION ALL SELECT \
                        transcode(n * 10) AS part FROM {rows})"
                ),
            ),
            (
                2,
                format!(
                    "SELECT a.name, a.part, b.part AS other FROM (SELECT name, transcode(n) AS part FROM \
                        {rows}) a \
                     JOIN (SELECT name, transcode(n * 2) AS part FROM {rows}) b ON a.name = b.name ORDER BY \
                     a.name"
                ),
            ),
        ];
        let statements = statements.into_iter().chain([
            (2, format!("SELECT name, transcode(transcode(n) + 1) AS part FROM {rows} ORDER BY name")),
            (
                2,
                format!(
                    "SELECT transcode(part + n) AS next FROM (SELECT n, transcode(n) AS part FROM \
                {rows}) ORDER BY next"
                ),
            ),
            (
                3,
                format!(
                    "SELECT transcode(transcode(transcode(n)) * 2) + transcode(n) AS part FROM {rows} \
                ORDER BY part"
                ),
            ),
        ]);
        for (encodes, sql) in statements {
            let plan = session.sql(&sql).await.unwrap().into_optimized_plan().unwrap();
            let original = pretty_format_batches(&rows_of(&session, plan).await).unwrap().to_string();
            assert_eq!(rewritten(&session, &sql).await, (encodes, original), "{sql}");
        }
    }
}
