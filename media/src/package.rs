//! Packaging: CMAF media segments, playlists, part records, the merge of parts, publishing and garbage
//! collection.

pub mod cmaf;
pub mod early_playback;
pub mod gc;
pub mod merge;
pub mod part_store;
pub mod parts;
pub mod playlists;
pub mod publish;
