//! Messages between scheduler, executors and clients, beside Ballista's own.
//!
//! `proto/` defines the messages. The modules make calls, check their tokens, and convert the events of rows.

mod channel;
mod events;

pub use channel::{Connection, authenticate, connect};
pub use events::InvalidEvent;

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
