//! Messages between scheduler, executors and clients, beside Ballista's own.
//!
//! `proto/` defines the messages. The modules make calls, check their tokens, and convert the events of rows.

mod channel;
mod events;
mod in_process;

pub use channel::{Address, Connection, authenticate, connect, reason};
pub use events::InvalidEvent;
pub use in_process::{InProcess, Incoming, in_process};

/// Spool's own services.
#[expect(missing_docs, reason = "generated; documented in proto/spool.proto")]
pub mod v1 {
    tonic::include_proto!("spool.v1");
}

/// KEDA's protocol for external scalers.
#[expect(missing_docs, reason = "generated; documented by KEDA")]
pub mod keda {
    tonic::include_proto!("externalscaler");
}
