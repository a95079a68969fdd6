//! HTTP exchanges with stores: turns error responses into typed errors, before the client turns them into
//! text.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
        HttpService, ReqwestConnector,
    },
};

use crate::net;

/// Time limit of a read for the first byte of its response. Stores respond in well under a second; after this
/// time the connection is dead, and a retry on a new one is faster than waiting for the whole request's time
/// limit.
const FIRST_BYTE_WAIT: Duration = Duration::from_secs(15);

/// Bytes of an error's body that are read to find its code: S3's are below 1 kB; a hostile server's may be
/// endless.
const ERROR_BODY_MAX_BYTES: usize = 16 * 1024;

/// Longest error code that is accepted: S3's longest has 44 characters.
const CODE_MAX_CHARS: usize = 64;

/// Metadata services that give cloud hosts their credentials. Elsewhere they do not respond, which means that
/// there are no credentials.
const METADATA_HOSTS: [&str; 4] =
    ["169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "metadata.google.internal"];

/// A store's error response: its status, the code in its body, and the region in its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The store's own code, such as `SlowDown`.
    pub code: Option<String>,
    /// Region of the bucket, if the response names it.
    pub region: Option<String>,
}

impl Answer {
    pub(crate) fn says_no_bucket(&self) -> bool {
        matches!(self.code.as_deref(), Some("NoSuchBucket" | "ContainerNotFound"))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        match (&self.region, self.status) {
            (Some(region), 300..=400) => write!(f, "; the bucket is in {region}: set AWS_REGION={region}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Answer {}

/// There are no credentials: no variable, no profile, no instance role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no credentials were found")]
pub(crate) struct NoCredentials;

/// Creates clients that send requests through [`Wire`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Connector {
    /// Shared client, if all clients may share one pool of connections: for http(s) sources, which have no
    /// options of their own.
    shared: Option<Arc<OnceLock<HttpClient>>>,
    /// Time limit of requests, if only public addresses may be contacted.
    public: Option<Limit>,
    /// Whether the metadata service's old version (IMDSv1) is tried after a 403 of the new one.
    metadata_v1: bool,
}

impl Connector {
    /// Returns a connector whose clients share one pool of connections.
    pub(crate) fn shared() -> Self {
        Self { shared: Some(Arc::default()), ..Self::default() }
    }

    /// Returns a shared connector whose clients contact public addresses only, with a time limit per request.
    pub(crate) fn public(limit: Limit) -> Self {
        Self { public: Some(limit), ..Self::shared() }
    }

    /// Returns a connector for S3.
    pub(crate) fn with_metadata_v1(metadata_v1: bool) -> Self {
        Self { metadata_v1, ..Self::default() }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        if let Some(client) = self.shared.as_deref().and_then(OnceLock::get) {
            return Ok(client.clone());
        }
        let inner = match self.public {
            None => ReqwestConnector::default().connect(options)?,
            Some(limit) => HttpClient::new(public_client(limit)?),
        };
        let client = HttpClient::new(Wire { inner, metadata_v1: self.metadata_v1 });
        Ok(match &self.shared {
            Some(cell) => cell.get_or_init(|| client).clone(),
            None => client,
        })
    }
}

/// Time limit of a whole request; `None` for a long download, whose reader limits each wait.
pub(crate) type Limit = Option<Duration>;

/// Returns a client for public addresses only. `object_store` has no option for it.
fn public_client(limit: Limit) -> object_store::Result<reqwest::Client> {
    let client = net::public_only(reqwest::Client::builder());
    let client = match limit {
        Some(limit) => client.timeout(limit),
        None => client,
    };
    client.build().map_err(|source| object_store::Error::Generic { store: "HTTP", source: Box::new(source) })
}

/// Receives the ID of a multipart upload from the response to the request that carries the slot as an
/// extension.
#[derive(Debug, Clone, Default)]
pub(crate) struct UploadIdSlot(Arc<OnceLock<String>>);

impl UploadIdSlot {
    /// Returns the ID; empty if no request was made, as of Azure, which has no such IDs.
    pub(crate) fn take(self) -> String {
        self.0.get().cloned().unwrap_or_default()
    }
}

#[derive(Debug)]
struct Wire {
    inner: HttpClient,
    metadata_v1: bool,
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let upload_id = request.extensions().get::<UploadIdSlot>().cloned();
        let from_metadata = request.uri().host().is_some_and(|host| METADATA_HOSTS.contains(&host));
        // A write takes as long as its upload, and has the client's own time limit.
        let wait = if request.method().is_safe() { FIRST_BYTE_WAIT } else { Duration::MAX };
        let response = match tokio::time::timeout(wait, self.inner.execute(request)).await {
            Ok(Ok(response)) => response,
            // Not retried: on a host without a metadata service every attempt takes a second.
            Ok(Err(_)) | Err(_) if from_metadata => {
                return Err(HttpError::new(HttpErrorKind::Unknown, NoCredentials));
            }
            Ok(Err(error)) => return Err(error),
            Err(elapsed) => return Err(HttpError::new(HttpErrorKind::Timeout, elapsed)),
        };
        match response.status().as_u16() {
            200..300 => match upload_id {
                Some(slot) => read_upload_id(response, &slot).await,
                None => Ok(response),
            },
            403 if from_metadata && self.metadata_v1 => Ok(response),
            // No role, or a proxy that does not know the host.
            400..500 if from_metadata => Err(HttpError::new(HttpErrorKind::Unknown, NoCredentials)),
            _ if from_metadata => Ok(response),
            _ => judge(response).await,
        }
    }
}

/// Passes on the responses that `object_store` itself distinguishes (not found, not modified, condition
/// failed, conflict), and turns the others into typed errors.
async fn judge(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let body = start_of(body).await;
    let answer = Answer {
        status: parts.status.as_u16(),
        code: code_in(&body),
        region: parts.headers.get("x-amz-bucket-region").and_then(|v| v.to_str().ok()).map(str::to_owned),
    };
    match answer.status {
        404 if answer.says_no_bucket() => Err(HttpError::new(HttpErrorKind::Unknown, answer)),
        304 | 404 | 409 | 412 => Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(Bytes::new()))),
        // The only errors that are retried for every method: the server did not execute the request.
        408 | 429 | 500 | 502.. => Err(HttpError::new(HttpErrorKind::Request, answer)),
        _ => Err(HttpError::new(HttpErrorKind::Unknown, answer)),
    }
}

