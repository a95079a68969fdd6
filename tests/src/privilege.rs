//! Privileges that some tests need. A test without one of them fails, unless it may be skipped visibly.

use std::{env, fs::OpenOptions, io::Write};

/// Variable that lets tests without their privilege be skipped.
const SKIP: &str = "SPOOL_TEST_SKIP_PRIVILEGED";

/// List of the skipped tests, which `make test` prints at its end: a runner hides the output of tests that
/// pass.
const SKIPPED: &str = "skipped-tests";

/// A privilege that the process lacks, and the reason.
#[derive(Debug)]
pub struct Missing(pub String);

/// Returns the resource that a test obtained with a privilege; `None` if the test is to be skipped.
///
/// # Panics
/// If the privilege is missing, unless `SPOOL_TEST_SKIP_PRIVILEGED` is `1`.
pub fn require<T>(obtained: Result<T, Missing>) -> Option<T> {
    let Missing(reason) = match obtained {
        Ok(resource) => return Some(resource),
        Err(missing) => missing,
    };
    assert!(
        env::var_os(SKIP).is_some_and(|value| value == "1"),
        "{reason}; run the tests as root (a container needs --privileged), or set {SKIP}=1 to skip this one"
    );
    let thread = std::thread::current();
    let line = format!("skipped: {}: {reason}\n", thread.name().unwrap_or("a test"));
    eprint!("{line}");
    let list = crate::repository::root().join(".cache").join(SKIPPED);
    std::fs::create_dir_all(list.parent().unwrap()).unwrap();
    OpenOptions::new().create(true).append(true).open(list).unwrap().write_all(line.as_bytes()).unwrap();
    None
}
