//! Checks of the source text that neither rustc nor clippy makes: which file may import which, and how prose
//! is written.
//!
//! Every check is a pure function of a [`Tree`], so that each rule is tested on made files that break it.

mod architecture;
mod columns;
mod crates;
mod glossary;
mod modules;
mod openapi;
mod syntax;
mod tree;
mod words;

use std::fmt;

pub use architecture::{
    CRATE_FLOORS, MAX_CIRCLE_FILES, ROOM_FLOORS, crate_floors, import_circles, room_floors,
};
pub use columns::{MAX_COLUMNS, columns};
pub use glossary::glossary;
pub use openapi::{MIN_DESCRIPTION_CHARS, openapi};
pub use tree::{Error, Tree};
pub use words::words;

/// One place that breaks one rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path of the file, from the root of the repository.
    pub file: String,
    /// Line number, from 1; 0 for the file as a whole.
    pub line: usize,
    /// The rule that is broken, and how.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// Returns the findings about imports: circles of files, floors of rooms, floors of crates.
pub fn architecture(tree: &Tree) -> Vec<Finding> {
    [import_circles(tree), room_floors(tree, ROOM_FLOORS), crate_floors(tree, CRATE_FLOORS)].concat()
}

/// Returns the findings about prose: words, columns, OpenAPI, glossary.
pub fn prose(tree: &Tree) -> Vec<Finding> {
    [words(tree), columns(tree), openapi(tree), glossary(tree)].concat()
}
