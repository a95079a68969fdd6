//! Plan check: the second line behind the scheduler's credentials. An executor runs a plan only if it reads
//! values that come with it and results of its own tasks, whatever a scheduler sends.

use std::{any::Any, fmt, sync::Arc};

use ballista_core::{
    error::BallistaError,
    execution_plans::{RangeShuffleReaderExec, ShuffleReaderExec},
};
use datafusion::{
    datasource::{memory::MemorySourceConfig, sink::DataSinkExec, source::DataSourceExec},
    error::{DataFusionError, Result},
    execution::object_store::ObjectStoreRegistry,
    physical_plan::{ExecutionPlan, empty::EmptyExec, placeholder_row::PlaceholderRowExec},
};
use object_store::ObjectStore;
use url::Url;

/// Refuses a plan that reads or writes files or addresses. What a row encodes is opened by Spool's own
/// functions, which go by the row's path policy.
///
/// # Errors
/// [`BallistaError::NotImplemented`], with the operator's name.
pub(crate) fn check_plan(plan: &Arc<dyn ExecutionPlan>) -> Result<(), BallistaError> {
    let mut stack = vec![plan];
    while let Some(node) = stack.pop() {
        let children = node.children();
        if node.downcast_ref::<DataSinkExec>().is_some() || children.is_empty() && !is_allowed_leaf(node) {
            let message = format!("executors run no {}: no statement of Spool has one", node.name());
            return Err(BallistaError::NotImplemented(message));
        }
        stack.extend(children);
    }
    Ok(())
}

/// Returns whether an operator without inputs takes its rows from the plan itself or from earlier tasks.
fn is_allowed_leaf(node: &Arc<dyn ExecutionPlan>) -> bool {
    let of_memory = node.downcast_ref::<DataSourceExec>().is_some_and(|scan| {
        let source: &dyn Any = scan.data_source().as_ref();
        source.is::<MemorySourceConfig>()
    });
    of_memory
        || node.downcast_ref::<ShuffleReaderExec>().is_some()
        || node.downcast_ref::<RangeShuffleReaderExec>().is_some()
        || node.downcast_ref::<EmptyExec>().is_some()
        || node.downcast_ref::<PlaceholderRowExec>().is_some()
}

/// The object stores of a task: none. DataFusion's default has the whole file system.
pub(crate) struct NoObjectStores;

impl fmt::Debug for NoObjectStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoObjectStores")
    }
}

impl ObjectStoreRegistry for NoObjectStores {
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        Err(DataFusionError::Execution(format!("tasks open no object store, and so not {url}")))
    }
}
