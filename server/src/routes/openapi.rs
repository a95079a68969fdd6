//! The OpenAPI document: texts about the API as a whole, security schemes, and the error responses that every
//! route shares.
//!
//! Source: OpenAPI Specification 3.1.

use axum::Router;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ContentBuilder, Ref, RefOr, ResponseBuilder,
        path::Operation,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::{api_router::operations, route_table};
use crate::{
    app_state::AppState,
    auth::authorize::{BASIC_SCHEME, BEARER_SCHEME, UPLOAD_TOKEN_SCHEME},
    problem::{PROBLEM_JSON, Problem},
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Spool", description = "Transcodes videos into HLS ladders."),
    tags(
        (name = "jobs", description = "Work that clients ask for, with progress and results"),
        (name = "uploads", description = "Files on their way to the server, in one request or in parts"),
        (name = "videos", description = "Published videos, and signed links for playback"),
        (name = "webhooks", description = "URLs that events of jobs are sent to"),
        (name = "keys", description = "API keys of the tenant, with their scopes"),
        (name = "health", description = "Probes and metrics of one server"),
    ),
    components(schemas(Problem)),
    modifiers(&SecuritySchemes)
)]
struct Document;

/// Adds the security schemes that `RouteAccess::security` refers to.
struct SecuritySchemes;

impl Modify for SecuritySchemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let schemes = [
            (
                BEARER_SCHEME,
                HttpAuthScheme::Bearer,
                "API key with one of the listed scopes, or a token (JWT) of the identity provider. A server \
                 on loopback with `--auth none` requires no credential.",
            ),
            (
                BASIC_SCHEME,
                HttpAuthScheme::Basic,
                "API key as the password; the user name is ignored. For object stores that can be configured \
                 with a URL only.",
            ),
            (
                UPLOAD_TOKEN_SCHEME,
                HttpAuthScheme::Bearer,
                "Token of `POST /v1/uploads/tokens`, valid for one upload.",
            ),
        ];
        let components = document.components.get_or_insert_default();
        for (name, scheme, description) in schemes {
            let scheme = Http::builder().scheme(scheme).description(Some(description)).build();
            components.add_security_scheme(name, SecurityScheme::Http(scheme));
        }
    }
}

/// Responses that every route may give beside its own.
const SHARED_REFUSALS: [(&str, &str); 4] = [
    ("401", "The request carries no valid credential."),
    ("403", "The credential lacks the required scope."),
    (
        "429",
        "The tenant exceeds its requests per minute, or the server its concurrent operations; retry later.",
    ),
    ("503", "The database or the object store is unavailable; retry later."),
];

/// Returns the OpenAPI document as JSON.
pub fn openapi() -> String {
    let (_, document) = api();
    // Serialization of texts does not fail.
    document.to_pretty_json().unwrap_or_default() + "\n"
}

/// Returns the routes of the API with their document.
pub(super) fn api() -> (Router<AppState>, utoipa::openapi::OpenApi) {
    let (router, document) = route_table::api(Document::openapi()).into_parts();
    (router, complete(document))
}

/// Adds the shared error responses to each operation, and the problem document to each response that is an
/// error.
fn complete(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        complete_operation(operation);
    }
    document
}

fn complete_operation(operation: &mut Operation) {
    let responses = &mut operation.responses.responses;
    for (status, description) in SHARED_REFUSALS {
        responses
            .entry(status.to_owned())
            .or_insert_with(|| ResponseBuilder::new().description(description).build().into());
    }
    let errors = responses.iter_mut().filter(|(status, _)| status.as_str() >= "400");
    for (_, response) in errors {
        if let RefOr::T(response) = response {
            let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            response.content.insert(PROBLEM_JSON.to_owned(), problem.into());
        }
    }
}
