//! HTTP routes: the route table, one file of handlers per resource, and the layers around them.

mod api_router;
mod cors;
mod openapi;
mod route_table;
mod router;

mod extract;
mod pagination;

mod events;
mod health;
mod jobs;
mod keys;
mod metrics;
mod multipart;
mod page;
mod play;
mod s3_events;
mod sql;
mod tus;
mod upload_job;
mod upload_tokens;
mod uploads;
mod videos;
mod webhooks;

pub use openapi::openapi;
pub(crate) use router::router;
