//! How is the scheduler started, and with which settings of Ballista's?

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ballista_core::{config::TaskSchedulingPolicy, extension::SessionConfigExt, ids::new_instance_id};
use ballista_scheduler::{
    cluster::BallistaCluster,
    config::{SchedulerConfig, TaskDistributionPolicy},
    scheduler_process::create_scheduler,
    scheduler_server::{JobIdGenerator, SchedulerServer},
};
use datafusion::prelude::SessionConfig;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use spool_media::encode::worker::Worker;
use spool_udfs::session;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::{AbortHandle, JoinHandle},
};

use crate::{
    door,
    error::{Error, Result},
    executors::{
        event_router::EventRouter,
        placement::{PlacementPolicy, Placements},
        registry::ExecutorRegistry,
        service::{ExecutorService, SessionRules},
    },
    statements::Statements,
    turnstile::Turnstile,
};

/// How long finished jobs are remembered by Ballista: whoever submitted one has its result in milliseconds, and each time that a task is
/// placed all that are remembered are gone through.
const KEEP_FINISHED: Duration = Duration::from_secs(2);

/// Ballista's own idea of how long an executor may be silent. It goes by the wall clock, which may jump; our list of members goes by
/// open calls, so this is longer than anybody waits.
const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// The largest message of the engine: the parts of a long film go through one.
pub(crate) const MESSAGE_BYTES: u32 = 256 << 20;

/// Statements that are planned or merged at a time. Each takes a core for a moment.
const PLANNED_AT_A_TIME: usize = 8;

/// How the scheduler is reached, and whom it takes in.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Silence after which an executor counts as lost.
    pub executor_timeout: Duration,
    /// How long a statement waits where there is no executor at all.
    pub no_executor_timeout: Duration,
    /// What clients and executors have to show; nothing unless set.
    pub token: Option<String>,
    /// Are executors of another version, or with other encoders, taken in?
    pub allow_version_skew: bool,
}

impl Settings {
    /// Everything in one process: nothing can be lost but all of it, so a suspended laptop must not lose its executor.
    pub fn embedded() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            executor_timeout: NEVER,
            no_executor_timeout: Duration::from_secs(60),
            token: None,
            allow_version_skew: false,
        }
    }
}

pub(crate) type Server = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;

/// A running scheduler. Its services stop when the last clone is dropped.
#[derive(Clone)]
pub struct Scheduler(Arc<Inner>);

/// What a scheduler is made of.
pub struct Inner {
    pub(crate) server: Server,
    pub(crate) worker: Arc<Worker>,
    pub(crate) session_config: SessionConfig,
    pub(crate) executors: ExecutorRegistry,
    pub(crate) placements: Placements,
    pub(crate) event_router: EventRouter,
    pub(crate) turnstile: Turnstile,
    pub(crate) statements: Statements,
    pub(crate) settings: Settings,
    /// Numbers what is submitted, so that what came first goes first.
    pub(crate) order: AtomicU64,
    pub(crate) planners: Semaphore,
    pub(crate) started: Instant,
    rows_done: AtomicU64,
    rows_failed: AtomicU64,
    rows_doubled: AtomicU64,
}

/// What happened since the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counters {
    pub(crate) statements: u64,
    pub(crate) rows_done: u64,
    pub(crate) rows_failed: u64,
    pub(crate) rows_doubled: u64,
}

/// What a scheduler listens with. It stops when dropped.
pub struct Service {
    scheduler: Scheduler,
    address: SocketAddr,
    abort: AbortHandle,
    door: JoinHandle<std::io::Result<()>>,
}

