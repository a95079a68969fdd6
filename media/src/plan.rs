//! Planning: the frame grid, the cuts, the ladder, and FFmpeg's arguments for each row.
//!
//! Pure, except [`timeline`], which caches the grids of open sources, and [`input`], which fetches a row's
//! samples.

pub mod args;
pub mod audio_label;
pub mod deinterlace;
pub mod grid;
pub mod input;
pub mod ladder;
pub mod rows;
pub mod segments;
pub mod timeline;
