//! Length of lines in code and prose.

use crate::{Finding, Tree};

/// Most characters in a line; `rustfmt.toml` says the same of code.
pub const MAX_COLUMNS: usize = 110;

/// Documents that a program writes.
const GENERATED: [&str; 2] = ["docs/functions.md", "docs/sources.md"];

/// Returns the comments of Rust and the lines of Markdown that are too long. Tables and addresses do not
/// count, since they cannot be broken; code is for rustfmt, which leaves literals and the bodies of macros
/// alone.
pub fn columns(tree: &Tree) -> Vec<Finding> {
    let prose = |name: &str| name.ends_with(".rs") || (name.ends_with(".md") && !GENERATED.contains(&name));
    let files = tree.files().filter(|(name, _)| prose(name) && !name.starts_with("workspace-hack/"));
    files.flat_map(|(name, text)| in_text(name, text)).collect()
}

fn in_text(name: &str, text: &str) -> Vec<Finding> {
    let code = |line: &str| name.ends_with(".rs") && !line.trim_start().starts_with("//");
    let mut fenced = false;
    let long = |(_, line): &(usize, &str)| {
        fenced ^= line.starts_with("```");
        counted(line) > MAX_COLUMNS && !code(line) && !fenced
    };
    let lines = (1..).zip(text.lines()).filter(long);
    lines
        .map(|(line, text)| Finding {
            file: name.to_owned(),
            line,
            message: format!("{} columns, at most {MAX_COLUMNS} allowed", counted(text)),
        })
        .collect()
}

/// Characters of a line that count: none of a table's, and none of an address.
fn counted(line: &str) -> usize {
    let text = line.trim_start_matches(|char: char| char.is_whitespace() || matches!(char, '/' | '!'));
    if text.starts_with('|') {
        return 0;
    }
    let addresses = line.split_whitespace().filter(|word| word.contains("://"));
    line.chars().count() - addresses.map(|word| word.chars().count()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_found() {
        let [fits, long] = [MAX_COLUMNS, MAX_COLUMNS + 1].map(|columns| "é".repeat(columns - 3));
        let text = format!("// {fits}\n// {long}\n");
        let tree = Tree::of([("a.rs", text.as_str()), ("b.md", &text), ("c.py", &text)]);
        let findings = columns(&tree);
        let places: Vec<_> = findings.iter().map(|finding| (finding.file.as_str(), finding.line)).collect();
        assert_eq!(places, [("a.rs", 2), ("b.md", 2)]);
    }

    #[test]
    fn code_does_not_count() {
        let word = "a".repeat(MAX_COLUMNS);
        let code = format!("let sql = \"{word}\";\n");
        let comment = format!("// The word \"{word}\".\n");
        let tree = Tree::of([("a.rs", code.as_str()), ("b.rs", &comment), ("c.md", &code)]);
        let files: Vec<_> = columns(&tree).into_iter().map(|finding| finding.file).collect();
        assert_eq!(files, ["b.rs", "c.md"]);
    }

    #[test]
    fn tables_and_addresses_do_not_count() {
        let word = "a".repeat(MAX_COLUMNS);
        let text = format!("| {word} |\n/// | {word} |\nSee https://{word} there.\n");
        assert!(columns(&Tree::of([("a.rs", text.as_str())])).is_empty());
    }
}
