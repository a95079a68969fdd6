//! The video domain: how a video is cut, encoded in pieces and put together again, exactly.
//!
//! No Arrow and no DataFusion here. Planning, argument lists, packaging and playlist text are pure; effects live at the rim:
//! `spool_storage` is the one place that talks to an object store, [`ffmpeg`] the one place that starts processes.

mod error;
pub mod time;
pub mod timing;

pub mod grid;
pub mod index;
pub mod label;
pub mod ladder;
pub mod limits;
pub mod probe;
pub mod segments;

pub mod catalog;
pub mod cost;
pub mod machine;
pub mod plan;
pub mod samples;
pub mod titles;

pub mod cmaf;
pub mod ffmpeg;
pub mod parts;
pub mod records;
pub mod transcode;
pub mod window;

pub mod live;
pub mod merge;
pub mod playlists;
pub mod publish;
pub mod sweep;

pub use error::{Error, Result};
