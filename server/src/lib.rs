//! The HTTP door: what is asked for goes into the store, what is in the store is shown, and what was published is played. It holds
//! nothing of its own: any of several servers answers any request.

mod connections;
mod problem;
mod service;

mod body;
mod guard;
mod links;
mod oidc;
mod rates;
mod shown;

mod checksum;
mod intake;
mod multipart;

mod arrivals;
mod notice;
mod queue;

mod outbox;
mod sources;

mod sql;
mod tables;

mod routes;

pub use arrivals::check_document;
pub use guard::Entry;
pub use oidc::Oidc;
pub use outbox::Reach;
pub use queue::check_queue;
pub use rates::REQUESTS_A_MINUTE;
pub use routes::openapi;
pub use service::{Error, Server, Settings};
