//! How is a server asked? Documents there and back, and a job's events as they happen.

use std::{collections::VecDeque, time::Duration};

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::{args::Api, exit};

/// How long a server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How often a server is asked for more events, and how many it gives at a time.
const LOOK: Duration = Duration::from_millis(500);
const PIECE: u32 = 200;

/// For how long a server that is away is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached.
    #[error(
        "cannot reach the server at {server} (start one with `spool serve`, or name another with --server)"
    )]
    Away {
        /// Where it should be.
        server: Url,
        /// What the system says.
        source: reqwest::Error,
    },
    /// It refused.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What it says.
        detail: String,
    },
    /// What answers there is no server of this version.
    #[error("what answers at {server} is not Spool, or another version of it")]
    Strange {
        /// Where it is.
        server: Url,
    },
}

impl Error {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Away { .. } => exit::UNREACHABLE,
            Self::Refused { status, .. } => match status.as_u16() {
                400 | 409 | 413 | 415 | 422 => exit::USAGE,
                404 => exit::NOT_FOUND,
                401 | 403 => exit::NOT_ALLOWED,
                503 => exit::UNREACHABLE,
                _ => exit::FAILED,
            },
            Self::Strange { .. } => exit::FAILED,
        }
    }

    /// Does it help to ask again?
    fn passes(&self) -> bool {
        matches!(self, Self::Away { .. })
            || matches!(self, Self::Refused { status, .. } if status.is_server_error())
    }
}

/// Something that happened to a job.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    sequence: i64,
    /// What happened.
    pub kind: String,
    /// What there is to say of it.
    pub data: Value,
}

/// A server.
#[derive(Debug, Clone)]
pub struct Server {
    client: Client,
    url: Url,
    key: Option<String>,
}

impl Server {
    pub fn new(api: &Api) -> Self {
        Self { client: Client::new(), url: api.server.clone(), key: api.api_key.clone() }
    }

    /// What is at a path.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Error> {
        self.answer(self.request(Method::GET, path).query(query)).await
    }

    /// Sends a document; with a key it may be sent twice.
    pub async fn post(&self, path: &str, document: &Value, key: Option<&str>) -> Result<Value, Error> {
        let request = self.request(Method::POST, path).json(document);
        self.answer(key.into_iter().fold(request, |request, key| request.header("Idempotency-Key", key)))
            .await
    }

    /// Follows a job from its first event on.
    pub fn follow(&self, job: &str) -> Follow {
        Follow {
            server: self.clone(),
            path: format!("v1/jobs/{job}/events"),
            behind: 0,
            waiting: VecDeque::new(),
            more: true,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.url.clone();
        // A server may be behind a path of somebody else's.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        let request = self.client.request(method, url).timeout(ANSWER_WITHIN);
        self.key.iter().fold(request, |request, key| request.bearer_auth(key))
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Value, Error> {
        let away =
            |source: reqwest::Error| Error::Away { server: self.url.clone(), source: source.without_url() };
        let response = request.send().await.map_err(away)?;
        if response.status().is_success() {
            return response.json().await.map_err(|_| Error::Strange { server: self.url.clone() });
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
            Err(_) => Error::Strange { server: self.url.clone() },
        }
    }
}

/// A job that is followed. A server that goes away meanwhile, or gives way to another, is waited for.
pub struct Follow {
    server: Server,
    path: String,
    behind: i64,
    waiting: VecDeque<Event>,
    more: bool,
}

impl Follow {
    /// The next event; nothing once there is none to come.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        let mut away_since = None;
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            if !self.more {
                return Ok(None);
            }
            match self.look().await {
                Ok(()) => away_since = None,
                Err(error) if !error.passes() => return Err(error),
                Err(error) => {
                    let since = away_since.get_or_insert_with(std::time::Instant::now);
                    if since.elapsed() > PATIENCE {
                        return Err(error);
                    }
                }
            }
            if self.waiting.is_empty() && self.more {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Page {
            events: Vec<Event>,
            more: bool,
        }
        let query = [("behind", self.behind.to_string()), ("limit", PIECE.to_string())];
        let page = self.server.get(&self.path, &query).await?;
        let page: Page =
            serde_json::from_value(page).map_err(|_| Error::Strange { server: self.server.url.clone() })?;
        self.behind = page.events.last().map_or(self.behind, |event| event.sequence);
        self.waiting.extend(page.events);
        self.more = page.more;
        Ok(())
    }
}
