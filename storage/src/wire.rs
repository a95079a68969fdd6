//! One HTTP exchange with a store: answers become typed errors here, before the client turns them into text.

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

/// How long a read may wait for the first byte of its answer. Stores answer in well under a second; past this
/// one the connection is dead, and asking again on a fresh one is faster than waiting for the whole request's
/// time limit.
const FIRST_BYTE_WAIT: Duration = Duration::from_secs(15);

/// How much of an error's body is read to find its code: S3's are below 1 kB; a hostile web server's may not
/// end.
const ERROR_BODY_MAX_BYTES: usize = 16 * 1024;

/// Longest error code that is believed: S3's longest has 44 characters.
const CODE_MAX_CHARS: usize = 64;

/// Where cloud machines ask for their credentials. Elsewhere there is no answer, which means that there are
/// no credentials.
const METADATA_HOSTS: [&str; 4] =
    ["169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "metadata.google.internal"];

/// A store's answer that is an error: its status, the code in its body, and the region that it named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The store's own code, such as `SlowDown`.
    pub code: Option<String>,
    /// Where the bucket really is, if the store said so.
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

/// There are no credentials: no variable, no profile, no machine role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no credentials were found")]
pub(crate) struct NoCredentials;

/// Makes clients that speak through [`Wire`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Connector {
    /// Set where every client may share one pool of connections: http(s) sources, which have no options of
    /// their own.
    shared: Option<Arc<OnceLock<HttpClient>>>,
    /// Only those whom everybody can reach are spoken to, within so long.
    public: Option<Limit>,
    /// Was it asked for that machines' old way to credentials is tried too, which begins with the new one's
    /// 403?
    metadata_v1: bool,
}

impl Connector {
    /// One pool of connections for all who ask.
    pub(crate) fn shared() -> Self {
        Self { shared: Some(Arc::default()), ..Self::default() }
    }

    /// The same, of clients that speak only to whom everybody can reach, for so long a request.
    pub(crate) fn public(limit: Limit) -> Self {
        Self { public: Some(limit), ..Self::shared() }
    }

    /// For S3 with these options.
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

/// How long a request may take as a whole; nothing for a long download, whose reader limits each wait.
pub(crate) type Limit = Option<Duration>;

/// `object_store` makes no client that chooses whom it connects to.
fn public_client(limit: Limit) -> object_store::Result<reqwest::Client> {
    let client = net::public_only(reqwest::Client::builder());
    let client = match limit {
        Some(limit) => client.timeout(limit),
        None => client,
    };
    client.build().map_err(|source| object_store::Error::Generic { store: "HTTP", source: Box::new(source) })
}

/// Receives the ID of a multipart upload from the answer to the request that carries the slot as an
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
        // A write is as slow as its upload and is limited by the client's own timeout.
        let wait = if request.method().is_safe() { FIRST_BYTE_WAIT } else { Duration::MAX };
        let response = match tokio::time::timeout(wait, self.inner.execute(request)).await {
            Ok(Ok(response)) => response,
            // Not asked again: on a machine without a metadata service every try costs a second.
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
            // No role, or a proxy that knows no such host.
            400..500 if from_metadata => Err(HttpError::new(HttpErrorKind::Unknown, NoCredentials)),
            _ if from_metadata => Ok(response),
            _ => judge(response).await,
        }
    }
}

/// Passes on what `object_store` itself distinguishes (gone, not modified, condition failed, conflict), types
/// the rest.
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
        // The one kind of error that is asked again whatever the method: the server says that it did not do
        // it.
        408 | 429 | 500 | 502.. => Err(HttpError::new(HttpErrorKind::Request, answer)),
        _ => Err(HttpError::new(HttpErrorKind::Unknown, answer)),
    }
}

/// Copies the ID of a multipart upload into its slot, and passes on the answer.
async fn read_upload_id(response: HttpResponse, slot: &UploadIdSlot) -> Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let body = body.bytes().await?;
    if let Some(id) = upload_id_in(&body) {
        let _ = slot.0.set(id);
    }
    Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(body)))
}

/// Returns the `<UploadId>` of an answer to CreateMultipartUpload.
fn upload_id_in(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("<UploadId>")?;
    let (id, _) = rest.split_once("</UploadId>")?;
    // `&amp;` last: `&amp;lt;` is `&lt;`.
    Some(id.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&"))
}

/// As much of the body as an error code needs; less where it breaks off.
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
    // Too slow an explanation is no explanation: the status alone will do.
    let _ = tokio::time::timeout(FIRST_BYTE_WAIT, read).await;
    start
}

/// The `<Code>` of S3's and Azure's XML errors.
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
