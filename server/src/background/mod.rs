//! Background work of a server: webhook delivery and deletion of what is no longer needed.

pub(crate) mod cleanup;
pub(crate) mod webhook_delivery;
