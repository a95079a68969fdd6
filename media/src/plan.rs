//! Planning: the frame grid, the cuts, the ladder, and FFmpeg's arguments for each row. Pure.

pub mod args;
pub mod audio_label;
pub mod deinterlace;
pub mod grid;
pub mod ladder;
pub mod rows;
pub mod segments;
