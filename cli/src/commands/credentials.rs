//! `spool keys` and `spool tenants`: API keys, and the allowed prefixes and quotas of tenants.

use std::time::Duration;

use comfy_table::Cell;
use serde_json::{Value, json};
use spool_jobs::{ApiKey, CredentialStore, Id, NewApiKey, Scope, SqlStore, TenantPolicy};

use crate::{
    args::{
        DatabaseArgs, KeyCreateArgs, KeyListArgs, KeyRevokeArgs, KeysCommand, OutputFormat, TenantSetArgs,
        TenantsCommand,
    },
    error::CliError,
    output,
};

const SECONDS_PER_DAY: u64 = 24 * 3600;

pub async fn keys(command: KeysCommand) -> Result<(), CliError> {
    match command {
        KeysCommand::Create(args) => create(args).await,
        KeysCommand::Ls(KeyListArgs { tenant, database }) => {
            let keys = open(&database).await?.keys(&tenant).await?;
            print_keys(&keys, database.output)
        }
        KeysCommand::Revoke(KeyRevokeArgs { id, tenant, database }) => {
            let key = open(&database).await?.revoke_key(&tenant, &Id::from_text(id)).await?;
            print_keys(&[key], database.output)
        }
    }
}

async fn create(args: KeyCreateArgs) -> Result<(), CliError> {
    let KeyCreateArgs { tenant, name, scopes, expires_days, database } = args;
    let scopes = if scopes.is_empty() { vec![Scope::Read, Scope::Write] } else { scopes };
    let valid_for = expires_days.map(|days| Duration::from_secs(days * SECONDS_PER_DAY));
    let new_key = NewApiKey { tenant, name, scopes, valid_for };
    let (key, secret) = open(&database).await?.create_key(&new_key).await?;
    if database.output == OutputFormat::Json {
        let mut document = as_json(&key);
        document["token"] = secret.into();
        return output::print_json(&document);
    }
    // Only the secret is on stdout, for scripts.
    eprintln!(
        "{} of tenant {}, with the scopes {}; its secret is shown only now:",
        key.id,
        key.tenant,
        scope_names(&key)
    );
    output::print(&secret)
}

pub async fn tenants(command: TenantsCommand) -> Result<(), CliError> {
    match command {
        TenantsCommand::Ls(database) => print_tenants(&database).await,
        TenantsCommand::Set(args) => {
            let TenantSetArgs {
                tenant,
                sources,
                destinations,
                jobs,
                upload_bytes,
                requests_per_minute,
                database,
            } = args;
            let policy = TenantPolicy { sources, destinations, jobs, upload_bytes, requests_per_minute };
            open(&database).await?.set_policy(&tenant, &policy).await?;
            print_tenants(&database).await
        }
    }
}

async fn open(args: &DatabaseArgs) -> Result<SqlStore, CliError> {
    Ok(SqlStore::open(&args.database).await?)
}

fn scope_names(key: &ApiKey) -> String {
    key.scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn as_json(key: &ApiKey) -> Value {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| (*scope).into()).collect();
    json!({
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": scopes,
        "created_ms": key.created_ms,
        "expires_ms": key.expires_ms,
        "revoked_ms": key.revoked_ms,
        "used_ms": key.used_ms,
    })
}

fn print_keys(keys: &[ApiKey], format: OutputFormat) -> Result<(), CliError> {
    if format == OutputFormat::Json {
        return output::print_json(&Value::Array(keys.iter().map(as_json).collect()));
    }
    let mut table = output::table(&["key", "name", "scopes", "state"]);
    for key in keys {
        let state = match (key.revoked_ms, key.used_ms) {
            (Some(_), _) => "revoked",
            (None, Some(_)) => "used",
            (None, None) => "never used",
        };
        table.add_row([
            Cell::new(&key.id),
            Cell::new(&key.name),
            Cell::new(scope_names(key)),
            Cell::new(state),
        ]);
    }
    output::print(&table.to_string())
}

async fn print_tenants(database: &DatabaseArgs) -> Result<(), CliError> {
    let tenants = open(database).await?.tenants().await?;
    if database.output == OutputFormat::Json {
        let all =
            tenants.iter().map(|tenant| json!({ "tenant": tenant.id, "policy": tenant.policy })).collect();
        return output::print_json(&Value::Array(all));
    }
    let mut table = output::table(&[
        "tenant",
        "may read",
        "may publish to",
        "jobs",
        "upload bytes",
        "requests per minute",
    ]);
    let limit = |limit: Option<u64>| {
        Cell::new(limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string()))
    };
    for tenant in &tenants {
        let TenantPolicy { sources, destinations, jobs, upload_bytes, requests_per_minute } = &tenant.policy;
        table.add_row([
            Cell::new(&tenant.id),
            Cell::new(sources.join("\n")),
            Cell::new(destinations.join("\n")),
            limit(*jobs),
            limit(*upload_bytes),
            limit(Some(requests_per_minute.unwrap_or(spool_server::REQUESTS_A_MINUTE).into())),
        ]);
    }
    output::print(&table.to_string())
}
