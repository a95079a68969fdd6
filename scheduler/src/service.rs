//! How is Ballista's scheduler started, and with which settings?

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ballista_core::{config::TaskSchedulingPolicy, extension::SessionConfigExt};
use ballista_scheduler::{
    cluster::BallistaCluster,
    config::{SchedulerConfig, TaskDistributionPolicy},
    scheduler_process::{create_scheduler, start_grpc_service_with_listener},
    scheduler_server::SchedulerServer,
};
use datafusion::prelude::SessionConfig;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use spool_media::machine::Machine;
use spool_udfs::session;
use tokio::{net::TcpListener, task::AbortHandle};

use crate::error::{Error, Result};

/// How often the scheduler looks for executors that fell silent.
const SWEEP: Duration = Duration::from_secs(2);

/// How long finished jobs are kept for whoever still asks.
const KEEP_FINISHED: Duration = Duration::from_secs(600);

/// Grace for a row in hand when its executor leaves: longer than the longest row.
const TERMINATION_GRACE: Duration = Duration::from_secs(3600);

/// Longer than a laptop sleeps.
const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// How the scheduler is reached, and when it gives an executor up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Silence after which an executor counts as lost.
    pub executor_timeout: Duration,
}

impl Settings {
    /// Everything in one process: nothing can be lost but all of it, so a suspended laptop must not lose its executor.
    pub fn embedded() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), executor_timeout: NEVER }
    }
}

pub(crate) type Server = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;

/// A running scheduler. It stops when dropped.
pub struct Scheduler {
    pub(crate) server: Server,
    pub(crate) session_config: SessionConfig,
    address: SocketAddr,
    service: AbortHandle,
}

impl Scheduler {
    /// Starts a scheduler that plans with `machine`.
    ///
    /// # Errors
    /// Where it cannot listen, or the engine does not start.
    pub async fn start(settings: &Settings, machine: Arc<Machine>) -> Result<Self> {
        let listen = |source| Error::Listen { address: settings.listen.to_string(), source };
        let listener = TcpListener::bind(settings.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let session_config = session_config();
        let config = Arc::new(config(settings, address, &session_config, machine));
        let engine = |e: ballista_core::error::BallistaError| Error::from_engine(&e.to_string());
        let cluster = BallistaCluster::new_from_config(&config).await.map_err(engine)?;
        let server: Server = create_scheduler(cluster, config).await.map_err(engine)?;
        let service = tokio::spawn(start_grpc_service_with_listener(listener, server.clone())).abort_handle();
        Ok(Self { server, session_config, address, service })
    }

    /// Where executors reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.service.abort();
    }
}

/// Ballista's settings that our rows need, over the one session of every role.
fn session_config() -> SessionConfig {
    let adaptive = false; // It does not recover finished stages of an executor that is lost.
    session::config()
        .upgrade_for_ballista()
        .with_ballista_adaptive_query_planner(adaptive)
        .with_target_partitions(session::TARGET_PARTITIONS)
        // One row, one task: a task of many rows runs them one after the other, and fails them together.
        .set_str("ballista.scheduler.max_partitions_per_task", "1")
}

fn config(settings: &Settings, address: SocketAddr, session_config: &SessionConfig, machine: Arc<Machine>) -> SchedulerConfig {
    let defaults = session_config.clone();
    SchedulerConfig {
        bind_host: address.ip().to_string(),
        bind_port: address.port(),
        external_host: address.ip().to_string(),
        // Only pushed tasks can be canceled and drained.
        scheduling_policy: TaskSchedulingPolicy::PushStaged,
        task_distribution: TaskDistributionPolicy::RoundRobin,
        executor_timeout_seconds: settings.executor_timeout.as_secs(),
        no_executors_grace_period_seconds: settings.executor_timeout.as_secs(),
        expire_dead_executor_interval_seconds: SWEEP.as_secs(),
        executor_termination_grace_period: TERMINATION_GRACE.as_secs(),
        finished_job_data_clean_up_interval_seconds: KEEP_FINISHED.as_secs(),
        finished_job_state_clean_up_interval_seconds: KEEP_FINISHED.as_secs(),
        override_config_producer: Some(Arc::new(move || defaults.clone())),
        override_session_builder: Some(Arc::new(move |config| session::state(&machine, config))),
        ..SchedulerConfig::default()
    }
}
