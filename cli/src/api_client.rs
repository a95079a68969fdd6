//! Client of the HTTP API: requests with their responses, and the events of a job while it runs.

use std::{collections::VecDeque, time::Duration};

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::{args::ApiClientArgs, exit};

/// Time that the API may take to respond.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two requests for events, and the most events of one response.
const EVENT_POLL_INTERVAL: Duration = Duration::from_millis(500);
const EVENT_PAGE_SIZE: u32 = 200;

/// Time for which a followed job's API may be unreachable.
const UNREACHABLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Failure of a call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API is unreachable.
    #[error("failed to reach the API at {server} (start one with `spool serve`, or set --server)")]
    Unreachable {
        /// URL of the API.
        server: Url,
        /// Error of the HTTP client.
        source: reqwest::Error,
    },
    /// The authority's certificate cannot be used.
    #[error("cannot use the authority's certificate {path}: {detail}")]
    Authority {
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        detail: String,
    },
    /// The API refused the request.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// Detail of the problem document.
        detail: String,
    },
    /// The response does not match this version of the API.
    #[error("the response of {server} is not one of Spool's API, or of another version")]
    UnexpectedResponse {
        /// URL of the API.
        server: Url,
    },
}

impl Error {
    /// Returns the exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } => exit::UNREACHABLE,
            Self::Refused { status, .. } => match status.as_u16() {
                400 | 409 | 413 | 415 | 422 => exit::USAGE,
                404 => exit::NOT_FOUND,
                401 | 403 => exit::NOT_ALLOWED,
                503 => exit::UNREACHABLE,
                _ => exit::FAILED,
            },
            Self::Authority { .. } => exit::USAGE,
            Self::UnexpectedResponse { .. } => exit::FAILED,
        }
    }

    /// Returns whether the same request could succeed later.
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
            || matches!(self, Self::Refused { status, .. } if status.is_server_error())
    }
}

/// Event of a job.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    sequence: i64,
    /// Kind of the event, such as `job.started`.
    pub kind: String,
    /// Fields of the event.
    pub data: Value,
}

/// Client of one API.
#[derive(Debug, Clone)]
pub struct ApiClient {
    client: Client,
    url: Url,
    key: Option<String>,
}

impl ApiClient {
    /// Creates a client.
    ///
    /// # Errors
    /// Returns an error if the authority's certificate cannot be used.
    pub fn new(api: &ApiClientArgs) -> Result<Self, Error> {
        let mut builder = Client::builder();
        if let Some(path) = &api.tls_ca {
            let failed = |detail: String| Error::Authority { path: path.clone(), detail };
            let pem = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
            for certificate in
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| failed(e.to_string()))?
            {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let client =
            builder.build().map_err(|source| Error::Unreachable { server: api.server.clone(), source })?;
        Ok(Self { client, url: api.server.clone(), key: api.api_key.clone() })
    }

    /// Gets the document at a path.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Error> {
        self.send(self.request(Method::GET, path).query(query)).await
    }

    /// Posts a document. With an idempotency key it may be posted twice.
    pub async fn post(
        &self,
        path: &str,
        document: &Value,
        idempotency_key: Option<&str>,
    ) -> Result<Value, Error> {
        let request = self.request(Method::POST, path).json(document);
        let request = match idempotency_key {
            Some(key) => request.header("Idempotency-Key", key),
            None => request,
        };
        self.send(request).await
    }

    /// Returns the events of a job, from the first on.
    pub fn events(&self, job: &str) -> Events {
        Events {
            client: self.clone(),
            path: format!("v1/jobs/{job}/events"),
            last_sequence: 0,
            received: VecDeque::new(),
            more: true,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.url.clone();
        // A reverse proxy may serve the API under a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        let request = self.client.request(method, url).timeout(REQUEST_TIMEOUT);
        self.key.iter().fold(request, |request, key| request.bearer_auth(key))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Value, Error> {
        let unreachable = |source: reqwest::Error| Error::Unreachable {
            server: self.url.clone(),
            source: source.without_url(),
        };
        let response = request.send().await.map_err(unreachable)?;
        if response.status().is_success() {
            return response.json().await.map_err(|_| self.unexpected());
        }
        Err(self.refusal(response).await)
    }

    async fn refusal(&self, response: Response) -> Error {
        #[derive(Deserialize)]
        struct Problem {
            detail: String,
        }
        let status = response.status();
        match response.json::<Problem>().await {
            Ok(Problem { detail }) => Error::Refused { status, detail },
            Err(_) => self.unexpected(),
        }
    }

    fn unexpected(&self) -> Error {
        Error::UnexpectedResponse { server: self.url.clone() }
    }
}

/// Events of a followed job. An API that becomes unreachable, or is replaced by another, is called again.
pub struct Events {
    client: ApiClient,
    path: String,
    last_sequence: i64,
    received: VecDeque<Event>,
    more: bool,
}

impl Events {
    /// Returns the next event, or `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        let mut unreachable_since = None;
        loop {
            if let Some(event) = self.received.pop_front() {
                return Ok(Some(event));
            }
            if !self.more {
                return Ok(None);
            }
            match self.poll().await {
                Ok(()) => unreachable_since = None,
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => {
                    let since = unreachable_since.get_or_insert_with(std::time::Instant::now);
                    if since.elapsed() > UNREACHABLE_TIMEOUT {
                        return Err(error);
                    }
                }
            }
            if self.received.is_empty() && self.more {
                tokio::time::sleep(EVENT_POLL_INTERVAL).await;
            }
        }
    }

    async fn poll(&mut self) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Page {
            events: Vec<Event>,
            more: bool,
        }
        let query = [("after", self.last_sequence.to_string()), ("limit", EVENT_PAGE_SIZE.to_string())];
        let page = self.client.get(&self.path, &query).await?;
        let page: Page = serde_json::from_value(page).map_err(|_| self.client.unexpected())?;
        self.last_sequence = page.events.last().map_or(self.last_sequence, |event| event.sequence);
        self.received.extend(page.events);
        self.more = page.more;
        Ok(())
    }
}
