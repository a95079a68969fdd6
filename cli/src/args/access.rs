//! Flags of who may ask a server, and of whoever says who may.

use clap::{Args, Subcommand, ValueEnum};

use super::{Format, Web};

/// Who has to show what.
#[derive(Debug, Clone, Args)]
pub struct Entry {
    /// Who may ask: whoever is on this machine, which nobody else reaches then, or whoever brings a key.
    #[arg(long, env = "SPOOL_ACCESS", value_enum, default_value_t = Access::Local)]
    pub access: Access,
    /// An identity provider whose tokens (JWT) are taken beside keys: their `scope` holds spool:read, spool:write or spool:keys.
    #[arg(long, env = "SPOOL_OIDC_ISSUER", value_name = "URL", requires = "oidc_audience")]
    pub oidc_issuer: Option<String>,
    /// For whom a token of the identity provider has to be (`aud`).
    #[arg(long, env = "SPOOL_OIDC_AUDIENCE", value_name = "AUDIENCE")]
    pub oidc_audience: Option<String>,
    /// Whom webhooks reach: anybody, or only public addresses. Public where keys are wanted, unless given.
    #[arg(long, env = "SPOOL_WEBHOOKS", value_enum)]
    pub webhooks: Option<Web>,
    /// The claim that names the tenant.
    #[arg(long, env = "SPOOL_OIDC_TENANT_CLAIM", value_name = "CLAIM", default_value = "tenant")]
    pub oidc_tenant_claim: String,
}

impl Entry {
    /// The same, as the server has it.
    pub fn entry(&self) -> spool_server::AuthMode {
        match self.access {
            Access::Local => spool_server::AuthMode::None,
            Access::Keys => spool_server::AuthMode::Keys,
        }
    }

    /// Whom webhooks reach.
    pub fn reach(&self) -> spool_server::WebhookTargets {
        match (self.webhooks, self.access) {
            (Some(Web::Any), _) | (None, Access::Local) => spool_server::WebhookTargets::Any,
            (Some(Web::Public), _) | (None, Access::Keys) => spool_server::WebhookTargets::Public,
        }
    }

    /// The identity provider, if there is one.
    pub fn oidc(&self) -> Option<spool_server::Oidc> {
        let (issuer, audience) = (self.oidc_issuer.clone()?, self.oidc_audience.clone()?);
        Some(spool_server::Oidc { issuer, audience, tenant_claim: self.oidc_tenant_claim.clone() })
    }
}

/// Who may ask a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Access {
    /// Whoever is on this machine, for anything.
    Local,
    /// Whoever brings a key, for what it opens.
    Keys,
}

/// The store that says who may ask.
#[derive(Debug, Args)]
pub struct Kept {
    /// Where jobs and keys are kept: postgres://USER@HOST/DATABASE, or a file of SQLite.
    #[arg(long, env = "SPOOL_STORE", value_name = "STORE", hide_env_values = true)]
    pub store: String,
    /// How the result is printed on stdout.
    #[arg(long, env = "SPOOL_OUTPUT", value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a key, and print what its owner shows: it is never shown again.
    Create(KeyCreate),
    /// List a tenant's keys, the newest first.
    Ls(KeyList),
    /// Have a key open nothing from now on.
    Revoke(KeyRevoke),
}

#[derive(Debug, Args)]
pub struct KeyCreate {
    /// Whose jobs it opens. The tenant is made where there is none of this name.
    #[arg(long, value_name = "TENANT", default_value = "default")]
    pub tenant: String,
    /// Its name for people.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub name: String,
    /// What it opens: read (see and play), write (upload, ask for jobs), keys (make more of them). Read and write unless given.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<spool_jobs::Scope>,
    /// How long it is good; until it is revoked unless given.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub expires_days: Option<u64>,
    #[command(flatten)]
    pub kept: Kept,
}

#[derive(Debug, Args)]
pub struct KeyList {
    /// Whose keys.
    #[arg(long, value_name = "TENANT", default_value = "default")]
    pub tenant: String,
    #[command(flatten)]
    pub kept: Kept,
}

#[derive(Debug, Args)]
pub struct KeyRevoke {
    /// The key's name in the store: key_…
    pub id: String,
    /// Whose key.
    #[arg(long, value_name = "TENANT", default_value = "default")]
    pub tenant: String,
    #[command(flatten)]
    pub kept: Kept,
}

#[derive(Debug, Subcommand)]
pub enum Tenants {
    /// List tenants, and what each may do.
    Ls(Kept),
    /// Say what a tenant may do. What is not given here is as if it had never been said.
    Set(TenantSet),
}

#[derive(Debug, Args)]
pub struct TenantSet {
    /// The tenant. It is made where there is none of this name.
    pub tenant: String,
    /// Prefix of what its jobs may read, beside its own uploads: s3://in/acme/, or https:// for all of the web.
    #[arg(long = "source", value_name = "PREFIX")]
    pub sources: Vec<String>,
    /// Prefix of where its jobs may publish, beside where the server keeps videos.
    #[arg(long = "destination", value_name = "PREFIX")]
    pub destinations: Vec<String>,
    /// Jobs at a time that wait or run.
    #[arg(long, value_name = "N")]
    pub jobs: Option<u64>,
    /// Bytes of uploads that are kept.
    #[arg(long, value_name = "BYTES")]
    pub upload_bytes: Option<u64>,
    /// Requests a minute, of each server; 1200 unless given.
    #[arg(long, value_name = "N")]
    pub requests_per_minute: Option<u32>,
    #[command(flatten)]
    pub kept: Kept,
}
