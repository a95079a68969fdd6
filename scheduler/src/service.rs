//! `Service`: starts a scheduler with its settings, and listens until dropped.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use ballista_core::error::BallistaError;
use ballista_scheduler::cluster::BallistaCluster;
use spool_media::encode::worker::Worker;
use spool_storage::ConcurrencyLimit;
use spool_tls::ServerTls;
use spool_wire::Address;
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinHandle},
};

use crate::{
    api::{self, connections::Listener, server::Port},
    engine,
    engine_config::{NEVER, scheduler_config, session_config},
    error::{Error, Result},
    executor_calls::ExecutorCalls,
    executors::{
        event_router::EventRouter,
        placement::{PlacementPolicy, Placements},
        registry::ExecutorRegistry,
        service::{ExecutorService, SessionRules},
    },
    metrics::Metrics,
    queue::{fair_queue::FairQueue, statement_list::StatementList},
    run::{attempt::AttemptContext, planner::Planner, rows::RowsContext, statement::RunContext},
    scheduler::Scheduler,
};

/// Most statements that are planned or merged at a time. Each uses a core for a moment.
const PLANNERS_MAX: usize = 8;

/// Settings of a scheduler: its address, and rules for executors and clients.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one. `None`: only this process can connect.
    pub listen: Option<SocketAddr>,
    /// Silence after which an executor counts as lost.
    pub executor_timeout: Duration,
    /// Time for which a statement waits while no executor takes rows.
    pub no_executor_timeout: Duration,
    /// Token that clients and executors must present; `None` if they need none.
    pub token: Option<String>,
    /// TLS of the port; `None` for plain text.
    pub tls: Option<Arc<ServerTls>>,
    /// Address of a second port that answers probes and Prometheus without a token.
    pub probes: Option<SocketAddr>,
    /// Whether executors of another version, or with other encoders, may join.
    pub allow_version_skew: bool,
}

impl Settings {
    /// Returns the settings of a scheduler with its executor in the same process, which listens on no port:
    /// other users of the machine could run statements by it. Such an executor cannot be lost alone, so it
    /// never times out: a suspended laptop must not lose it.
    pub fn embedded() -> Self {
        Self {
            listen: None,
            executor_timeout: NEVER,
            no_executor_timeout: Duration::from_secs(60),
            token: None,
            tls: None,
            probes: None,
            allow_version_skew: false,
        }
    }
}

/// A scheduler that accepts connections. It stops when dropped.
pub struct Service {
    scheduler: Scheduler,
    address: Address,
    abort: AbortHandle,
    server: JoinHandle<std::io::Result<()>>,
}

impl Service {
    /// Starts a scheduler that plans with `worker`.
    ///
    /// # Errors
    /// Returns [`Error::Listen`] if the address cannot be bound, [`Error::Engine`] if the engine does not
    /// start.
    pub async fn start(settings: Settings, worker: Arc<Worker>) -> Result<Self> {
        let (address, listener) = listen(settings.listen, settings.tls.clone()).await?;
        let (executors, placements, events) =
            (ExecutorRegistry::default(), Placements::default(), EventRouter::default());
        let (fair_queue, statements) = (FairQueue::default(), StatementList::default());
        let metrics = Arc::new(Metrics::new());
        let session_config = session_config();
        let placement = PlacementPolicy {
            registry: executors.clone(),
            placements: placements.clone(),
            helpers: Arc::default(),
            turn: Arc::default(),
        };
        let config = Arc::new(scheduler_config(&session_config, worker.clone(), placement));
        let failed = |e: BallistaError| Error::from_engine(&e.to_string());
        let cluster = BallistaCluster::new_from_config(&config).await.map_err(failed)?;
        let (calls, known) = (ExecutorCalls::default(), cluster.cluster_state());
        let engine = engine::start(cluster, config, calls.clone()).await.map_err(failed)?;
        let rules = SessionRules {
            token: settings.token.clone(),
            allow_version_skew: settings.allow_version_skew,
            silence: settings.executor_timeout,
        };
        let executor_service = ExecutorService {
            engine: engine.clone(),
            known,
            calls: calls.clone(),
            worker: worker.clone(),
            executors: executors.clone(),
            event_router: events.clone(),
            fair_queue: fair_queue.clone(),
            rules: Arc::new(rules),
        };
        let limit = ConcurrencyLimit::new("planners", PLANNERS_MAX);
        let planner = Planner { engine: engine.clone(), session_config, limit };
        let last_number = Arc::<AtomicU64>::default();
        let attempts = AttemptContext { engine, calls, executors, placements, events, last_number };
        let rows = RowsContext { attempts, fair_queue, counters: metrics.rows.clone() };
        let context = RunContext { planner, rows, worker, no_executor_timeout: settings.no_executor_timeout };
        let scheduler = Scheduler { context: Arc::new(context), statements, metrics };
        let port = Port {
            listener,
            loopback: settings.listen.is_none_or(|listen| listen.ip().is_loopback()),
            token: settings.token,
        };
        let probes = match settings.probes {
            Some(at) => Some(bind(at).await?),
            None => None,
        };
        let server = tokio::spawn(api::server::serve(port, probes, scheduler.clone(), executor_service));
        Ok(Self { scheduler, address, abort: server.abort_handle(), server })
    }

    /// Returns the address that executors and clients connect to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the handle that runs statements.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Waits until the scheduler stops listening, which happens only after a failure.
    pub async fn stopped(&mut self) -> Error {
        let address = self.address.to_string();
        match (&mut self.server).await {
            Ok(Err(source)) => Error::Listen { address, source },
            Ok(Ok(())) => Error::Listen { address, source: std::io::ErrorKind::NotConnected.into() },
            Err(error) => Error::Engine { message: error.to_string() },
        }
    }
}

/// Begins to accept connections, and returns the address for them.
async fn listen(at: Option<SocketAddr>, tls: Option<Arc<ServerTls>>) -> Result<(Address, Listener)> {
    let Some(at) = at else {
        let (connector, incoming) = spool_wire::in_process();
        return Ok((Address::InProcess(connector), Listener::InProcess(incoming)));
    };
    let listener = bind(at).await?;
    let address = listener.local_addr().map_err(|e| listen_error(at, e))?.to_string();
    Ok((Address::Tcp { address, tls: None }, Listener::Tcp(listener, tls)))
}

async fn bind(at: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(at).await.map_err(|e| listen_error(at, e))
}

fn listen_error(at: SocketAddr, source: std::io::Error) -> Error {
    Error::Listen { address: at.to_string(), source }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.abort.abort();
    }
}
