//! The executors of a scheduler: which are connected, which rows they get, and where their events go.

pub(crate) mod registry;

pub(crate) mod event_router;
pub(crate) mod placement;
pub(crate) mod service;
