//! Placement: chooses the executor of each task, as a policy for Ballista that follows the executor registry.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ballista_core::{
    JobId,
    execution_plans::{RangeShuffleReaderExec, ShuffleReaderExec},
    serde::{protobuf::AvailableVcores, scheduler::TaskKey},
};
use ballista_scheduler::{
    cluster::{BoundTask, DistributionPolicy},
    state::{
        execution_graph::{TaskDescription, create_task_info},
        execution_stage::RunningStage,
        task_manager::JobInfoCache,
    },
};
use datafusion::{
    error::Result,
    physical_plan::{ExecutionPlan, ExecutionPlanProperties},
};
use parking_lot::{Mutex, MutexGuard};

use crate::executors::registry::ExecutorRegistry;

/// Virtual cores that Ballista believes every executor to have. Its own count of free ones goes wrong after
/// some failures, so it is made not to matter: the registry's count decides.
pub(crate) const BALLISTA_VCORES: u32 = 1 << 20;

/// Prefix of the names of rows' jobs.
pub(crate) const ROW_PREFIX: &str = "row-";

/// Placement requests of rows' jobs, by the jobs' names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placements(Arc<Mutex<HashMap<String, PlacementRequest>>>);

/// The placement that a row's job asks for, and the executor that it got.
#[derive(Debug)]
struct PlacementRequest {
    /// Rows with smaller numbers go first.
    order: u64,
    /// Executors on which the row was tried before.
    tried: HashSet<String>,
    executor: Option<String>,
}

/// Entry of a row's job in [`Placements`]. Dropping it removes the entry and releases the slot.
#[derive(Debug)]
pub(crate) struct PlacementGuard {
    placements: Placements,
    registry: ExecutorRegistry,
    job: String,
}

impl Placements {
    /// Enters the job of a row, before it is submitted under this name.
    pub(crate) fn request(
        &self,
        registry: &ExecutorRegistry,
        job: String,
        order: u64,
        tried: HashSet<String>,
    ) -> PlacementGuard {
        self.requests().insert(job.clone(), PlacementRequest { order, tried, executor: None });
        PlacementGuard { placements: self.clone(), registry: registry.clone(), job }
    }

    fn requests(&self) -> MutexGuard<'_, HashMap<String, PlacementRequest>> {
        self.0.lock()
    }
}

impl PlacementGuard {
    /// Returns the executor that the row was sent to, once it was.
    pub(crate) fn executor(&self) -> Option<String> {
        self.placements.requests().get(&self.job)?.executor.clone()
    }
}

impl Drop for PlacementGuard {
    fn drop(&mut self) {
        let request = self.placements.requests().remove(&self.job);
        if let Some(executor) = request.and_then(|request| request.executor) {
            self.registry.release(&executor, &self.job);
        }
    }
}

/// The policy.
#[derive(Debug, Clone)]
pub(crate) struct PlacementPolicy {
    pub(crate) registry: ExecutorRegistry,
    pub(crate) placements: Placements,
    /// The executor of each job that is not a row.
    pub(crate) helpers: Arc<Mutex<HashMap<JobId, String>>>,
    /// Number of such jobs placed so far.
    pub(crate) turn: Arc<AtomicUsize>,
}

