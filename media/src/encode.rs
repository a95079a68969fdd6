//! Encoding of one row, from its source's samples to committed part records.

pub mod encode_segment;
pub mod events;
pub mod timing;
pub mod worker;
