//! Path policies: the prefixes under which a tenant's jobs may read, publish and delete.

use std::sync::Arc;

use spool_jobs::{CredentialStore, Watch};
use spool_storage::path_policy::PathPolicy;

use crate::{
    auth::{authenticate::AuthMode, principal::Principal},
    problem::Problem,
};

/// Derives the path policies of jobs from the policies of their tenants.
#[derive(Clone)]
pub(crate) struct PathPolicies {
    mode: AuthMode,
    credentials: Arc<dyn CredentialStore>,
    /// Prefix of all uploads.
    uploads: Arc<str>,
    /// Prefix below which videos without a destination are published.
    media_root: Option<Arc<str>>,
}

impl PathPolicies {
    pub(crate) fn new(
        mode: AuthMode,
        credentials: Arc<dyn CredentialStore>,
        uploads: &str,
        media_root: Option<&str>,
    ) -> Self {
        Self { mode, credentials, uploads: Arc::from(uploads), media_root: media_root.map(Arc::from) }
    }

    /// Returns the path policy of a principal's jobs; `None` if every path is allowed.
    pub(crate) async fn of_principal(&self, principal: &Principal) -> Result<Option<PathPolicy>, Problem> {
        if !principal.has_path_policy {
            return Ok(None);
        }
        Ok(Some(self.of_tenant(&principal.tenant).await?))
    }

    /// Returns the path policy of a watch's jobs: that of the tenant, and the watched prefix.
    pub(crate) async fn of_watch(&self, watch: &Watch) -> Result<Option<PathPolicy>, Problem> {
        if self.mode == AuthMode::None {
            return Ok(None);
        }
        let mut policy = self.of_tenant(&watch.tenant).await?;
        allow_watched(&mut policy, &watch.prefix);
        Ok(Some(policy))
    }

    /// Returns the tenant's uploads, the prefixes of its policy, and below the media root one folder per
    /// video.
    async fn of_tenant(&self, tenant: &str) -> Result<PathPolicy, Problem> {
        let policy = self.credentials.policy(tenant).await?;
        let uploads = format!("{}/{tenant}/", self.uploads.trim_end_matches('/'));
        let videos = self.media_root.as_deref().map(|media_root| {
            format!("{}/{}/", media_root.trim_end_matches('/'), spool_jobs::VIDEO_PLACEHOLDER)
        });
        Ok(PathPolicy {
            read: policy.sources.into_iter().chain([uploads.clone()]).collect(),
            write: policy.destinations.into_iter().chain(videos).collect(),
            delete: vec![uploads],
        })
    }
}

/// Allows jobs to read and delete objects below a watched prefix.
pub(crate) fn allow_watched(policy: &mut PathPolicy, prefix: &str) {
    policy.read.push(prefix.to_owned());
    policy.delete.push(prefix.to_owned());
}
