//! The video domain: how a video is cut, encoded in pieces and put together again, exactly.
//!
//! No Arrow and no DataFusion here. Planning, argument lists, packaging and playlist text are pure; effects
//! live at the rim: `spool_storage` is the one place that talks to an object store, [`ffmpeg`] the one place
//! that starts processes.
//!
//! Rooms, from the ground up; no module imports from a room above its own (`tests/tests/architecture.rs`):
//! `time`, [`codec`], [`limits`], [`ffmpeg`], [`environment`] < [`source`] < [`plan`] < [`listing`],
//! [`predict`] < [`package`] < [`encode`].

mod error;
pub mod time;

pub mod codec;
pub mod limits;

pub mod ffmpeg;

pub mod environment;

pub mod source;

pub mod plan;

pub mod listing;

pub mod predict;

pub mod package;

pub mod encode;

pub use error::{Error, Result};
