//! `spool keys` and `spool tenants`: say who may ask a server, and for what.

use std::time::Duration;

use comfy_table::Cell;
use serde_json::{Value, json};
use spool_jobs::{Access, ApiKey, Id, NewKey, Policy, Scope, SqlStore};

use crate::{
    args::{Format, Kept, KeyCreate, KeyList, KeyRevoke, Keys, TenantSet, Tenants},
    exit::CliError,
    output,
};

pub async fn keys(command: Keys) -> Result<(), CliError> {
    match command {
        Keys::Create(args) => create(args).await,
        Keys::Ls(KeyList { tenant, kept }) => {
            let keys = open(&kept).await?.keys(&tenant).await?;
            show_keys(&kept, &keys)
        }
        Keys::Revoke(KeyRevoke { id, tenant, kept }) => {
            let key = open(&kept).await?.revoke_key(&tenant, &Id::from_text(id)).await?;
            show_keys(&kept, &[key])
        }
    }
}

async fn create(args: KeyCreate) -> Result<(), CliError> {
    let KeyCreate { tenant, name, scopes, expires_days, kept } = args;
    let scopes = if scopes.is_empty() { vec![Scope::Read, Scope::Write] } else { scopes };
    let valid_for = expires_days.map(|days| Duration::from_secs(days * 24 * 3600));
    let (key, token) = open(&kept).await?.create_key(&NewKey { tenant, name, scopes, valid_for }).await?;
    if kept.output == Format::Json {
        let Value::Object(mut shown) = as_json(&key) else { return Ok(()) };
        shown.insert("token".to_owned(), token.into());
        return output::print_json(&Value::Object(shown));
    }
    // On stdout what is used, and on stderr what is said of it.
    eprintln!("{} of tenant {}, which opens {}; this is shown once:", key.id, key.tenant, words(&key));
    output::print(&token)
}

pub async fn tenants(command: Tenants) -> Result<(), CliError> {
    match command {
        Tenants::Ls(kept) => show_tenants(&kept).await,
        Tenants::Set(TenantSet {
            tenant,
            sources,
            destinations,
            jobs,
            upload_bytes,
            requests_per_minute,
            kept,
        }) => {
            let policy = Policy { sources, destinations, jobs, upload_bytes, requests_per_minute };
            open(&kept).await?.set_policy(&tenant, &policy).await?;
            show_tenants(&kept).await
        }
    }
}

async fn open(kept: &Kept) -> Result<SqlStore, CliError> {
    Ok(SqlStore::open(&kept.store).await?)
}

fn words(key: &ApiKey) -> String {
    key.scopes.iter().map(|scope| scope.word()).collect::<Vec<_>>().join(", ")
}

fn as_json(key: &ApiKey) -> Value {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.word()).collect();
    json!({
        "id": key.id, "tenant": key.tenant, "name": key.name, "scopes": scopes, "created_ms": key.created_ms,
        "expires_ms": key.expires_ms, "revoked_ms": key.revoked_ms, "used_ms": key.used_ms,
    })
}

fn show_keys(kept: &Kept, keys: &[ApiKey]) -> Result<(), CliError> {
    if kept.output == Format::Json {
        return output::print_json(&Value::Array(keys.iter().map(as_json).collect()));
    }
    let mut table = output::table(&["key", "name", "opens", "state"]);
    for key in keys {
        let state = match (key.revoked_ms, key.used_ms) {
            (Some(_), _) => "revoked",
            (None, Some(_)) => "used",
            (None, None) => "never used",
        };
        table.add_row([Cell::new(&key.id), Cell::new(&key.name), Cell::new(words(key)), Cell::new(state)]);
    }
    output::print(&table.to_string())
}

async fn show_tenants(kept: &Kept) -> Result<(), CliError> {
    let tenants = open(kept).await?.tenants().await?;
    if kept.output == Format::Json {
        let all =
            tenants.iter().map(|tenant| json!({ "tenant": tenant.id, "policy": tenant.policy })).collect();
        return output::print_json(&Value::Array(all));
    }
    let mut table =
        output::table(&["tenant", "may read", "may publish to", "jobs", "upload bytes", "requests a minute"]);
    let limit =
        |limit: Option<u64>| Cell::new(limit.map_or_else(|| "any".to_owned(), |limit| limit.to_string()));
    for tenant in &tenants {
        let Policy { sources, destinations, jobs, upload_bytes, requests_per_minute } = &tenant.policy;
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
