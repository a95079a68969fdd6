//! The repository in which the tests run.

use std::{env, path::PathBuf};

/// Returns the root of the checkout.
///
/// It is read when the test runs, not when it is compiled: a target folder may serve several checkouts.
///
/// # Panics
/// If the test was not started by cargo or nextest, which set `CARGO_MANIFEST_DIR`.
pub fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").expect("cargo or nextest starts the tests");
    PathBuf::from(package).join("..")
}
