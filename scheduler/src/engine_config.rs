//! Settings of Ballista that rows need: pushed tasks, one row per task, and placement by the list of
//! executors.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use ballista_core::{config::TaskSchedulingPolicy, extension::SessionConfigExt, ids::new_instance_id};
use ballista_scheduler::{
    config::{SchedulerConfig, TaskDistributionPolicy},
    scheduler_server::JobIdGenerator,
};
use datafusion::prelude::SessionConfig;
use spool_media::encode::worker::Worker;
use spool_udfs::session;

use crate::{engine::MESSAGE_MAX_BYTES, executors::placement::PlacementPolicy};

/// How long Ballista remembers finished jobs: the submitter has the result in milliseconds, and each
/// placement of a task goes through all jobs that are remembered.
const FINISHED_JOB_RETENTION: Duration = Duration::from_secs(2);

/// Ballista's own executor timeout. It goes by the wall clock, which may jump; the list of executors goes by
/// open calls, so this is longer than any wait.
pub(crate) const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Returns the session settings of every role, with those of Ballista that rows need.
pub(crate) fn session_config() -> SessionConfig {
    let adaptive = false; // The adaptive planner does not recover finished stages of a lost executor.
    session::config()
        .upgrade_for_ballista()
        .with_ballista_adaptive_query_planner(adaptive)
        .with_target_partitions(session::TARGET_PARTITIONS)
        // One row per task: a task of many rows runs them one after the other, and fails them together.
        .set_str("ballista.scheduler.max_partitions_per_task", "1")
}

/// Returns the settings of Ballista's scheduler.
pub(crate) fn scheduler_config(
    session_config: &SessionConfig,
    worker: Arc<Worker>,
    placement: PlacementPolicy,
) -> SchedulerConfig {
    let defaults = session_config.clone();
    SchedulerConfig {
        // Only pushed tasks can be placed by the list of executors.
        scheduling_policy: TaskSchedulingPolicy::PushStaged,
        task_distribution: TaskDistributionPolicy::Custom(Arc::new(placement)),
        executor_timeout_seconds: NEVER.as_secs(),
        no_executors_grace_period_seconds: NEVER.as_secs(),
        // Executors leave through their session, and then at once.
        executor_termination_grace_period: 0,
        // Results are small files that executors delete when they are old; a job is not worth a message to
        // every executor.
        finished_job_data_clean_up_interval_seconds: 0,
        finished_job_state_clean_up_interval_seconds: FINISHED_JOB_RETENTION.as_secs(),
        grpc_client_max_message_size: MESSAGE_MAX_BYTES,
        grpc_server_max_decoding_message_size: MESSAGE_MAX_BYTES,
        grpc_server_max_encoding_message_size: MESSAGE_MAX_BYTES,
        // Executors listen on no port: tasks and cancellations go over their sessions (`executor_calls`).
        override_create_grpc_client_endpoint: Some(Arc::new(|_| Err("executors listen on no port".into()))),
        override_config_producer: Some(Arc::new(move || defaults.clone())),
        override_session_builder: Some(Arc::new(move |config| session::state(&worker, config))),
        job_id_generator: Some(Arc::new(JobIds)),
        ..SchedulerConfig::default()
    }
}

/// Names the engine's jobs. Ballista's own generator keeps a thread that reads the clock a thousand times a
/// second.
struct JobIds;

#[async_trait]
impl JobIdGenerator for JobIds {
    async fn next_id(&self) -> String {
        new_instance_id()
    }
}