#[async_trait::async_trait]
impl DistributionPolicy for PlacementPolicy {
    async fn bind_tasks(
        &self,
        mut executors: Vec<&mut AvailableVcores>,
        jobs: Arc<HashMap<JobId, JobInfoCache>>,
    ) -> Result<Vec<BoundTask>> {
        let mut bound = Vec::new();
        executors.retain(|executor| self.registry.contains(&executor.executor_id));
        let mut named = Vec::with_capacity(jobs.len());
        for (job, info) in jobs.iter() {
            let name = info.execution_graph.read().await.job_name().to_owned();
            let order = self.placements.requests().get(&name).map(|request| request.order);
            if order.is_none() && name.starts_with(ROW_PREFIX) {
                // The attempt has ended, and the cancel of its job is on the way.
                continue;
            }
            named.push((order, name, job, info));
        }
        // Jobs that are not rows go first: merges and listings take milliseconds, and a client waits for
        // them.
        named.sort_by_key(|(order, ..)| *order);
        let (accepting, others): (Vec<String>, Vec<String>) = executors
            .iter()
            .map(|executor| executor.executor_id.clone())
            .partition(|id| self.registry.accepts_rows(id));
        let candidates = if accepting.is_empty() { others } else { accepting };
        self.helpers.lock().retain(|job, _| jobs.contains_key(job));
        for (order, name, job, info) in named {
            let mut graph = info.execution_graph.write().await;
            let session = graph.session_id().to_owned();
            while let Some(stage) = graph.fetch_running_stage(&[]) {
                let id = match order {
                    Some(_) => self.place_row(&name, &executors),
                    None => self.place_helper(job, &candidates),
                };
                let Some(id) = id else { break };
                let Some(task) = take(stage, &session, job, &id) else { break };
                if let Some(executor) = executors.iter_mut().find(|executor| executor.executor_id == id) {
                    executor.vcores = executor.vcores.saturating_sub(task.vcores_consumed);
                }
                bound.push((id, task));
            }
        }
        Ok(bound)
    }

    fn name(&self) -> &str {
        "spool"
    }
}

/// Takes the next task of a stage, for an executor.
///
/// A task has one partition of the stage's input, except where the stage makes one output of all of them:
/// then it has to have them all.
fn take(stage: &mut RunningStage, session: &str, job: &JobId, executor: &str) -> Option<TaskDescription> {
    let max = if joins_all(&stage.plan) { usize::MAX } else { 1 };
    let partitions = stage.pending.next_slice(max);
    let first = *partitions.first()?;
    let task_id = stage.task_infos.len();
    let mut info = create_task_info(executor.to_owned(), task_id);
    info.global_input_partition_ids.clone_from(&partitions);
    info.vcores_consumed = 1;
    stage.task_infos.push(info);
    Some(TaskDescription {
        session_id: session.to_owned(),
        key: TaskKey { job_id: job.clone(), stage_id: stage.stage_id, task_id },
        stage_attempt_num: stage.stage_attempt_num,
        task_attempt: stage.task_failure_numbers.get(first).copied().unwrap_or(0),
        global_input_partition_ids: partitions,
        vcores_consumed: 1,
        plan: stage.plan.clone(),
        session_config: stage.session_config.clone(),
    })
}

/// Returns whether a stage comes down to one partition below its root, before its input from other stages.
fn joins_all(root: &Arc<dyn ExecutionPlan>) -> bool {
    let mut node = root;
    loop {
        let children = node.children();
        let [child] = children.as_slice() else { return false };
        node = *child;
        if node.downcast_ref::<ShuffleReaderExec>().is_some()
            || node.downcast_ref::<RangeShuffleReaderExec>().is_some()
        {
            return false;
        }
        if node.output_partitioning().partition_count() == 1 {
            return true;
        }
    }
}

impl PlacementPolicy {
    /// Returns the executor of a job that is not a row: one for all of its tasks, because executors do not
    /// read each other's results. A job that failed on one executor is another job, which goes to the next.
    fn place_helper(&self, job: &JobId, candidates: &[String]) -> Option<String> {
        let mut helpers = self.helpers.lock();
        if let Some(executor) = helpers.get(job)
            && self.registry.contains(executor)
        {
            return Some(executor.clone());
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let executor = candidates.get(turn % candidates.len().max(1))?.clone();
        helpers.insert(job.clone(), executor.clone());
        Some(executor)
    }

    /// Takes a slot for a row; `None` where the row has to wait.
    fn place_row(&self, job: &str, executors: &[&mut AvailableVcores]) -> Option<String> {
        let mut requests = self.placements.requests();
        let request = requests.get_mut(job)?;
        // Ballista runs a task again whose executor it lost.
        if let Some(before) = request.executor.take() {
            self.registry.release(&before, job);
        }
        // An executor that registered a moment ago may not be known to the engine yet; when it is, this is
        // called again.
        let known = |id: &str| executors.iter().any(|executor| executor.executor_id == id);
        let id = self.registry.place(job, &request.tried, known)?;
        request.executor = Some(id.clone());
        Some(id)
    }
}
