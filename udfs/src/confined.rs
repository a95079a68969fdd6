//! What may a statement of a stranger's cost whoever plans it? No more than its rows: nothing that makes much of little.

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

/// Functions whose result, or whose time, is many times what they are given. Of literals the planner itself computes them.
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

/// How often texts and lists may be put together: each time may double them.
const JOINS_MOST: usize = 16;

/// What puts texts and lists together.
const JOINING: [&str; 6] = ["array_cat", "array_concat", "concat", "concat_ws", "list_cat", "list_concat"];

/// Refuses what only whoever runs the cluster may ask of it, where a statement is confined.
#[derive(Debug)]
pub(crate) struct Confined;

impl AnalyzerRule for Confined {
    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> Result<LogicalPlan> {
        if SpoolOptions::confines(options).is_none() {
            return Ok(plan);
        }
        let mut joins = 0;
        plan.apply_with_subqueries(|node| {
            check_relation(node)?;
            node.apply_expressions(|expr| {
                expr.apply(|inner| {
                    joins += usize::from(joins_values(inner)?);
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        if joins > JOINS_MOST {
            return Err(refusal(format!(
                "a tenant's statement puts values together at most {JOINS_MOST} times, and this one {joins} times"
            )));
        }
        Ok(plan)
    }

    fn name(&self) -> &'static str {
        "spool_confined"
    }
}

fn check_relation(node: &LogicalPlan) -> Result<()> {
    match node {
        LogicalPlan::RecursiveQuery(query) => Err(refusal(format!(
            "a tenant's statement is not recursive: write {} without RECURSIVE",
            query.name
        ))),
        LogicalPlan::TableScan(scan) => {
            // Those of the engine are called with brackets.
            let name = scan.table_name.table().trim_end_matches("()");
            if GROWING.contains(&name) { Err(growing(name)) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

fn joins_values(expr: &Expr) -> Result<bool> {
    match expr {
        Expr::ScalarFunction(call) if GROWING.contains(&call.name()) => Err(growing(call.name())),
        Expr::ScalarFunction(call) => Ok(JOINING.contains(&call.name())),
        Expr::BinaryExpr(binary) => Ok(binary.op == Operator::StringConcat),
        _ => Ok(false),
    }
}

fn growing(name: &str) -> DataFusionError {
    refusal(format!("a tenant's statement does not call {name}, which makes much of little: leave it out"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::prelude::{SessionConfig, SessionContext};
    use spool_storage::path_policy::PathPolicy;

    use super::*;

    async fn planned(confines: Option<PathPolicy>, sql: &str) -> Result<LogicalPlan> {
        let options = SpoolOptions { confines, ..SpoolOptions::default() };
        let context = SessionContext::new_with_config(SessionConfig::new().with_option_extension(options));
        context.add_analyzer_rule(Arc::new(Confined));
        context.sql(sql).await?.into_optimized_plan()
    }

    #[tokio::test]
    async fn little_stays_little() {
        let joined = format!("SELECT {}", vec!["'a'"; 40].join(" || "));
        for (sql, says) in [
            ("SELECT repeat('x', 1000000000)", "repeat"),
            ("SELECT a FROM (SELECT lpad('x', 1000000000) AS a)", "lpad"),
            ("SELECT 1 WHERE EXISTS (SELECT replace('aaaa', 'a', 'aaaa'))", "replace"),
            ("SELECT count(*) FROM generate_series(1, 1000000000000)", "generate_series"),
            (
                "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT n FROM r",
                "recursive",
            ),
            (&joined, "39 times"),
        ] {
            let error = planned(Some(PathPolicy::default()), sql).await.unwrap_err().to_string();
            assert!(error.contains(says), "{sql}: {error}");
        }
        for sql in [
            "SELECT upper('x') || lower('Y')",
            "SELECT count(*) FROM (VALUES (1), (2)) AS rows (n) WHERE n > 1",
        ] {
            planned(Some(PathPolicy::default()), sql).await.unwrap();
        }
        planned(None, "SELECT repeat('x', 10)").await.unwrap();
    }
}
