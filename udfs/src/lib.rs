//! SQL functions: one file per function, and the session that every role uses.

pub mod control;
pub mod cooperative;
pub mod error;
pub mod options;
mod schema;
pub mod value;

pub mod functions;
pub mod guard;
pub mod reference;
pub mod session;
pub mod tenant_guard;
