//! `ApiRouter`: accepts a route only together with the access that the route requires, and writes the
//! requirement into the OpenAPI document.

use axum::{Router, middleware, routing::MethodRouter};
use utoipa::openapi::{
    OpenApi,
    path::{Operation, PathItem},
};
use utoipa_axum::router::UtoipaMethodRouter;

use crate::{
    app_state::AppState,
    auth::{authenticate::authenticate, authorize::RouteAccess},
};

/// The last parameter of an OpenAPI path that stands for several segments, and the router's form of it:
/// OpenAPI has no form of its own.
const SEGMENTS: &str = "/{path}";
const SEGMENTS_OF_ROUTER: &str = "/{*path}";

/// Routes with the OpenAPI document that describes them.
pub(super) struct ApiRouter {
    router: Router<AppState>,
    document: OpenApi,
}

impl ApiRouter {
    /// Creates a router without routes, whose document begins as `document`.
    pub(super) fn new(document: OpenApi) -> Self {
        Self { router: Router::new(), document }
    }

    /// Adds documented routes of one path that require the same access.
    pub(super) fn route(mut self, access: RouteAccess, routes: UtoipaMethodRouter<AppState>) -> Self {
        let (schemas, paths, handlers) = routes;
        let handlers = enforce(access, handlers);
        for (path, mut item) in paths.paths {
            for operation in operations(&mut item) {
                operation.security = Some(access.security());
            }
            let route = path.strip_suffix(SEGMENTS).map(|start| format!("{start}{SEGMENTS_OF_ROUTER}"));
            self.router = self.router.route(route.as_deref().unwrap_or(&path), handlers.clone());
            match self.document.paths.paths.get_mut(&path) {
                Some(known) => known.merge_operations(item),
                None => drop(self.document.paths.paths.insert(path, item)),
            }
        }
        self.document.components.get_or_insert_default().schemas.extend(schemas);
        self
    }

    /// Adds a route that is not part of the API and that the document does not list.
    pub(super) fn unlisted(
        mut self,
        access: RouteAccess,
        path: &str,
        handlers: MethodRouter<AppState>,
    ) -> Self {
        self.router = self.router.route(path, enforce(access, handlers));
        self
    }

    /// Applies layers to the routes that were added before.
    pub(super) fn layered(mut self, layers: impl FnOnce(Router<AppState>) -> Router<AppState>) -> Self {
        self.router = layers(self.router);
        self
    }

    /// Adds the routes and the document of another router.
    pub(super) fn merge(mut self, other: Self) -> Self {
        self.document.merge(other.document);
        self.router = self.router.merge(other.router);
        self
    }

    /// Returns the router and the document.
    pub(super) fn into_parts(self) -> (Router<AppState>, OpenApi) {
        (self.router, self.document)
    }
}

fn enforce(access: RouteAccess, handlers: MethodRouter<AppState>) -> MethodRouter<AppState> {
    handlers.route_layer(middleware::from_fn_with_state(access, authenticate))
}

/// Returns the operations of a path.
pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
    [get, put, post, delete, options, head, patch, trace].into_iter().flatten()
}
