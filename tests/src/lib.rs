//! Whole-system tests: real processes, real FFmpeg, a real S3 protocol.
//!
//! The tests are in `tests/tests`, one file per promise; this crate holds what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]
#![expect(clippy::disallowed_methods, reason = "whole-system tests start the processes that they test")]

pub mod check;
pub mod client;
pub mod clips;
pub mod cluster;
pub mod deployment;
pub mod ffmpeg_wrapper;
pub mod folder;
pub mod footage;
pub mod load_balancer;
pub mod moto;
pub mod mount;
pub mod postgres;
pub mod privilege;
pub mod random;
pub mod repository;
pub mod run;
pub mod s3;
pub mod serve;
pub mod slt;
pub mod sources;
pub mod web;
