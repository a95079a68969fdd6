//! How is Ballista's executor started, and with which settings?

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
    Error,
    engine::{Engine, Tasks},
    membership::Settings,
};

/// How often Ballista's executor tells Ballista's scheduler that it lives. Nothing hangs on it: membership is by the open call.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// How long an executor waits for its scheduler to answer for the first time.
const CONNECT: Duration = Duration::from_secs(15);

/// Threads of the engine at most.
const THREADS_MOST: usize = 8;

/// The largest message of the engine: the parts of a long film go through one.
const MESSAGE_BYTES: u32 = 256 << 20;

/// Where the scheduler is, and where it reaches us.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) scheduler: SocketAddr,
    pub(crate) ours: IpAddr,
}

impl Address {
    /// Finds out. The way to the scheduler tells which of our addresses is the one it can reach.
    pub(crate) async fn find(scheduler: &str, ours: Option<IpAddr>) -> Result<Self, Error> {
        let failed = |why: String| Error::Unreachable { scheduler: scheduler.to_owned(), why };
        let mut addresses = lookup_host(scheduler).await.map_err(|e| failed(e.to_string()))?;
        let found = addresses.next().ok_or_else(|| failed("it has no address".to_owned()))?;
        let ours = match ours {
            Some(ours) => ours,
            None => route(found).await.map_err(|e| failed(e.to_string()))?,
        };
        Ok(Self { scheduler: found, ours })
    }
}

/// Our address on the way to another. No packet is sent.
async fn route(to: SocketAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket.local_addr()?.ip())
}

/// A name that no other executor has or had.
pub(crate) fn new_id(host: &str) -> String {
    format!("{host}-{}", ballista_core::ids::new_instance_id())
}

/// Starts Ballista's executor. The handle ends when it does.
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
        why: "its address is none".to_owned(),
    })?;
    let config = ExecutorProcessConfig {
        executor_id: id.to_owned(),
        bind_host: address.ours.to_string(),
        external_host: Some(address.ours.to_string()),
        scheduler_host: address.scheduler.ip().to_string(),
        scheduler_port: address.scheduler.port(),
        scheduler_connect_timeout_seconds: u16::try_from(CONNECT.as_secs()).unwrap_or(u16::MAX),
        // Its threads, which wait for FFmpeg most of the time; slots are ours to count.
        vcores: settings.slots.min(THREADS_MOST),
        task_scheduling_policy: TaskSchedulingPolicy::PushStaged,
        work_dir: Some(work_dir.to_string_lossy().into_owned()),
        // See `results`.
        job_data_clean_up_interval_seconds: 0,
        executor_heartbeat_interval_seconds: HEARTBEAT.as_secs(),
        grpc_max_decoding_message_size: MESSAGE_BYTES,
        grpc_max_encoding_message_size: MESSAGE_BYTES,
        // Tasks name the address that the scheduler listens on, which may be none (0.0.0.0), or not the one on the way from here.
        override_create_grpc_client_endpoint: Some(Arc::new(move |_| {
            Ok(Endpoint::from(scheduler.clone()).connect_timeout(CONNECT).tcp_nodelay(true))
        })),
        override_execution_engine: Some(Arc::new(Engine::new(tasks.clone()))),
        override_function_registry: Some(Arc::new(BallistaFunctionRegistry::from(&state))),
        override_config_producer: Some(Arc::new(|| session::config().upgrade_for_ballista())),
        ..ExecutorProcessConfig::default()
    };
    let ours = address.ours;
    Ok(tokio::spawn(async move {
        let (port, grpc_port) = free_ports(ours).await.map_err(Error::Port)?;
        let config = ExecutorProcessConfig { port, grpc_port, ..config };
        start_executor_process(Arc::new(config)).await.map_err(|e| Error::Stopped { message: e.to_string() })
    }))
}

/// Two ports that are free now. Ballista binds them itself and takes numbers only; who loses a race for one tries again.
async fn free_ports(address: IpAddr) -> std::io::Result<(u16, u16)> {
    let first = TcpListener::bind((address, 0)).await?;
    let second = TcpListener::bind((address, 0)).await?;
    Ok((first.local_addr()?.port(), second.local_addr()?.port()))
}
