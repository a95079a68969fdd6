//! Background work of a server: webhook delivery and cleanup. Each worker is a lease loop.

pub(crate) mod cleanup;
pub(crate) mod lease_loop;
pub(crate) mod webhook_delivery;
