//! The SQL surface: one file per function, and the one session that every role uses.

pub mod control;
pub mod error;
pub mod options;
pub mod value;

mod confined;
pub mod functions;
pub mod guard;
pub mod reference;
pub mod session;
