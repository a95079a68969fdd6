//! `SqlStore`: all stores in one database: SQLite for one host, PostgreSQL for several. Both run the same
//! statements.
//!
//! `dialect`, `codec`, `pool` and `lease` are shared by the other files, each of which has the statements of
//! one store.

mod columns;
mod dialect;
mod lease_table;
mod pool;

mod cleanup;
mod credentials;
mod events;
mod job_leases;
mod job_store;
mod jobs;
mod read;
mod tenants;
mod uploads;
mod watches;
mod webhooks;

pub use pool::SqlStore;
pub use tenants::check_tenant_name;
