//! How is Ballista's executor started, and with which settings?

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ballista_core::{config::TaskSchedulingPolicy, extension::SessionConfigExt, registry::BallistaFunctionRegistry};
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use spool_media::machine::Machine;
use spool_udfs::session;
use tokio::{net::TcpListener, task::JoinHandle};
use tracing::warn;

use crate::engine::{Engine, Slots};

/// How often an executor tells that it lives. Five that fail make it exit, so shorter would not outlive a scheduler's restart.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// How long an executor waits for its scheduler to answer for the first time.
const CONNECT: Duration = Duration::from_secs(15);

/// How long results of ended jobs stay on disk, and how often that is looked at.
const KEEP_RESULTS: Duration = Duration::from_secs(600);

/// Which scheduler an executor works for, and with how much of its machine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The scheduler.
    pub scheduler: SocketAddr,
    /// Rows that run at a time.
    pub slots: usize,
    /// Folder for the engine's own intermediate results.
    pub work_dir: PathBuf,
}

/// How long the tasks of an executor that stops may take to end: they are told to, and kill what they started.
const TASKS_END: Duration = Duration::from_secs(5);

/// A running executor. It stops when dropped; [`Executor::stop`] also waits until it has.
pub struct Executor {
    process: JoinHandle<Result<(), Error>>,
    slots: Slots,
}

/// Why an executor does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No port was free on the loopback address.
    #[error("no free port for the executor: {0}")]
    Port(#[source] std::io::Error),
    /// The engine's own folder cannot be made.
    #[error("cannot make {path}: {source}; name another scratch folder")]
    WorkFolder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The functions could not be registered: a defect.
    #[error("cannot set up the executor's functions: {0}")]
    Functions(#[source] datafusion::error::DataFusionError),
    /// Ballista's executor stopped.
    #[error("the executor stopped: {message}")]
    Stopped {
        /// What it says.
        message: String,
    },
}

impl Executor {
    /// Starts an executor that runs its rows on `machine`.
    ///
    /// # Errors
    /// Where there is no port, or the functions cannot be registered. That the scheduler does not answer shows in
    /// [`Executor::stopped`].
    pub async fn start(settings: &Settings, machine: &Arc<Machine>) -> Result<Self, Error> {
        let (port, grpc_port) = free_ports().await.map_err(Error::Port)?;
        std::fs::create_dir_all(&settings.work_dir)
            .map_err(|source| Error::WorkFolder { path: settings.work_dir.clone(), source })?;
        let slots = Slots::new(settings.slots);
        let state = session::state(machine, session::config()).map_err(Error::Functions)?;
        let config = ExecutorProcessConfig {
            bind_host: "127.0.0.1".to_owned(),
            external_host: Some("127.0.0.1".to_owned()),
            port,
            grpc_port,
            scheduler_host: settings.scheduler.ip().to_string(),
            scheduler_port: settings.scheduler.port(),
            scheduler_connect_timeout_seconds: u16::try_from(CONNECT.as_secs()).unwrap_or(u16::MAX),
            vcores: settings.slots,
            task_scheduling_policy: TaskSchedulingPolicy::PushStaged,
            work_dir: Some(settings.work_dir.to_string_lossy().into_owned()),
            job_data_ttl_seconds: KEEP_RESULTS.as_secs(),
            job_data_clean_up_interval_seconds: KEEP_RESULTS.as_secs(),
            executor_heartbeat_interval_seconds: HEARTBEAT.as_secs(),
            override_execution_engine: Some(Arc::new(Engine::new(slots.clone()))),
            override_function_registry: Some(Arc::new(BallistaFunctionRegistry::from(&state))),
            override_config_producer: Some(Arc::new(|| session::config().upgrade_for_ballista())),
            ..ExecutorProcessConfig::default()
        };
        let process = tokio::spawn(async move {
            start_executor_process(Arc::new(config)).await.map_err(|e| Error::Stopped { message: e.to_string() })
        });
        Ok(Self { process, slots })
    }

    /// Waits until the executor stops, which it does by itself only when something is wrong.
    pub async fn stopped(&mut self) -> Error {
        match (&mut self.process).await {
            Ok(Ok(())) => Error::Stopped { message: "it was told to".to_owned() },
            Ok(Err(error)) => error,
            Err(error) => Error::Stopped { message: error.to_string() },
        }
    }
}

impl Executor {
    /// Stops, and returns once none of its tasks runs any more and none can begin.
    pub async fn stop(self) {
        self.process.abort();
        if tokio::time::timeout(TASKS_END, self.slots.stop()).await.is_err() {
            warn!("tasks of the executor are still running");
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.process.abort();
    }
}

/// Two ports that are free now. Ballista binds them itself and takes numbers only.
async fn free_ports() -> std::io::Result<(u16, u16)> {
    let first = TcpListener::bind(("127.0.0.1", 0)).await?;
    let second = TcpListener::bind(("127.0.0.1", 0)).await?;
    Ok((first.local_addr()?.port(), second.local_addr()?.port()))
}
