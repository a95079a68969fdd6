//! Calls to a scheduler: HTTP/2 with limits on every wait, and a bearer token if the scheduler requires one.

use std::{fmt, io, time::Duration};

use hyper_util::rt::TokioIo;
use spool_tls::{ClientFiles, ClientStream};
use subtle::ConstantTimeEq;
use tokio::net::TcpStream;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use crate::in_process::InProcess;

/// Time limit of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval between tests of a connection, and time limit of the response: a broken network is detected after
/// their sum.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(7);

/// A connection to a scheduler.
pub type Connection = InterceptedService<Channel, BearerToken>;

/// Where a scheduler accepts connections.
#[derive(Debug, Clone)]
pub enum Address {
    /// `HOST:PORT`, and the files of TLS if the scheduler has it.
    Tcp {
        /// `HOST:PORT`.
        address: String,
        /// Files of TLS; `None` for a connection in plain text.
        tls: Option<ClientFiles>,
    },
    /// In this process.
    InProcess(InProcess),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, .. } => f.write_str(address),
            Self::InProcess(_) => f.write_str("this process"),
        }
    }
}

/// Connects to a scheduler, and sends `token` with every call.
///
/// # Errors
/// [`tonic::Code::InvalidArgument`] if the address or the token is malformed, [`tonic::Code::Unavailable`] if
/// nothing answers at the address.
pub async fn connect(address: &Address, token: Option<&str>) -> Result<Connection, Status> {
    let invalid = |e: &dyn std::fmt::Display| Status::invalid_argument(e.to_string());
    let token = token.map(|token| format!("Bearer {token}").parse()).transpose().map_err(|_| {
        invalid(&"the token has characters that an HTTP header cannot carry; check SPOOL_TOKEN")
    })?;
    let connected = match address {
        Address::Tcp { address, tls } => {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))
                .map_err(|_| invalid(&format_args!("{address} is not of the form HOST:PORT")))?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .keep_alive_while_idle(true);
            match tls {
                None => endpoint.connect().await,
                Some(files) => {
                    let (address, files) = (address.clone(), files.clone());
                    let open = move |_| {
                        let (address, files) = (address.clone(), files.clone());
                        async move { open_tls(&address, &files).await.map(TokioIo::new) }
                    };
                    endpoint.connect_with_connector(service_fn(open)).await
                }
            }
        }
        Address::InProcess(in_process) => {
            let in_process = in_process.clone();
            // The host is not looked up.
            let endpoint = Endpoint::from_static("http://localhost");
            let open = move |_| {
                let in_process = in_process.clone();
                async move { in_process.open().await.map(TokioIo::new) }
            };
            endpoint.connect_with_connector(service_fn(open)).await
        }
    };
    let channel = connected.map_err(|e| Status::unavailable(root_cause(&e)))?;
    Ok(InterceptedService::new(channel, BearerToken(token)))
}

/// Returns why a call failed, for people: a scheduler with TLS answers a call in plain text with bytes that
/// are not HTTP/2.
pub fn reason(address: &Address, status: &Status) -> String {
    let is_plain = matches!(address, Address::Tcp { tls: None, .. });
    if is_plain && status.code() == Code::Internal && status.message().contains("http2 error") {
        "it does not answer in plain text; if it has TLS, add --tls-ca".to_owned()
    } else {
        status.message().to_owned()
    }
}

/// Opens a connection and shakes hands.
async fn open_tls(address: &str, files: &ClientFiles) -> io::Result<ClientStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    spool_tls::connect(files, host, &["h2"], stream).await
}

/// Returns the innermost cause of an error, which is the most specific one.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Sends a token with every call.
#[derive(Debug, Clone)]
pub struct BearerToken(Option<MetadataValue<Ascii>>);

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Checks the token of a call. Every call passes if none is required.
///
/// # Errors
/// Returns [`tonic::Code::Unauthenticated`], with the remedy, if the token is missing or wrong.
pub fn authenticate(metadata: &MetadataMap, required: Option<&str>) -> Result<(), Status> {
    let Some(required) = required else { return Ok(()) };
    let given = metadata
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    // In constant time: the time must not depend on the number of equal leading bytes.
    if given.is_some_and(|given| given.as_bytes().ct_eq(required.as_bytes()).into()) {
        Ok(())
    } else {
        Err(Status::unauthenticated(
            "the scheduler requires a token, and the call has none or another: set SPOOL_TOKEN",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_must_match_as_a_whole() {
        let passes = |header: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", header.parse().unwrap());
            authenticate(&metadata, Some("secret")).is_ok()
        };
        assert!(passes("Bearer secret"));
        for header in ["Bearer secre", "Bearer secret2", "secret", "Basic secret"] {
            assert!(!passes(header), "{header}");
        }
        assert!(authenticate(&MetadataMap::new(), Some("secret")).is_err());
        assert!(authenticate(&MetadataMap::new(), None).is_ok());
    }
}
