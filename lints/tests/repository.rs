//! The repository keeps its own rules.
#![allow(clippy::expect_used, reason = "a test's helper fails the test")]

use std::path::Path;

use spool_lints::{Finding, Tree, architecture, prose};

/// Fails with the findings, where there are any.
fn expect_none(findings: Vec<Finding>) {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} findings; CONTRIBUTING.md has the rules:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

fn repository() -> Tree {
    let tree = Tree::read(&Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join(".."))
        .expect("git lists the files");
    assert!(tree.text("Cargo.toml").is_some());
    tree
}

#[test]
fn imports_follow_the_architecture() {
    expect_none(architecture(&repository()));
}

#[test]
fn prose_follows_the_rules() {
    expect_none(prose(&repository()));
}
