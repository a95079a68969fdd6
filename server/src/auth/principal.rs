//! Principals: the tenant and scopes of a request.

use axum::{extract::FromRequestParts, http::request::Parts};
use spool_jobs::{Id, Scope, UploadToken};
use strum::VariantArray;

use crate::problem::{Problem, ProblemKind};

/// Tenant of the principal on loopback, where no credential is required.
const LOOPBACK_TENANT: &str = "default";

/// Principal that makes a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Principal {
    pub(crate) tenant: String,
    pub(crate) scopes: Vec<Scope>,
    /// Upload token, if the credential is one.
    pub(crate) upload_token: Option<UploadToken>,
    /// Whether jobs of this principal are limited to the paths of its tenant.
    pub(crate) has_path_policy: bool,
}

impl Principal {
    /// Returns the principal of a server on loopback: all scopes, and every path that the process can reach.
    pub(crate) fn loopback() -> Self {
        Self {
            tenant: LOOPBACK_TENANT.to_owned(),
            scopes: Scope::VARIANTS.to_vec(),
            upload_token: None,
            has_path_policy: false,
        }
    }

    /// Returns the principal of an API key or of an identity provider's token.
    pub(crate) fn with_scopes(tenant: String, scopes: Vec<Scope>) -> Self {
        Self { tenant, scopes, upload_token: None, has_path_policy: true }
    }

    /// Returns the principal of an upload token, which may write one upload.
    pub(crate) fn with_upload_token(token: UploadToken) -> Self {
        Self {
            tenant: token.tenant.clone(),
            scopes: vec![Scope::Write],
            upload_token: Some(token),
            has_path_policy: true,
        }
    }

    /// Returns the id of the upload token, if the credential is one.
    pub(crate) fn upload_token_id(&self) -> Option<Id> {
        self.upload_token.as_ref().map(|token| token.id.clone())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    /// Returns the principal that authentication attached to the request; a public route has none.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(unauthenticated)
    }
}

/// Tenant whose data a request concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tenant(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(Principal::from_request_parts(parts, state).await?.tenant))
    }
}

/// Returns the problem of a request without a valid credential.
pub(crate) fn unauthenticated() -> Problem {
    Problem::new(
        ProblemKind::Unauthenticated,
        "a valid credential is required: send Authorization: Bearer KEY (`spool keys create` makes a key)",
    )
}
