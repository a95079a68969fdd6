//! Problem documents: every refused request gets a status, a stable type for programs and a text for people.
//!
//! Source: RFC 9457 (problem details for HTTP APIs).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};
use spool_storage::ErrorKind;
use utoipa::ToSchema;

/// Media type of a problem document.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// Seconds after which a client may retry a request that was refused for lack of capacity.
const RETRY_AFTER_SECONDS: &str = "1";

/// Problem details of a refused request (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Type of the problem. Stays equal when the texts change.
    #[serde(rename = "type", serialize_with = "serialize_urn")]
    #[schema(value_type = String, example = "urn:spool:problem:not-found")]
    pub(crate) kind: ProblemKind,
    /// Summary of the problem type, for people.
    pub(crate) title: &'static str,
    /// HTTP status of the response.
    pub(crate) status: u16,
    /// Explanation of this occurrence: the field or object concerned, and the remedy.
    pub(crate) detail: String,
}

/// Problem types. The name in kebab case ends the URN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum ProblemKind {
    /// The request cannot be parsed.
    Malformed,
    /// The request is well formed, and has a value that is not allowed.
    Invalid,
    NotFound,
    MethodNotAllowed,
    /// The state of the resource does not permit the operation.
    Conflict,
    /// The idempotency key names another request.
    KeyUsed,
    /// The request carries no valid credential.
    Unauthenticated,
    NotAllowed,
    /// The tenant exceeds its requests per minute.
    Rate,
    /// The tenant exceeds its quota of jobs or bytes.
    Quota,
    TooLarge,
    UnsupportedMediaType,
    /// The requested byte range lies outside the object.
    Range,
    RequestTimeout,
    LengthRequired,
    /// The client uses another version of tus.
    Version,
    Checksum,
    /// Another request holds the lease of the upload.
    Locked,
    /// This server already runs its maximum of concurrent operations of this kind.
    TooManyConcurrent,
    /// The database, the object store or the identity provider does not respond.
    Unavailable,
    Internal,
}

impl ProblemKind {
    /// Returns the HTTP status. Kinds of failures have the statuses of [`ErrorKind`]; the others exist in
    /// HTTP alone.
    ///
    /// Source: RFC 9110 section 15; tus resumable upload protocol 1.0 (460).
    pub(crate) fn status(self) -> StatusCode {
        let status = match self {
            Self::NotFound => ErrorKind::NotFound.http_status(),
            Self::NotAllowed => ErrorKind::NotAllowed.http_status(),
            Self::Invalid => ErrorKind::BadInput.http_status(),
            Self::Unavailable => ErrorKind::Transient.http_status(),
            Self::Internal => ErrorKind::Bug.http_status(),
            Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Conflict | Self::KeyUsed => 409,
            Self::LengthRequired => 411,
            Self::Version => 412,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Range => 416,
            Self::Locked => 423,
            Self::Rate | Self::Quota | Self::TooManyConcurrent => 429,
            Self::Checksum => 460,
        };
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn title(self) -> &'static str {
        match self {
            Self::Malformed => "the request cannot be parsed",
            Self::Invalid => "the request has an invalid value",
            Self::NotFound => "the resource does not exist",
            Self::MethodNotAllowed => "the resource does not support this method",
            Self::Conflict => "the resource's state does not permit this operation",
            Self::KeyUsed => "the idempotency key was used for another request",
            Self::Unauthenticated => "the request carries no valid credential",
            Self::NotAllowed => "the credential does not permit this operation",
            Self::Rate => "too many requests per minute",
            Self::Quota => "the tenant's quota is exceeded",
            Self::TooLarge => "the request is too large",
            Self::UnsupportedMediaType => "the media type is not supported",
            Self::Range => "the range lies outside the object",
            Self::RequestTimeout => "the request took too long to arrive",
            Self::LengthRequired => "Content-Length is required",
            Self::Version => "the tus version is not supported",
            Self::Checksum => "the checksum does not match",
            Self::Locked => "the upload is locked by another request",
            Self::TooManyConcurrent => "too many concurrent operations",
            Self::Unavailable => "a required service is unavailable",
            Self::Internal => "internal error: a defect of Spool",
        }
    }
}

