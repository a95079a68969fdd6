//! The video domain: cuts a source into segments, encodes them, and joins the parts exactly.
//!
//! No Arrow and no DataFusion here. Planning, argument lists, packaging and playlist text are pure.
//! `spool_storage` alone talks to object stores, and [`ffmpeg`] alone starts processes.
//!
//! Rooms, from the ground up; no module imports from a room above its own (`lints/src/architecture.rs`):
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
