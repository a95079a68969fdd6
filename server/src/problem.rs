//! How is a request refused? With a status and a document that programs can tell apart and people can read.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use spool_storage::ErrorKind;
use utoipa::ToSchema;

/// Why a request was refused.
///
/// Source: RFC 9457 (problem details for HTTP APIs).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Which kind of problem: it stays the same whatever the words say.
    #[serde(rename = "type")]
    #[schema(example = "urn:spool:problem:not-found")]
    pub(crate) kind: &'static str,
    /// The kind in words.
    pub(crate) title: &'static str,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What happened here, with which input, and what to do.
    pub(crate) detail: String,
}

/// The kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    /// The request cannot be read.
    Malformed,
    /// It can be read, and asks for what cannot be done.
    Invalid,
    NotFound,
    MethodNotAllowed,
    /// It is not so any more, or not yet.
    Conflict,
    KeyUsed,
    /// Nobody knows who asks.
    Unauthenticated,
    NotAllowed,
    Rate,
    Quota,
    TooLarge,
    UnsupportedMediaType,
    Range,
    /// Nothing came for too long.
    RequestTimeout,
    LengthRequired,
    Version,
    Checksum,
    Locked,
    TooManyConcurrent,
    Unavailable,
    Internal,
}

impl ProblemKind {
    fn parts(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Self::Malformed => {
                ("urn:spool:problem:malformed", "the request cannot be read", StatusCode::BAD_REQUEST)
            }
            Self::Invalid => (
                "urn:spool:problem:invalid",
                "the request asks for what cannot be done",
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
            Self::NotFound => {
                ("urn:spool:problem:not-found", "there is no such thing", StatusCode::NOT_FOUND)
            }
            Self::MethodNotAllowed => (
                "urn:spool:problem:method-not-allowed",
                "this cannot be done here",
                StatusCode::METHOD_NOT_ALLOWED,
            ),
            Self::Conflict => {
                ("urn:spool:problem:conflict", "it is not in a state for this", StatusCode::CONFLICT)
            }
            Self::KeyUsed => (
                "urn:spool:problem:key-used",
                "the idempotency key stands for another request",
                StatusCode::CONFLICT,
            ),
            Self::Unauthenticated => {
                ("urn:spool:problem:unauthenticated", "it is not known who asks", StatusCode::UNAUTHORIZED)
            }
            Self::Rate => {
                ("urn:spool:problem:rate", "requests come too often", StatusCode::TOO_MANY_REQUESTS)
            }
            Self::Quota => {
                ("urn:spool:problem:quota", "the tenant has as much as it may", StatusCode::TOO_MANY_REQUESTS)
            }
            Self::NotAllowed => {
                ("urn:spool:problem:not-allowed", "this is not allowed", StatusCode::FORBIDDEN)
            }
            Self::TooLarge => {
                ("urn:spool:problem:too-large", "the request is too large", StatusCode::PAYLOAD_TOO_LARGE)
            }
            Self::UnsupportedMediaType => (
                "urn:spool:problem:unsupported-media-type",
                "the request is of a type that is not taken",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            Self::Range => (
                "urn:spool:problem:range",
                "the range is outside of the object",
                StatusCode::RANGE_NOT_SATISFIABLE,
            ),
            Self::RequestTimeout => (
                "urn:spool:problem:request-timeout",
                "nothing came for too long",
                StatusCode::REQUEST_TIMEOUT,
            ),
            Self::LengthRequired => {
                ("urn:spool:problem:length-required", "its length is not said", StatusCode::LENGTH_REQUIRED)
            }
            Self::Version => (
                "urn:spool:problem:version",
                "another version of tus is spoken",
                StatusCode::PRECONDITION_FAILED,
            ),
            Self::Checksum => {
                ("urn:spool:problem:checksum", "it is not what its checksum says", checksum_mismatch())
            }
            Self::Locked => {
                ("urn:spool:problem:locked", "another request has it in hand", StatusCode::LOCKED)
            }
            Self::TooManyConcurrent => (
                "urn:spool:problem:too-many-concurrent",
                "there are too many of these",
                StatusCode::TOO_MANY_REQUESTS,
            ),
            Self::Unavailable => (
                "urn:spool:problem:unavailable",
                "something that is needed is away",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            Self::Internal => {
                ("urn:spool:problem:internal", "this is a defect of Spool", StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

/// What tus calls this: a status of its own.
fn checksum_mismatch() -> StatusCode {
    StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST)
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let (kind, title, status) = kind.parts();
        Self { kind, title, status: status.as_u16(), detail: detail.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS | StatusCode::LOCKED
        ) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<spool_jobs::Error> for Problem {
    fn from(error: spool_jobs::Error) -> Self {
        use spool_jobs::Error;
        let kind = match &error {
            Error::NotFound { .. } => ProblemKind::NotFound,
            Error::NotAllowed { .. } | Error::Spent { .. } => ProblemKind::NotAllowed,
            Error::Quota { .. } => ProblemKind::Quota,
            Error::Request { .. } => ProblemKind::Invalid,
            Error::KeyUsed { .. } => ProblemKind::KeyUsed,
            Error::State { .. } => ProblemKind::Conflict,
            Error::Database { .. } | Error::Open { .. } => ProblemKind::Unavailable,
            Error::Held { .. } => ProblemKind::Locked,
            // Another request of the same client has it now.
            Error::Lost { .. } => ProblemKind::Conflict,
            Error::Unknown { .. } => ProblemKind::Internal,
        };
        if matches!(kind, ProblemKind::Unavailable | ProblemKind::Internal) {
            // What a database says may hold what is nobody's business.
            tracing::warn!(%error, "a request failed");
            return Self::new(
                kind,
                "the store of jobs did not answer as it should: try again, and see the server's log",
            );
        }
        Self::new(kind, error.to_string())
    }
}

impl From<spool_media::Error> for Problem {
    fn from(error: spool_media::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::NotFound => ProblemKind::NotFound,
            ErrorKind::NotAllowed => ProblemKind::NotAllowed,
            ErrorKind::BadInput => ProblemKind::Invalid,
            ErrorKind::Transient | ErrorKind::Canceled => ProblemKind::Unavailable,
            ErrorKind::Bug => ProblemKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_database_says_stays_in_the_log() {
        let error = spool_jobs::Error::Unknown { what: "state", value: "password=secret".to_owned() };
        let problem = Problem::from(error);
        assert!(!problem.detail.contains("secret") && problem.status == 500);
        let problem = Problem::from(spool_jobs::Error::NotFound { what: "job", id: "job_1".to_owned() });
        assert_eq!((problem.status, problem.detail.as_str()), (404, "there is no job job_1"));
        assert_eq!(problem.into_response().headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