impl From<ErrorKind> for ProblemKind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::NotAllowed => Self::NotAllowed,
            ErrorKind::BadInput => Self::Invalid,
            ErrorKind::Transient | ErrorKind::Canceled => Self::Unavailable,
            ErrorKind::Bug => Self::Internal,
        }
    }
}

/// Serializes a problem type as its URN.
fn serialize_urn<S: Serializer>(kind: &ProblemKind, serializer: S) -> Result<S::Ok, S::Error> {
    let name: &str = kind.into();
    serializer.collect_str(&format_args!("urn:spool:problem:{name}"))
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, title: kind.title(), status: kind.status().as_u16(), detail: detail.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS | StatusCode::LOCKED
        ) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}

impl From<spool_jobs::Error> for Problem {
    fn from(error: spool_jobs::Error) -> Self {
        use spool_jobs::Error;
        let kind = match &error {
            Error::NotFound { .. } => ProblemKind::NotFound,
            Error::NotAllowed { .. } | Error::TokenUsed { .. } => ProblemKind::NotAllowed,
            Error::Quota { .. } => ProblemKind::Quota,
            Error::Request { .. } => ProblemKind::Invalid,
            Error::KeyUsed { .. } => ProblemKind::KeyUsed,
            // A lost lease: another request of the client has taken it over.
            Error::InvalidState { .. } | Error::LeaseLost { .. } => ProblemKind::Conflict,
            Error::Database { .. } | Error::Open { .. } => ProblemKind::Unavailable,
            Error::Locked { .. } => ProblemKind::Locked,
            Error::UnknownValue { .. } | Error::Random { .. } => ProblemKind::Internal,
        };
        if matches!(kind, ProblemKind::Unavailable | ProblemKind::Internal) {
            // The database's text may contain secrets, so it goes to the log only.
            tracing::warn!(%error, "request failed");
            return Self::new(kind, "the job database failed; retry, and see the server's log");
        }
        Self::new(kind, error.to_string())
    }
}

impl From<spool_media::Error> for Problem {
    fn from(error: spool_media::Error) -> Self {
        Self::new(error.kind().into(), error.to_string())
    }
}

impl From<spool_storage::Error> for Problem {
    fn from(error: spool_storage::Error) -> Self {
        Self::new(error.kind().into(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn the_text_of_a_database_error_stays_in_the_log() {
        let error = spool_jobs::Error::UnknownValue { what: "state", value: "password=secret".to_owned() };
        let problem = Problem::from(error);
        assert!(!problem.detail.contains("secret") && problem.status == 500);
    }

    #[test]
    fn a_problem_is_served_as_problem_json() {
        let problem = Problem::from(spool_jobs::Error::NotFound { what: "job", id: "job_1".to_owned() });
        assert_eq!(problem.status, 404);
        assert!(problem.detail.contains("job_1"), "{problem:?}");
        assert_eq!(serde_json::to_value(&problem).unwrap()["type"], "urn:spool:problem:not-found");
        assert_eq!(problem.into_response().headers()[header::CONTENT_TYPE], PROBLEM_JSON);
    }

    #[test]
    fn every_problem_kind_has_an_error_status_and_a_title() {
        for kind in ProblemKind::iter() {
            assert!(kind.status().as_u16() >= 400 && !kind.title().is_empty(), "{kind:?}");
            assert!(kind == ProblemKind::Internal || kind.status() != StatusCode::INTERNAL_SERVER_ERROR);
        }
    }

    #[test]
    fn error_kinds_keep_their_http_status() {
        for kind in ErrorKind::iter() {
            assert_eq!(ProblemKind::from(kind).status().as_u16(), kind.http_status(), "{kind}");
        }
    }
}
