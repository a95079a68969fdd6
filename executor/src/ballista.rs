//! Ballista's executor: its settings, its address and ports, and its start.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ballista_core::{
    config::TaskSchedulingPolicy, extension::SessionConfigExt, registry::BallistaFunctionRegistry,
};
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use spool_media::encode::worker::Worker;
use spool_udfs::session;
use tokio::{
    net::{TcpListener, UdpSocket, lookup_host},
    task::JoinHandle,
};
use tonic::transport::{Endpoint, Uri};

use crate::{
    error::Error,
    settings::Settings,
    tasks::{Engine, Tasks},
};

/// How often Ballista's executor sends Ballista's scheduler a heartbeat. Nothing depends on it: the registry
/// goes by open sessions.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);

/// How long an executor waits for its scheduler's first answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Threads of the engine at most.
const MAX_THREADS: usize = 8;

/// The largest message of the engine: the parts of a long film go through one.
const MAX_MESSAGE_BYTES: u32 = 256 << 20;

/// Addresses of the scheduler, and of this host as the scheduler reaches it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) scheduler: SocketAddr,
    pub(crate) local: IpAddr,
}

impl Address {
    /// Resolves the scheduler's address. Unless `local` is given, it is this host's address on the route to
    /// the scheduler, which the scheduler can reach.
    pub(crate) async fn find(scheduler: &str, local: Option<IpAddr>) -> Result<Self, Error> {
        let failed = |why: String| Error::Unreachable { scheduler: scheduler.to_owned(), why };
        let mut addresses = lookup_host(scheduler).await.map_err(|e| failed(e.to_string()))?;
        let found = addresses.next().ok_or_else(|| failed("its name has no address".to_owned()))?;
        let local = match local {
            Some(local) => local,
            None => local_address(found).await.map_err(|e| failed(e.to_string()))?,
        };
        Ok(Self { scheduler: found, local })
    }
}

/// Returns this host's address on the route to another. No packet is sent.
async fn local_address(to: SocketAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket.local_addr()?.ip())
}

/// Returns an id that no other executor has or had.
pub(crate) fn new_id(host: &str) -> String {
    format!("{host}-{}", ballista_core::ids::new_instance_id())
}

/// Starts Ballista's executor. The returned task ends when the executor does.
pub(crate) fn start(
    settings: &Settings,
    address: &Address,
    id: &str,
    worker: &Arc<Worker>,
    tasks: &Tasks,
) -> Result<JoinHandle<Result<(), Error>>, Error> {
    let work_dir = settings.work_dir.join(id);
    std::fs::create_dir_all(&work_dir)
        .map_err(|source| Error::WorkFolder { path: work_dir.clone(), source })?;
    let state = session::state(worker, session::config()).map_err(Error::Functions)?;
    let scheduler: Uri = format!("http://{}", address.scheduler).parse().map_err(|_| Error::Unreachable {
        scheduler: settings.scheduler.clone(),
        why: format!("{} is not an address", address.scheduler),
    })?;
    let config = ExecutorProcessConfig {
        executor_id: id.to_owned(),
        bind_host: address.local.to_string(),
        external_host: Some(address.local.to_string()),
        scheduler_host: address.scheduler.ip().to_string(),
        scheduler_port: address.scheduler.port(),
        scheduler_connect_timeout_seconds: u16::try_from(CONNECT_TIMEOUT.as_secs()).unwrap_or(u16::MAX),
        // Threads of the engine, which wait for FFmpeg most of the time. Slots are counted by the worker and
        // the scheduler.
        vcores: settings.slots.min(MAX_THREADS),
        task_scheduling_policy: TaskSchedulingPolicy::PushStaged,
        work_dir: Some(work_dir.to_string_lossy().into_owned()),
        // `results` deletes them instead.
        job_data_clean_up_interval_seconds: 0,
        executor_heartbeat_interval_seconds: HEARTBEAT_INTERVAL.as_secs(),
        grpc_max_decoding_message_size: MAX_MESSAGE_BYTES,
        grpc_max_encoding_message_size: MAX_MESSAGE_BYTES,
        // Tasks name the address that the scheduler listens on, which may be a wildcard (0.0.0.0) or not on
        // the route.
        override_create_grpc_client_endpoint: Some(Arc::new(move |_| {
            Ok(Endpoint::from(scheduler.clone()).connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true))
        })),
        override_execution_engine: Some(Arc::new(Engine::new(tasks.clone()))),
        override_function_registry: Some(Arc::new(BallistaFunctionRegistry::from(&state))),
        override_config_producer: Some(Arc::new(|| session::config().upgrade_for_ballista())),
        ..ExecutorProcessConfig::default()
    };
    let local = address.local;
    Ok(tokio::spawn(async move {
        let (port, grpc_port) = free_ports(local).await.map_err(Error::Port)?;
        let config = ExecutorProcessConfig { port, grpc_port, ..config };
        start_executor_process(Arc::new(config)).await.map_err(|e| Error::Stopped { message: e.to_string() })
    }))
}

/// Returns two ports that are free now. Ballista binds them itself and accepts only their numbers; an
/// executor that loses a race for one starts its next session with others.
async fn free_ports(address: IpAddr) -> std::io::Result<(u16, u16)> {
    let first = TcpListener::bind((address, 0)).await?;
    let second = TcpListener::bind((address, 0)).await?;
    Ok((first.local_addr()?.port(), second.local_addr()?.port()))
}
