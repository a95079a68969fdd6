//! Extractors of requests: JSON bodies, query strings and path parameters, whose errors are problem
//! documents.

use axum::{
    Json,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::{
    documents::json_object::JsonObject,
    problem::{Problem, ProblemKind},
};

/// Body of a request: a JSON object.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// Query string of a request.
pub(crate) struct QueryParams<T>(pub(crate) T);

/// Path parameters of a request.
pub(crate) struct PathParams<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = Json::from_request(request, state).await;
        read.map(|Json(JsonObject(body))| Self(body)).map_err(|error: JsonRejection| {
            let kind = match &error {
                JsonRejection::JsonDataError(_) => ProblemKind::Invalid,
                JsonRejection::MissingJsonContentType(_) => ProblemKind::UnsupportedMediaType,
                JsonRejection::BytesRejection(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                    ProblemKind::TooLarge
                }
                _ => ProblemKind::Malformed,
            };
            Problem::new(kind, error.body_text())
        })
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Query::from_request_parts(parts, state).await;
        read.map(|Query(params)| Self(params))
            .map_err(|error: QueryRejection| Problem::new(ProblemKind::Malformed, error.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Path::from_request_parts(parts, state).await;
        read.map(|Path(params)| Self(params))
            .map_err(|error: PathRejection| Problem::new(ProblemKind::Malformed, error.body_text()))
    }
}
