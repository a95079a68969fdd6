//! Engine that runs statements: a scheduler elsewhere, or a whole cluster in this process, on the same code
//! path.

use std::{sync::Arc, time::Duration};

use spool_executor::Executor;
use spool_jobs::Request;
use spool_media::{
    encode::{events::RowEvent, worker::Worker},
    ffmpeg,
};
use spool_scheduler::{BeforeRows, Client, Service, StatementResult};
use spool_wire::Address;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{ClientTlsArgs, EngineArgs, SlotArgs},
    error::CliError,
    token,
};

/// Time that canceled FFmpeg processes get to exit.
pub const CHILDREN_EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts a scheduler and an executor in this process.
pub async fn start_roles(worker: &Arc<Worker>, slots: SlotArgs) -> Result<(Service, Executor), CliError> {
    let service = Service::start(spool_scheduler::Settings::embedded(), worker.clone()).await?;
    let settings = spool_executor::Settings {
        scheduler: service.address().clone(),
        slots: slots.count(),
        work_dir: worker.environment().scratch().join("engine"),
        token: Arc::new(|| None),
        drain_timeout: Duration::ZERO,
        idle_timeout: None,
    };
    let executor = Executor::start(settings, worker.clone());
    Ok((service, executor))
}

/// Returns the address of a scheduler, with the files of TLS if the connection has it.
///
/// # Errors
/// Returns an error if the files cannot be used: now rather than at each attempt to connect.
pub fn address_of(address: &str, tls: &ClientTlsArgs) -> Result<Address, CliError> {
    let tls = tls.files();
    if let Some(files) = &tls {
        files.check()?;
    }
    Ok(Address::Tcp { address: address.to_owned(), tls })
}

/// Stops a scheduler and an executor, and returns once none of their tasks and no FFmpeg runs.
pub async fn stop_roles(service: Service, executor: Executor) {
    executor.stop().await;
    drop(service);
    ffmpeg::all_gone(CHILDREN_EXIT_TIMEOUT).await;
}

/// Engine that runs statements.
pub enum Engine {
    /// A scheduler and an executor of this process.
    Embedded { service: Service, executor: tokio::sync::Mutex<Executor> },
    /// A scheduler elsewhere.
    Remote(Client),
}

impl Engine {
    /// Returns an engine that submits to the scheduler at `address`.
    pub fn remote(address: &str, args: &EngineArgs) -> Result<Self, CliError> {
        let address = address_of(address, &args.tls)?;
        Ok(Self::Remote(Client::new(address, token::of_client(&args.token)?)))
    }

    /// Starts an engine in this process.
    pub async fn embedded(worker: &Arc<Worker>, slots: SlotArgs) -> Result<Self, CliError> {
        let (service, executor) = start_roles(worker, slots).await?;
        Ok(Self::Embedded { service, executor: tokio::sync::Mutex::new(executor) })
    }

    /// Runs the statement of a request. `on_event` receives the events of its rows. `before_rows` is awaited
    /// when the rows are planned, before the first of them starts.
    ///
    /// # Errors
    /// Returns an error at once if the executor of this process stops. A scheduler elsewhere that becomes
    /// unreachable is called again for some time.
    pub async fn run(
        &self,
        request: &Request,
        cancel: &CancellationToken,
        on_event: &(dyn Fn(RowEvent) + Send + Sync),
        before_rows: Option<BeforeRows>,
    ) -> Result<StatementResult, CliError> {
        let (sql, settings) = (request.statement(), request.settings());
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match self {
            Self::Embedded { service, executor } => tokio::select! {
                result = service.scheduler().run_held(&sql, &settings, cancel, on_event, before_rows) => {
                    Ok(result?)
                }
                Err(error) = async { executor.lock().await.stopped().await }, if !cancel.is_cancelled() => {
                    Err(error.into())
                }
            },
            Self::Remote(client) => {
                Ok(client.run_held(&sql, &settings, cancel, on_event, before_rows).await?)
            }
        }
    }

    /// Stops an engine of this process, and returns once none of its tasks and no FFmpeg runs.
    pub async fn stop(self) {
        if let Self::Embedded { service, executor } = self {
            stop_roles(service, executor.into_inner()).await;
        }
    }
}
