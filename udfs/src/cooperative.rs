//! Cooperation: operators that multiply rows hand control back to the runtime, so that a canceled task ends,
//! and others on its thread get their turn.
//!
//! DataFusion lets sources yield. A join whose rows all match makes billions of rows of one batch of its
//! source, and yields at none of them.

use std::sync::Arc;

use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    config::ConfigOptions,
    error::Result,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        coop::CooperativeExec,
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec},
        unnest::UnnestExec,
    },
};

/// Lets every operator that multiplies rows yield between its batches.
///
/// # Errors
/// Returns an error if the plan cannot be rebuilt.
pub fn yield_between_batches(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        if multiplies_rows(&node) {
            Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>))
        } else {
            Ok(Transformed::no(node))
        }
    })
    .map(|transformed| transformed.data)
}

fn multiplies_rows(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.downcast_ref::<HashJoinExec>().is_some()
        || node.downcast_ref::<NestedLoopJoinExec>().is_some()
        || node.downcast_ref::<CrossJoinExec>().is_some()
        || node.downcast_ref::<SortMergeJoinExec>().is_some()
        || node.downcast_ref::<UnnestExec>().is_some()
}

/// [`yield_between_batches`] as a rule of a session.
#[derive(Debug, Default)]
pub struct YieldBetweenBatches;

impl PhysicalOptimizerRule for YieldBetweenBatches {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        yield_between_batches(plan)
    }

    fn name(&self) -> &'static str {
        "spool_yield_between_batches"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use datafusion::{
        execution::SessionStateBuilder,
        prelude::{SessionConfig, SessionContext},
    };

    use super::*;

    /// 2,000 rows of one key, joined thrice: 16 thousand billion rows.
    #[tokio::test]
    async fn an_endless_join_ends_when_it_is_dropped() {
        let state = SessionStateBuilder::new()
            .with_config(SessionConfig::new().with_target_partitions(1))
            .with_default_features()
            .with_physical_optimizer_rule(Arc::new(YieldBetweenBatches))
            .build();
        let context = SessionContext::new_with_state(state);
        let values = vec!["(1)"; 2_000].join(", ");
        let relation = |name: &str| format!("(VALUES {values}) AS {name} (n)");
        let sql = format!(
            "SELECT count(*) FROM {} JOIN {} ON a.n = b.n JOIN {} ON a.n = c.n JOIN {} ON a.n = d.n",
            relation("a"),
            relation("b"),
            relation("c"),
            relation("d")
        );
        let frame = context.sql(&sql).await.unwrap();
        let started = Instant::now();
        let ended = tokio::time::timeout(Duration::from_millis(200), frame.collect()).await;
        assert!(ended.is_err(), "16 thousand billion rows in {:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}
