//! Flags of authentication, and of `spool keys` and `spool tenants`, which administer it.

use clap::{Args, Subcommand, ValueEnum};

use super::{NetworkReach, OutputFormat};

/// Authentication of requests to the API.
#[derive(Debug, Clone, Args)]
pub struct AuthArgs {
    /// Authentication that requests need.
    #[arg(long, env = "SPOOL_AUTH", value_name = "MODE", value_enum, default_value_t = AuthMode::None)]
    pub auth: AuthMode,
    /// Issuer of OpenID Connect access tokens (JWT), which are then accepted like API keys. Their `scope`
    /// claim holds spool:read, spool:write or spool:keys.
    #[arg(long, env = "SPOOL_OIDC_ISSUER", value_name = "URL", requires = "oidc_audience")]
    pub oidc_issuer: Option<String>,
    /// Audience (`aud` claim) that access tokens must have.
    #[arg(long, env = "SPOOL_OIDC_AUDIENCE", value_name = "AUDIENCE")]
    pub oidc_audience: Option<String>,
    /// Claim of access tokens that names the tenant.
    #[arg(long, env = "SPOOL_OIDC_TENANT_CLAIM", value_name = "CLAIM", default_value = "tenant")]
    pub oidc_tenant_claim: String,
    /// Addresses that webhooks may be sent to. Default: public with --auth keys, else any.
    #[arg(long, env = "SPOOL_WEBHOOK_TARGETS", value_name = "REACH", value_enum)]
    pub webhook_targets: Option<NetworkReach>,
}

impl AuthArgs {
    /// Returns the authentication mode as the server takes it.
    pub fn mode(&self) -> spool_server::AuthMode {
        match self.auth {
            AuthMode::None => spool_server::AuthMode::None,
            AuthMode::Keys => spool_server::AuthMode::Keys,
        }
    }

    /// Returns the addresses that webhooks may be sent to.
    pub fn webhook_targets(&self) -> spool_server::WebhookTargets {
        match (self.webhook_targets, self.auth) {
            (Some(NetworkReach::Any), _) | (None, AuthMode::None) => spool_server::WebhookTargets::Any,
            (Some(NetworkReach::Public), _) | (None, AuthMode::Keys) => spool_server::WebhookTargets::Public,
        }
    }

    /// Returns the identity provider, if one is configured.
    pub fn oidc(&self) -> Option<spool_server::Oidc> {
        let (issuer, audience) = (self.oidc_issuer.clone()?, self.oidc_audience.clone()?);
        Some(spool_server::Oidc { issuer, audience, tenant_claim: self.oidc_tenant_claim.clone() })
    }
}

/// Authentication that requests to the API need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    /// No credential. The API must listen on a loopback address.
    None,
    /// An API key or an access token, whose scopes and tenant decide what the request may do.
    Keys,
}

/// Database to administer, and the format of results.
#[derive(Debug, Args)]
pub struct DatabaseArgs {
    /// Database of jobs and keys: postgres://USER@HOST/DATABASE, or an SQLite file.
    #[arg(long, env = "SPOOL_DATABASE", value_name = "DATABASE", hide_env_values = true)]
    pub database: String,
    /// Format of the result on stdout.
    #[arg(
        long,
        env = "SPOOL_OUTPUT",
        value_name = "FORMAT",
        value_enum,
        default_value_t = OutputFormat::Table
    )]
    pub output: OutputFormat,
}

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Create a key and print its secret, which is not stored and cannot be shown again.
    Create(KeyCreateArgs),
    /// List the keys of a tenant, newest first.
    Ls(KeyListArgs),
    /// Revoke a key.
    Revoke(KeyRevokeArgs),
}

#[derive(Debug, Args)]
pub struct KeyCreateArgs {
    /// Tenant that the key belongs to; created if missing.
    #[arg(long, value_name = "TENANT", default_value = "default")]
    pub tenant: String,
    /// Description of the key, for people.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub name: String,
    /// Scope of the key: read (list and play), write (upload and submit jobs) or keys (create keys). May be
    /// repeated. Default: read and write.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<spool_jobs::Scope>,
    /// Days until the key expires. Default: it does not expire.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub expires_days: Option<u64>,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub struct KeyListArgs {
    /// Tenant whose keys to list.
    #[arg(long, value_name = "TENANT", default_value = "default")]
    pub tenant: String,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub struct KeyRevokeArgs {
    /// Identifier of the key, as `spool keys ls` lists it: key_…
    pub id: String,
    /// Tenant that the key belongs to.
    #[arg(long, value_name = "TENANT", default_value = "default")]
    pub tenant: String,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Debug, Subcommand)]
pub enum TenantsCommand {
    /// List tenants with their allowed prefixes and quotas.
    Ls(DatabaseArgs),
    /// Replace the allowed prefixes and quotas of a tenant. Omitted flags reset to their defaults.
    Set(TenantSetArgs),
}

#[derive(Debug, Args)]
pub struct TenantSetArgs {
    /// Tenant to set; created if missing.
    pub tenant: String,
    /// Prefix that jobs of the tenant may read, beside its own uploads: s3://in/acme/, or https:// for any
    /// web address. May be repeated. Default: its uploads only.
    #[arg(long = "source", value_name = "PREFIX")]
    pub sources: Vec<String>,
    /// Prefix that jobs of the tenant may publish to, beside the API's --media. May be repeated. Default:
    /// --media only.
    #[arg(long = "destination", value_name = "PREFIX")]
    pub destinations: Vec<String>,
    /// Most jobs that wait or run at once. Default: no limit.
    #[arg(long, value_name = "N")]
    pub jobs: Option<u64>,
    /// Most bytes of stored uploads. Default: no limit.
    #[arg(long, value_name = "BYTES")]
    pub upload_bytes: Option<u64>,
    /// Most requests per minute to each API process. Default: 1200.
    #[arg(long, value_name = "N")]
    pub requests_per_minute: Option<u32>,
    #[command(flatten)]
    pub database: DatabaseArgs,
}
