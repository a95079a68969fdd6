//! Route access: the credentials that a route accepts. Declared beside each route in `routes::route_table`;
//! enforcement and the OpenAPI document's `security` both follow from the declaration.

use spool_jobs::{Scope, UploadToken};
use strum::VariantArray;
use utoipa::openapi::security::SecurityRequirement;

use crate::problem::{Problem, ProblemKind};

/// Names of the OpenAPI security schemes.
pub(crate) const BEARER_SCHEME: &str = "bearer";
pub(crate) const BASIC_SCHEME: &str = "basic";
pub(crate) const UPLOAD_TOKEN_SCHEME: &str = "upload_token";

/// Credentials that a route accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteAccess {
    /// Scopes of which one is required; a public route requires none.
    scopes: &'static [Scope],
    upload_token: UploadTokenUse,
    /// Whether the key may be the password of HTTP basic authentication.
    accepts_basic: bool,
}

/// Whether a route accepts an upload token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UploadTokenUse {
    Refused,
    /// Accepts a token that was not redeemed, and begins an upload.
    BeginsUpload,
    /// Accepts the token that the upload in the path was begun with.
    ContinuesUpload,
}

impl RouteAccess {
    /// No credential is required.
    pub(crate) const PUBLIC: Self = Self::any_of(&[]);
    /// Reading jobs, videos and uploads, and playing.
    pub(crate) const READ: Self = Self::any_of(&[Scope::Read]);
    /// Creating and changing jobs, uploads and webhooks.
    pub(crate) const WRITE: Self = Self::any_of(&[Scope::Write]);
    /// Reading the progress of an upload, which its sender must be able to do.
    pub(crate) const READ_OR_WRITE: Self = Self::any_of(&[Scope::Read, Scope::Write]);
    /// Creating, listing and revoking API keys of the tenant.
    pub(crate) const KEYS: Self = Self::any_of(&[Scope::Keys]);
    /// Any valid credential: for paths that do not exist.
    pub(crate) const ANY_SCOPE: Self = Self::any_of(Scope::VARIANTS);

    const fn any_of(scopes: &'static [Scope]) -> Self {
        Self { scopes, upload_token: UploadTokenUse::Refused, accepts_basic: false }
    }

    /// Accepts also an upload token that was not redeemed.
    pub(crate) const fn or_token_to_begin_upload(self) -> Self {
        Self { upload_token: UploadTokenUse::BeginsUpload, ..self }
    }

    /// Accepts also the token that the upload with the path's `id` was begun with.
    pub(crate) const fn or_token_of_upload(self) -> Self {
        Self { upload_token: UploadTokenUse::ContinuesUpload, ..self }
    }

    /// Accepts the key also as the password of HTTP basic authentication.
    pub(crate) const fn or_basic(self) -> Self {
        Self { accepts_basic: true, ..self }
    }

    pub(crate) fn is_public(self) -> bool {
        self.scopes.is_empty()
    }

    pub(crate) fn accepts_basic(self) -> bool {
        self.accepts_basic
    }

    /// Returns an error if the credential has none of the required scopes.
    pub(crate) fn check_scopes(self, granted: &[Scope]) -> Result<(), Problem> {
        if self.is_public() || self.scopes.iter().any(|scope| granted.contains(scope)) {
            return Ok(());
        }
        let required: Vec<&str> = self.scopes.iter().map(|scope| (*scope).into()).collect();
        Err(Problem::new(
            ProblemKind::NotAllowed,
            format!("the credential lacks the required scope: {}", required.join(" or ")),
        ))
    }

    /// Returns an error if the credential is an upload token that the route does not accept, or that belongs
    /// to another upload.
    pub(crate) fn check_upload_token(self, token: &UploadToken, upload: Option<&str>) -> Result<(), Problem> {
        let accepted = match (self.upload_token, &token.upload) {
            (UploadTokenUse::BeginsUpload, None) => true,
            (UploadTokenUse::ContinuesUpload, Some(own)) => upload == Some(own.as_str()),
            _ => false,
        };
        if accepted {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::NotAllowed,
            "an upload token permits one upload and no other operation",
        ))
    }

    /// Returns the OpenAPI security requirements, of which a client has to meet one.
    ///
    /// Source: OpenAPI Specification 3.1, "Security Requirement Object" (names of roles of an HTTP scheme).
    pub(crate) fn security(self) -> Vec<SecurityRequirement> {
        let schemes = [BEARER_SCHEME].into_iter().chain(self.accepts_basic.then_some(BASIC_SCHEME));
        let with_scopes = schemes.flat_map(|scheme| {
            self.scopes.iter().map(move |scope| SecurityRequirement::new(scheme, [<&str>::from(*scope)]))
        });
        let token = (self.upload_token != UploadTokenUse::Refused)
            .then(|| SecurityRequirement::new(UPLOAD_TOKEN_SCHEME, Vec::<String>::new()));
        with_scopes.chain(token).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spool_jobs::Id;

    use super::*;

    fn token(upload: Option<&Id>) -> UploadToken {
        UploadToken {
            id: Id::upload_token(),
            tenant: "acme".into(),
            max_bytes: 1,
            job: None,
            expires_ms: 0,
            upload: upload.cloned(),
        }
    }

    #[test]
    fn one_of_the_required_scopes_is_enough() {
        assert!(RouteAccess::READ_OR_WRITE.check_scopes(&[Scope::Write]).is_ok());
        assert!(RouteAccess::PUBLIC.check_scopes(&[]).is_ok());
        let refused = RouteAccess::KEYS.check_scopes(&[Scope::Read, Scope::Write]).unwrap_err();
        assert!(refused.status == 403 && refused.detail.contains("keys"), "{refused:?}");
    }

    #[test]
    fn an_upload_token_permits_one_upload_and_no_other_operation() {
        let (id, other) = (Id::upload(), Id::upload());
        let begin = RouteAccess::WRITE.or_token_to_begin_upload();
        let proceed = RouteAccess::WRITE.or_token_of_upload();
        assert!(begin.check_upload_token(&token(None), None).is_ok());
        assert!(begin.check_upload_token(&token(Some(&id)), None).is_err(), "redeemed");
        assert!(proceed.check_upload_token(&token(Some(&id)), Some(id.as_str())).is_ok());
        assert!(proceed.check_upload_token(&token(Some(&id)), Some(other.as_str())).is_err());
        assert!(proceed.check_upload_token(&token(None), Some(id.as_str())).is_err());
        assert!(RouteAccess::WRITE.check_upload_token(&token(None), None).is_err());
        assert!(RouteAccess::READ.check_upload_token(&token(Some(&id)), Some(id.as_str())).is_err());
    }

    #[test]
    fn the_openapi_security_follows_from_the_declaration() {
        assert!(RouteAccess::PUBLIC.security().is_empty());
        let security = serde_json::to_value(RouteAccess::WRITE.or_basic().security()).unwrap();
        assert_eq!(security, json!([{ "bearer": ["write"] }, { "basic": ["write"] }]));
        assert_eq!(RouteAccess::WRITE.or_token_of_upload().security().len(), 2);
    }
}