impl std::ops::Deref for Scheduler {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Scheduler {
    /// Starts a scheduler that plans with `machine`.
    ///
    /// # Errors
    /// Where it cannot listen, or the engine does not start.
    pub async fn start(settings: Settings, worker: Arc<Worker>) -> Result<Service> {
        let listen = |source| Error::Listen { address: settings.listen.to_string(), source };
        let listener = TcpListener::bind(settings.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (executors, placements, event_router, turnstile) = (
            ExecutorRegistry::default(),
            Placements::default(),
            EventRouter::default(),
            Turnstile::default(),
        );
        let session_config = session_config();
        let placement = PlacementPolicy {
            registry: executors.clone(),
            placements: placements.clone(),
            turn: Arc::default(),
        };
        let config = Arc::new(config(address, &session_config, worker.clone(), placement));
        let engine = |e: ballista_core::error::BallistaError| Error::from_engine(&e.to_string());
        let cluster = BallistaCluster::new_from_config(&config).await.map_err(engine)?;
        let server: Server = create_scheduler(cluster, config).await.map_err(engine)?;
        let rules = SessionRules {
            token: settings.token.clone(),
            allow_version_skew: settings.allow_version_skew,
            silence: settings.executor_timeout,
        };
        let membership = ExecutorService {
            server: server.clone(),
            worker: worker.clone(),
            executors: executors.clone(),
            event_router: event_router.clone(),
            turnstile: turnstile.clone(),
            rules: Arc::new(rules),
        };
        let scheduler = Self(Arc::new(Inner {
            server,
            worker,
            session_config,
            executors,
            placements,
            event_router,
            turnstile,
            statements: Statements::default(),
            settings,
            order: AtomicU64::new(0),
            planners: Semaphore::new(PLANNED_AT_A_TIME),
            started: Instant::now(),
            rows_done: AtomicU64::new(0),
            rows_failed: AtomicU64::new(0),
            rows_doubled: AtomicU64::new(0),
        }));
        let door = tokio::spawn(door::open(listener, scheduler.clone(), membership));
        Ok(Service { scheduler, address, abort: door.abort_handle(), door })
    }
}

impl Inner {
    pub(crate) fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            statements: self.statements.so_far(),
            rows_done: read(&self.rows_done),
            rows_failed: read(&self.rows_failed),
            rows_doubled: read(&self.rows_doubled),
        }
    }

    pub(crate) fn count_done(&self) {
        self.rows_done.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_failed(&self) {
        self.rows_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_doubled(&self) {
        self.rows_doubled.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn next(&self) -> u64 {
        self.order.fetch_add(1, Ordering::Relaxed)
    }
}

impl Service {
    /// Where executors and clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What runs statements.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Waits until it stops listening, which it does by itself only when something is wrong.
    pub async fn stopped(&mut self) -> Error {
        let address = self.address.to_string();
        match (&mut self.door).await {
            Ok(Err(source)) => Error::Listen { address, source },
            Ok(Ok(())) => Error::Listen { address, source: std::io::ErrorKind::NotConnected.into() },
            Err(error) => Error::Engine { message: error.to_string() },
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.abort.abort();
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

fn config(
    address: SocketAddr,
    session_config: &SessionConfig,
    worker: Arc<Worker>,
    placement: PlacementPolicy,
) -> SchedulerConfig {
    let defaults = session_config.clone();
    SchedulerConfig {
        bind_host: address.ip().to_string(),
        bind_port: address.port(),
        external_host: address.ip().to_string(),
        // Only pushed tasks can be canceled and drained.
        scheduling_policy: TaskSchedulingPolicy::PushStaged,
        task_distribution: TaskDistributionPolicy::Custom(Arc::new(placement)),
        executor_timeout_seconds: NEVER.as_secs(),
        no_executors_grace_period_seconds: NEVER.as_secs(),
        // Executors leave through `executors::service`, and then at once.
        executor_termination_grace_period: 0,
        // Results are small files that executors delete when they are old; a job is not worth a message to every executor.
        finished_job_data_clean_up_interval_seconds: 0,
        finished_job_state_clean_up_interval_seconds: KEEP_FINISHED.as_secs(),
        grpc_client_max_message_size: MESSAGE_BYTES,
        grpc_server_max_decoding_message_size: MESSAGE_BYTES,
        grpc_server_max_encoding_message_size: MESSAGE_BYTES,
        override_config_producer: Some(Arc::new(move || defaults.clone())),
        override_session_builder: Some(Arc::new(move |config| session::state(&worker, config))),
        job_id_generator: Some(Arc::new(JobIds)),
        ..SchedulerConfig::default()
    }
}

/// Names the engine's jobs. Its own generator keeps a thread that looks at the clock a thousand times a second.
struct JobIds;

#[async_trait]
impl JobIdGenerator for JobIds {
    async fn next_id(&self) -> String {
        new_instance_id()
    }
}
