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

/// Most concatenations of texts and lists in a statement: each may double the size.
const CONCATENATIONS_MAX: usize = 16;

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
        let mut concatenations = 0;
        plan.apply_with_subqueries(|node| {
            check_relation(node)?;
            node.apply_expressions(|expr| {
                expr.apply(|inner| {
                    concatenations += usize::from(is_concatenation(inner)?);
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        if concatenations > CONCATENATIONS_MAX {
            return Err(refusal(format!(
                "a tenant's statement has at most {CONCATENATIONS_MAX} concatenations, and this one has \
                    {concatenations}: remove some"
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

fn is_concatenation(expr: &Expr) -> Result<bool> {
    match expr {
        Expr::ScalarFunction(call) if GROWING.contains(&call.name()) => Err(growing(call.name())),
        Expr::ScalarFunction(call) => Ok(CONCATENATING.contains(&call.name())),
        Expr::BinaryExpr(binary) => Ok(binary.op == Operator::StringConcat),
        _ => Ok(false),
    }
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
            (&concatenated, "has 39"),
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
}
