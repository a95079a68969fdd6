//! What scheduler, executors and clients say to each other beside Ballista.
//!
//! The messages are in `proto/`; here is how a call is made and how the video domain's events travel.

mod channel;
mod events;

pub use channel::{Channel, authorized};
pub use events::BadEvent;

/// Spool's own services.
#[expect(missing_docs, reason = "generated; the words are in proto/spool.proto")]
pub mod v1 {
    tonic::include_proto!("spool.v1");
}

/// KEDA's protocol for external scalers.
#[expect(missing_docs, reason = "generated; the words are KEDA's")]
pub mod keda {
    tonic::include_proto!("externalscaler");
}
