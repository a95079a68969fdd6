//! Prediction of a row's cost, fitted to the rows that were encoded before and to encoded samples of the
//! source.

pub mod complexity;
pub mod cost_model;
pub mod features;
pub(crate) mod sampling;