/// Copies the ID of a multipart upload into its slot, and passes on the response.
async fn read_upload_id(response: HttpResponse, slot: &UploadIdSlot) -> Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let body = body.bytes().await?;
    if let Some(id) = upload_id_in(&body) {
        let _ = slot.0.set(id);
    }
    Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(body)))
}

/// Returns the `<UploadId>` of a response to CreateMultipartUpload.
fn upload_id_in(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("<UploadId>")?;
    let (id, _) = rest.split_once("</UploadId>")?;
    // `&amp;` last: `&amp;lt;` is `&lt;`.
    Some(id.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&"))
}

/// Reads the start of a body, as far as an error code needs; less if the body ends early.
async fn start_of(body: HttpResponseBody) -> Vec<u8> {
    let mut chunks = body.bytes_stream();
    let mut start = Vec::new();
    let read = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            let room = ERROR_BODY_MAX_BYTES - start.len();
            start.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if start.len() == ERROR_BODY_MAX_BYTES {
                break;
            }
        }
    };
    // If the body is too slow, the status alone must do.
    let _ = tokio::time::timeout(FIRST_BYTE_WAIT, read).await;
    start
}

/// Returns the `<Code>` of S3's and Azure's XML errors.
fn code_in(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    (code.len() <= CODE_MAX_CHARS && code.chars().all(|c| c.is_ascii_alphanumeric())).then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_taken_from_bodies_and_nothing_else_is() {
        assert_eq!(
            code_in(b"<?xml?><Error><Code>SlowDown</Code><Message>x</Message></Error>").as_deref(),
            Some("SlowDown")
        );
        assert_eq!(code_in(b"<Error><Code>\x1b[31m</Code></Error>"), None);
        assert_eq!(code_in(b"<Code>"), None);
        assert_eq!(code_in(b""), None);
    }

    #[test]
    fn the_upload_id_is_read_from_the_answer() {
        let body = b"<Result><Bucket>b</Bucket><UploadId>a&amp;b_1-2.3</UploadId></Result>";
        assert_eq!(upload_id_in(body).as_deref(), Some("a&b_1-2.3"));
        assert_eq!(upload_id_in(b"<UploadId>"), None);
    }

    #[test]
    fn a_bucket_elsewhere_is_named_with_the_remedy() {
        let answer =
            Answer { status: 301, code: Some("PermanentRedirect".into()), region: Some("eu-west-1".into()) };
        assert_eq!(
            answer.to_string(),
            "HTTP 301 PermanentRedirect; the bucket is in eu-west-1: set AWS_REGION=eu-west-1"
        );
    }
}
