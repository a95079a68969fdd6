//! Sources: which tracks a video has, where their frames and bytes are, and the parts of it that a row reads.

pub mod index;
pub(crate) mod language;
pub mod listing;
pub mod probe;
pub mod source_cache;
pub mod window;
