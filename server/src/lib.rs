//! The HTTP API: stores jobs and uploads, returns the contents of the store, and plays published videos. A
//! server keeps no state of its own: each of several servers can answer any request.

mod app_state;
mod connections;
mod documents;
mod problem;
mod server;

mod auth;
mod background;
mod ingest;
mod query;
mod routes;
mod uploads;

pub use auth::authenticate::AuthMode;
pub use auth::oidc::Oidc;
pub use auth::rate_limit::REQUESTS_A_MINUTE;
pub use background::webhook_delivery::WebhookTargets;
pub use ingest::sqs::check_queue;
pub use ingest::watcher::check_job_document;
pub use routes::openapi;
pub use server::{Error, Server, Settings};
