//! On which executor does a task run? A policy for Ballista that follows our own list of executors.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
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

use crate::members::Members;

/// Virtual cores that every executor is told to Ballista to have. Its own count of free ones goes wrong after some failures, so it is made
/// not to matter: ours decides.
pub(crate) const BALLISTA_VCORES: u32 = 1 << 20;

/// What the names of rows' jobs begin with.
pub(crate) const ROW: &str = "row-";

/// Where the jobs of rows are placed, by their names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placements(Arc<Mutex<HashMap<String, Wish>>>);

/// What is asked of the placement of a row, and what became of it.
#[derive(Debug)]
struct Wish {
    /// Rows with smaller numbers go first.
    order: u64,
    /// Executors that it was tried on.
    tried: HashSet<String>,
    placed: Option<String>,
}

/// A row's entry. Dropping it gives the slot back.
#[derive(Debug)]
pub(crate) struct Placed {
    placements: Placements,
    members: Members,
    name: String,
}

impl Placements {
    /// Announces the job of a row, before it is submitted under this name.
    pub(crate) fn announce(
        &self,
        members: &Members,
        name: String,
        order: u64,
        tried: HashSet<String>,
    ) -> Placed {
        self.map().insert(name.clone(), Wish { order, tried, placed: None });
        Placed { placements: self.clone(), members: members.clone(), name }
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, Wish>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Placed {
    /// The executor that the row was sent to, once it was.
    pub(crate) fn executor(&self) -> Option<String> {
        self.placements.map().get(&self.name)?.placed.clone()
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let wish = self.placements.map().remove(&self.name);
        if let Some(executor) = wish.and_then(|wish| wish.placed) {
            self.members.ended(&executor, &self.name);
        }
    }
}

/// The policy.
#[derive(Debug, Clone)]
pub(crate) struct Placement {
    pub(crate) members: Members,
    pub(crate) placements: Placements,
    /// Counts tasks that are of no row.
    pub(crate) turn: Arc<AtomicUsize>,
}

#[async_trait::async_trait]
impl DistributionPolicy for Placement {
    async fn bind_tasks(
        &self,
        mut executors: Vec<&mut AvailableVcores>,
        jobs: Arc<HashMap<JobId, JobInfoCache>>,
    ) -> Result<Vec<BoundTask>> {
        let mut bound = Vec::new();
        executors.retain(|executor| self.members.has(&executor.executor_id));
        let mut named = Vec::with_capacity(jobs.len());
        for (job, info) in jobs.iter() {
            let name = info.execution_graph.read().await.job_name().to_owned();
            let order = self.placements.map().get(&name).map(|wish| wish.order);
            if order.is_none() && name.starts_with(ROW) {
                // Nobody waits for it any more; its cancel is on its way.
                continue;
            }
            named.push((order, name, job, info));
        }
        // What is not a row goes first: merges and listings take milliseconds, and somebody waits for them.
        named.sort_by_key(|(order, ..)| *order);
        let (active, leaving): (Vec<String>, Vec<String>) = executors
            .iter()
            .map(|executor| executor.executor_id.clone())
            .partition(|id| self.members.is_active(id));
        let helpers = if active.is_empty() { leaving } else { active };
        for (order, name, job, info) in named {
            let mut graph = info.execution_graph.write().await;
            let session = graph.session_id().to_owned();
            while let Some(stage) = graph.fetch_running_stage(&[]) {
                let id = match order {
                    Some(_) => self.place_row(&name, &executors),
                    None => {
                        // In turns, also from one attempt to the next: so a job that failed on one executor goes to another.
                        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                        (!helpers.is_empty()).then(|| helpers[turn % helpers.len()].clone())
                    }
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
/// A task has one partition of the stage's input, except where the stage makes one output of all of them: then it has to have them all.
fn take(stage: &mut RunningStage, session: &str, job: &JobId, executor: &str) -> Option<TaskDescription> {
    let most = if joins_all(&stage.plan) { usize::MAX } else { 1 };
    let partitions = stage.pending.next_slice(most);
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

/// Does a stage come down to one partition below its root, before what it reads of other stages?
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

impl Placement {
    /// Takes a slot for a row; `None` where none is free.
    fn place_row(&self, name: &str, executors: &[&mut AvailableVcores]) -> Option<String> {
        let mut placements = self.placements.map();
        let wish = placements.get_mut(name)?;
        // Ballista runs a task again whose executor it lost.
        if let Some(before) = wish.placed.take() {
            self.members.ended(&before, name);
        }
        // One that joined a moment ago may not have registered with the engine yet; when it does, this is asked again.
        let ready = |id: &str| executors.iter().any(|executor| executor.executor_id == id);
        let id = self.members.place(name, &wish.tried, ready)?;
        wish.placed = Some(id.clone());
        Some(id)
    }
}
