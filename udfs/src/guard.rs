//! Statement guard: refuses statements that would silently go wrong, before anything runs, and shows a form
//! that works.
//!
//! The guard is an analyzer rule and a relation planner, so that it covers every client: the command line,
//! Flight SQL, gRPC.

use std::collections::HashSet;

use datafusion::{
    common::{
        config::ConfigOptions,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{
        Expr, LogicalPlan,
        planner::{RelationPlanner, RelationPlannerContext, RelationPlanning},
    },
    optimizer::{AnalyzerRule, OptimizerContext, OptimizerRule, optimize_projections::OptimizeProjections},
    sql::sqlparser::ast::{FunctionArg, TableFactor},
};

use crate::{
    error::refusal,
    functions::{media, parts, publish, segments, transcode},
};

/// Functions with side effects: the planner must not change the number of their calls.
const EFFECTS: [&str; 2] = [transcode::NAME, publish::NAME];

/// Table functions.
const TABLES: [&str; 3] = [media::NAME, segments::NAME, parts::NAME];

const RIGHT_FORM: &str = "SELECT publish(hls_ladder(part)) FROM (SELECT transcode(segment, 'web', \
    'destination') AS part FROM segments('source'))";

/// Refuses plans in which a side effect would run too often, for the wrong rows, or not at all.
#[derive(Debug)]
pub(crate) struct StatementGuard;

impl AnalyzerRule for StatementGuard {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let effects = count_effects(&plan)?;
        if effects == 0 {
            return Ok(plan);
        }
        if matches!(plan, LogicalPlan::Analyze(_)) {
            return Err(refusal(
                "EXPLAIN ANALYZE would run transcode in the planner, not on the executors: use EXPLAIN, or \
                    run the statement itself",
            ));
        }
        plan.apply_with_subqueries(|node| check_node(node).map(|()| TreeNodeRecursion::Continue))?;
        // The optimizer drops unused columns, even those with side effects.
        let pruned = prune(plan.clone())?;
        if count_effects(&pruned)? < effects {
            return Err(refusal(format!(
                "the statement does not use what transcode or publish returns, so the engine would never run \
                    it: select its result, \
                 as in SELECT count(part) FROM (SELECT transcode(segment, 'web', 'destination') AS part FROM \
                 segments('source')); \
                 the whole form is {RIGHT_FORM}"
            )));
        }
        Ok(plan)
    }

    fn name(&self) -> &'static str {
        "spool_statement_guard"
    }
}

fn prune(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rule = OptimizeProjections::new();
    let context = OptimizerContext::new();
    plan.transform_down(|node| rule.rewrite(node, &context)).map(|pruned| pruned.data)
}

/// Returns the number of calls of functions with side effects in a plan.
///
/// # Errors
/// Returns an error if the plan's expressions cannot be visited.
pub fn count_effects(plan: &LogicalPlan) -> Result<usize> {
    let mut count = 0;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            count += effects_in(expr)?.len();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(count)
}

/// Returns every call of a function with side effects within `expr`.
fn effects_in(expr: &Expr) -> Result<Vec<Expr>> {
    let mut found = Vec::new();
    expr.apply(|inner| {
        if effect_name(inner).is_some() {
            found.push(inner.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn effect_name(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::ScalarFunction(call) => EFFECTS.into_iter().find(|name| *name == call.name()),
        _ => None,
    }
}

fn check_node(node: &LogicalPlan) -> Result<()> {
    let mut calls = Vec::new();
    node.apply_expressions(|expr| {
        calls.extend(effects_in(expr)?);
        refuse_conditional(expr)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    let Some(name) = calls.first().and_then(effect_name) else { return Ok(()) };
    match node {
        LogicalPlan::Projection(_) => {}
        LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => {
            return Err(refusal(format!(
                "{name} cannot be called inside an aggregate: put it into a subquery, {RIGHT_FORM}"
            )));
        }
        _ => {
            return Err(refusal(format!(
                "{name} can only be called in the select list, not in a {}: put it into a subquery, \
                    {RIGHT_FORM}",
                clause(node)
            )));
        }
    }
    let mut seen = HashSet::new();
    if let Some(twice) = calls.iter().find(|call| !seen.insert(*call)) {
        return Err(refusal(format!(
            "{name} is written twice and would run twice: write it once in a subquery and use its column, \
             as in SELECT part, part['renditions'] FROM (SELECT {} AS part FROM …)",
            twice.human_display()
        )));
    }
    Ok(())
}

fn clause(node: &LogicalPlan) -> &'static str {
    match node {
        LogicalPlan::Filter(_) => "WHERE or HAVING clause",
        LogicalPlan::Join(_) => "JOIN condition",
        LogicalPlan::Sort(_) => "ORDER BY clause",
        LogicalPlan::Values(_) => "VALUES list",
        _ => "clause of this kind",
    }
}

/// Refuses a side effect under a condition: the engine evaluates an asynchronous function for every row,
/// whatever the condition.
fn refuse_conditional(expr: &Expr) -> Result<()> {
    expr.apply(|inner| {
        let conditional = match inner {
            Expr::Case(_) => true,
            Expr::ScalarFunction(call) => ["coalesce", "nvl", "nvl2", "nullif"].contains(&call.name()),
            _ => false,
        };
        if conditional && let Some(name) = effects_in(inner)?.first().and_then(effect_name) {
            return Err(refusal(format!(
                "{name} inside CASE or COALESCE would run for every row, even if the condition is false: \
                 put the condition into WHERE, as in SELECT {name}(…) FROM segments('source') WHERE …"
            )));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(|_| ())
}

/// Refuses relations whose arguments the SQL planner would drop.
#[derive(Debug)]
pub(crate) struct RelationGuard;

impl RelationPlanner for RelationGuard {
    fn plan_relation(
        &self,
        relation: TableFactor,
        _: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        match &relation {
            TableFactor::Table { name, args: Some(args), with_hints, .. } => {
                if !with_hints.is_empty() {
                    return Err(refusal(format!(
                        "WITH (…) after {name}(…) would be ignored: {name} takes its arguments in order, as \
                            in {name}('source', 30)"
                    )));
                }
                // The last part of the name, without quotes.
                let last = name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.as_str());
                let is_table =
                    last.is_some_and(|last| TABLES.iter().any(|table| last.eq_ignore_ascii_case(table)));
                if is_table && args.args.iter().any(|arg| !matches!(arg, FunctionArg::Unnamed(_))) {
                    return Err(refusal(format!(
                        "{name} takes its arguments in order, without names: write segments('source', 30, \
                            4), media('folder/*.mp4') \
                         or parts('destination')"
                    )));
                }
            }
            TableFactor::Function { lateral: true, name, .. } => {
                return Err(refusal(format!(
                    "LATERAL {name}(…) would be planned as a cross join: table functions take literals, so \
                        write one statement for \
                     each source, or give `spool transcode` all of them"
                )));
            }
            _ => {}
        }
        Ok(RelationPlanning::Original(Box::new(relation)))
    }
}
