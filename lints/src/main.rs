//! `spool-lints`: prints the findings, and fails if there are any. `--count` prints their number per file
//! instead.

use std::{collections::BTreeMap, env, path::Path, process::ExitCode};

use spool_lints::{Finding, Tree, architecture, prose};

fn main() -> ExitCode {
    let count = match env::args().nth(1).as_deref() {
        None => false,
        Some("--count") => true,
        Some(other) => {
            eprintln!("unknown argument {other}; usage: spool-lints [--count]");
            return ExitCode::from(2);
        }
    };
    // Cargo sets the variable when it runs the binary: a target folder may serve several checkouts.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| "lints".into());
    let root = Path::new(&package).join("..");
    let tree = match Tree::read(&root) {
        Ok(tree) => tree,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut findings = [architecture(&tree), prose(&tree)].concat();
    findings.sort();
    if count {
        print_counts(&findings);
    } else {
        for finding in &findings {
            println!("{finding}");
        }
    }
    if findings.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("{} findings; CONTRIBUTING.md has the rules", findings.len());
    ExitCode::FAILURE
}

fn print_counts(findings: &[Finding]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in findings {
        *counts.entry(&finding.file).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(file, count)| (std::cmp::Reverse(*count), *file));
    for (file, count) in counts {
        println!("{count:5} {file}");
    }
}
