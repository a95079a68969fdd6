//! Authentication of requests: resolves the credential to a principal, checks the scope that the route
//! requires, and counts the request against the tenant's rate limit.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{RawPathParams, Request, State, rejection::RawPathParamsRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use spool_jobs::{Credential, CredentialStore};

use crate::{
    auth::{
        authorize::RouteAccess,
        oidc::Provider,
        principal::{Principal, unauthenticated},
        rate_limit::RateLimits,
    },
    problem::{Problem, ProblemKind},
};

/// Requests that require a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// No request. The server listens on loopback only.
    None,
    /// All requests except those of public routes require an API key, an upload token or an identity
    /// provider's token.
    Keys,
}

/// Authenticates requests.
#[derive(Clone)]
pub(crate) struct Authenticator {
    mode: AuthMode,
    credentials: Arc<dyn CredentialStore>,
    provider: Option<Arc<Provider>>,
    rate_limits: Arc<RateLimits>,
}

impl Authenticator {
    pub(crate) fn new(
        mode: AuthMode,
        credentials: Arc<dyn CredentialStore>,
        provider: Option<Provider>,
    ) -> Self {
        Self { mode, credentials, provider: provider.map(Arc::new), rate_limits: Arc::default() }
    }

    pub(crate) fn mode(&self) -> AuthMode {
        self.mode
    }

    /// Returns the principal of a request's credential, if the route accepts the credential.
    async fn principal(
        &self,
        access: RouteAccess,
        headers: &HeaderMap,
        upload: Option<&str>,
    ) -> Result<Principal, Problem> {
        let token = bearer_token(headers, access.accepts_basic()).ok_or_else(unauthenticated)?;
        let principal = match (self.credentials.authenticate(&token).await?, &self.provider) {
            (Some(Credential::ApiKey(key)), _) => Principal::with_scopes(key.tenant, key.scopes),
            (Some(Credential::UploadToken(token)), _) => {
                access.check_upload_token(&token, upload)?;
                Principal::with_upload_token(token)
            }
            (None, Some(provider)) => {
                let (tenant, scopes) = provider.verify(&token).await?;
                Principal::with_scopes(tenant, scopes)
            }
            (None, None) => return Err(unauthenticated()),
        };
        access.check_scopes(&principal.scopes)?;
        Ok(principal)
    }
}

/// Authenticates the requests of a route, and attaches the principal to those that are admitted.
pub(crate) async fn authenticate(
    State(access): State<RouteAccess>,
    Extension(auth): Extension<Authenticator>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    if access.is_public() {
        return next.run(request).await;
    }
    if auth.mode == AuthMode::None {
        request.extensions_mut().insert(Principal::loopback());
        return next.run(request).await;
    }
    let upload = params.as_ref().ok().and_then(|params| params.iter().find(|(name, _)| *name == "id"));
    let upload = upload.map(|(_, id)| id);
    let principal = match auth.principal(access, request.headers(), upload).await {
        Ok(principal) => principal,
        Err(problem) => return with_challenge(problem),
    };
    let policy = match auth.credentials.policy(&principal.tenant).await {
        Ok(policy) => policy,
        Err(error) => return Problem::from(error).into_response(),
    };
    // An upload token has a rate limit of its own: a browser that uploads does not use up the tenant's.
    let rate = match &principal.upload_token {
        Some(token) => auth.rate_limits.take(token.id.as_str(), None),
        None => auth.rate_limits.take(&principal.tenant, policy.requests_per_minute),
    };
    let mut response = if rate.allowed() {
        request.extensions_mut().insert(principal);
        next.run(request).await
    } else {
        let detail = format!("more than {} requests per minute; retry in {} s", rate.limit, rate.reset);
        Problem::new(ProblemKind::Rate, detail).into_response()
    };
    rate.write_headers(response.headers_mut());
    response
}

/// Returns the token of `Authorization: Bearer TOKEN`, or, if accepted, of the password in
/// `https://any:TOKEN@…`: some object stores can be configured with a URL only.
///
/// Basic authentication is accepted nowhere else, because a browser stores such a password and sends it with
/// the requests of every page.
fn bearer_token(headers: &HeaderMap, accepts_basic: bool) -> Option<String> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(token.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") || !accepts_basic {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(token.trim()).ok()?).ok()?;
    Some(pair.split_once(':')?.1.to_owned())
}

fn with_challenge(problem: Problem) -> Response {
    let mut response = problem.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"spool\""));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(authorization: &str, accepts_basic: bool) -> Option<String> {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, authorization.parse().unwrap())]);
        bearer_token(&headers, accepts_basic)
    }

    #[test]
    fn the_key_of_a_bucket_notification_is_the_password_of_its_address() {
        let basic = format!("Basic {}", BASE64_STANDARD.encode("any:spool_key_1_abc"));
        assert_eq!(token(&basic, true).as_deref(), Some("spool_key_1_abc"));
        assert_eq!(token(&basic, false), None);
    }

    #[test]
    fn a_bearer_token_is_read_in_any_case_and_with_blanks() {
        assert_eq!(token("bearer  abc ", false).as_deref(), Some("abc"));
        for malformed in ["", "Basic", "Basic ?", "Basic YQ==", "Digest a:b"] {
            assert!(token(malformed, true).is_none(), "{malformed}");
        }
    }
}
