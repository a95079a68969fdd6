//! Background work of a server: webhook delivery, and deletion of what is no longer needed. Each worker is a
//! lease loop.

pub(crate) mod cleanup;
pub(crate) mod lease_loop;
pub(crate) mod webhook_delivery;
