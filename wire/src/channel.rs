//! How is a call made? Over plain HTTP/2 with limits on every wait, and a token where one is wanted.

use std::time::Duration;

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{self, Endpoint},
};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// How often a connection is tested, and how long the answer may take: a cut network shows in their sum.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(3);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(7);

/// A connection to a scheduler.
pub type Connection = InterceptedService<transport::Channel, Token>;

/// Makes connections.
#[derive(Debug)]
pub struct Channel;

impl Channel {
    /// Connects to `HOST:PORT`, to show `token` with every call.
    ///
    /// # Errors
    /// [`tonic::Code::InvalidArgument`] for an address or a token that is none, [`tonic::Code::Unavailable`] where nobody answers.
    pub async fn connect(address: &str, token: Option<&str>) -> Result<Connection, Status> {
        let invalid = |e: &dyn std::fmt::Display| Status::invalid_argument(e.to_string());
        let token = token
            .map(|token| format!("Bearer {token}").parse())
            .transpose()
            .map_err(|_| invalid(&"the token is no text"))?;
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| invalid(&format_args!("{address} is no HOST:PORT")))?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
            .keep_alive_timeout(KEEP_ALIVE_ANSWER)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(|e| Status::unavailable(root(&e)))?;
        Ok(InterceptedService::new(channel, Token(token)))
    }
}

/// The innermost cause, which says most.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Shows a token with every call.
#[derive(Debug, Clone)]
pub struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Is a call allowed? Everything is where no token is wanted.
///
/// # Errors
/// [`tonic::Code::Unauthenticated`], with the remedy.
pub fn authorized(metadata: &MetadataMap, wanted: Option<&str>) -> Result<(), Status> {
    let Some(wanted) = wanted else { return Ok(()) };
    let shown = metadata
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    // Compared as a whole, whatever they have in common: the time taken tells nothing.
    let same = shown.is_some_and(|shown| {
        shown.len() == wanted.len()
            && shown.bytes().zip(wanted.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    });
    if same {
        Ok(())
    } else {
        Err(Status::unauthenticated(
            "the scheduler wants a token and was shown none or another: set SPOOL_TOKEN",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_wanted_as_a_whole() {
        let shown = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", text.parse().unwrap());
            authorized(&metadata, Some("secret")).is_ok()
        };
        assert!(shown("Bearer secret"));
        assert!(
            !shown("Bearer secre") && !shown("Bearer secret2") && !shown("secret") && !shown("Basic secret")
        );
        assert!(authorized(&MetadataMap::new(), Some("secret")).is_err());
        assert!(authorized(&MetadataMap::new(), None).is_ok());
    }
}
