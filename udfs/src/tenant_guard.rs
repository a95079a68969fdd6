//! Tenant guard: refuses tenants' statements that cost the planner more than their rows, such as functions
//! whose results grow.

use datafusion::{
    common::{
        config::ConfigOptions,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::{DataFusionError, Result},
    logical_expr::{Expr, LogicalPlan, Operator},
    optimizer::AnalyzerRule,
};

use crate::{error::refusal, options::SpoolOptions};

/// Functions whose result, or whose time, is many times the size of their arguments. The planner evaluates
/// them on literals.
const GROWING: [&str; 12] = [
    "array_repeat",
    "array_resize",
    "generate_series",
    "levenshtein",
    "list_repeat",
    "list_resize",
    "lpad",
    "range",
    "repeat",
    "replace",
    "rpad",
    "translate",
];

/// Maximum factor by which concatenations may multiply the size of a text or a list: the product of their
/// numbers of operands, since each may have the one before it as all of its operands.
const GROWTH_MAX: usize = 256;

/// Maximum of joins in a statement, each of which may multiply the rows.
const JOINS_MAX: usize = 2;

/// Maximum of rows of `VALUES` in a statement with joins.
const JOINED_VALUES_MAX: usize = 1_000;

/// Functions that concatenate texts or lists.
const CONCATENATING: [&str; 6] =
    ["array_cat", "array_concat", "concat", "concat_ws", "list_cat", "list_concat"];

/// Refuses expensive plans in a session with a path policy, which tenants' sessions have and the operator's
/// do not.
#[derive(Debug)]
pub(crate) struct TenantGuard;

impl AnalyzerRule for TenantGuard {
    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> Result<LogicalPlan> {
        if SpoolOptions::path_policy(options).is_none() {
            return Ok(plan);
        }
        let mut growth = 1_usize;
        plan.apply_with_subqueries(|node| {
            check_relation(node)?;
            node.apply_expressions(|expr| {
                expr.apply(|inner| {
                    growth = growth.saturating_mul(operands(inner)?.max(1));
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        if growth > GROWTH_MAX {
            return Err(refusal(format!(
                "the concatenations of a tenant's statement may multiply a size by at most {GROWTH_MAX}, which \
                    eight of two operands do: remove some"
            )));
        }
        Ok(plan)
    }

    fn name(&self) -> &'static str {
        "spool_tenant_guard"
    }
}

fn check_relation(node: &LogicalPlan) -> Result<()> {
    match node {
        LogicalPlan::RecursiveQuery(query) => Err(refusal(format!(
            "a tenant's statement cannot be recursive: write {} without RECURSIVE",
            query.name
        ))),
        LogicalPlan::TableScan(scan) => {
            // The engine names the scan of a table function with brackets.
            let name = scan.table_name.table().trim_end_matches("()");
            if GROWING.contains(&name) { Err(growing(name)) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// Returns the number of operands that an expression concatenates; 0 for one that does not.
fn operands(expr: &Expr) -> Result<usize> {
    match expr {
        Expr::ScalarFunction(call) if GROWING.contains(&call.name()) => Err(growing(call.name())),
        Expr::ScalarFunction(call) if CONCATENATING.contains(&call.name()) => Ok(call.args.len()),
        Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => Ok(2),
        _ => Ok(0),
    }
}

/// Refuses a tenant's optimized plan whose joins have no bound: without an equality, or of so many rows that
/// their product takes an executor for long.
///
/// # Errors
/// Returns a refusal that names the remedy.
pub fn check_joins(plan: &LogicalPlan) -> Result<()> {
    let (mut joins, mut values, mut unnests) = (0, 0, false);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Join(join) => {
                joins += 1;
                let is_single = |side: &LogicalPlan| side.max_rows().is_some_and(|rows| rows <= 1);
                if join.on.is_empty() && !is_single(&join.left) && !is_single(&join.right) {
                    return Err(refusal(
                        "a tenant's statement joins relations by an equality of their columns: add one, as in \
                            a JOIN b ON a.id = b.id",
                    ));
                }
            }
            LogicalPlan::Values(relation) => values += relation.values.len(),
            LogicalPlan::Unnest(_) => unnests = true,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if joins > JOINS_MAX {
        return Err(refusal(format!(
            "a tenant's statement has at most {JOINS_MAX} joins, and this one has {joins}: write several \
                statements"
        )));
    }
    if joins > 0 && (values > JOINED_VALUES_MAX || unnests) {
        return Err(refusal(format!(
            "a tenant's statement joins at most {JOINED_VALUES_MAX} rows of VALUES, and no unnested lists: \
                write several statements"
        )));
    }
    Ok(())
}

fn growing(name: &str) -> DataFusionError {
    refusal(format!(
        "a tenant's statement cannot call {name}, whose result may be far larger than its arguments: remove \
            the call"
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::prelude::{SessionConfig, SessionContext};
    use spool_storage::path_policy::PathPolicy;

    use super::*;

    async fn plan(path_policy: Option<PathPolicy>, sql: &str) -> Result<LogicalPlan> {
        let options = SpoolOptions { path_policy, ..SpoolOptions::default() };
        let context = SessionContext::new_with_config(SessionConfig::new().with_option_extension(options));
        context.add_analyzer_rule(Arc::new(TenantGuard));
        context.sql(sql).await?.into_optimized_plan()
    }

    #[tokio::test]
    async fn a_tenants_statement_cannot_grow_its_arguments() {
        let concatenated = format!("SELECT {}", vec!["'a'"; 40].join(" || "));
        for (sql, says) in [
            ("SELECT repeat('x', 1000000000)", "repeat"),
            ("SELECT a FROM (SELECT lpad('x', 1000000000) AS a)", "lpad"),
            ("SELECT 1 WHERE EXISTS (SELECT replace('aaaa', 'a', 'aaaa'))", "replace"),
            ("SELECT count(*) FROM generate_series(1, 1000000000000)", "generate_series"),
            (
                "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT n FROM r",
                "recursive",
            ),
            (&concatenated, "at most 256"),
        ] {
            let error = plan(Some(PathPolicy::default()), sql).await.unwrap_err().to_string();
            assert!(error.contains(says), "{sql}: {error}");
        }
        for sql in [
            "SELECT upper('x') || lower('Y')",
            "SELECT count(*) FROM (VALUES (1), (2)) AS rows (n) WHERE n > 1",
        ] {
            plan(Some(PathPolicy::default()), sql).await.unwrap();
        }
        plan(None, "SELECT repeat('x', 10)").await.unwrap();
    }

    #[tokio::test]
    async fn a_tenants_joins_have_a_bound() {
        let many = (0..2_000).map(|n| format!("({n})")).collect::<Vec<_>>().join(", ");
        let of_many = format!(
            "SELECT count(*) FROM (VALUES {many}) AS a (n) JOIN (VALUES (1), (2)) AS b (n) ON a.n = b.n"
        );
        let pair = "(VALUES (1), (2)) AS";
        for (sql, says) in [
            (format!("SELECT count(*) FROM {pair} a (n), {pair} b (n)"), "equality"),
            (format!("SELECT count(*) FROM {pair} a (n) JOIN {pair} b (n) ON a.n < b.n"), "equality"),
            (
                format!(
                    "SELECT count(*) FROM {pair} a (n) JOIN {pair} b (n) ON a.n = b.n \
                     JOIN {pair} c (n) ON a.n = c.n JOIN {pair} d (n) ON a.n = d.n"
                ),
                "at most 2 joins",
            ),
            (of_many, "1000 rows"),
        ] {
            let planned = plan(Some(PathPolicy::default()), &sql).await.unwrap();
            let error = check_joins(&planned).unwrap_err().to_string();
            assert!(error.contains(says), "{sql}: {error}");
        }
        for sql in [
            format!("SELECT a.n FROM {pair} a (n) JOIN {pair} b (n) ON a.n = b.n"),
            format!("SELECT n FROM {pair} a (n) WHERE n = (SELECT max(n) FROM {pair} b (n))"),
            format!("SELECT n, (SELECT count(*) FROM {pair} b (n)) AS c FROM {pair} a (n)"),
        ] {
            let planned = plan(Some(PathPolicy::default()), &sql).await.unwrap();
            check_joins(&planned).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }
}
