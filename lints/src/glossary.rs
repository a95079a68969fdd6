//! `docs/glossary.md` names the code that carries each word: the names must exist.

use crate::{Finding, Tree, crates::crates, syntax};

const GLOSSARY: &str = "docs/glossary.md";

/// Returns the names in the glossary's last column that the named crate does not define.
///
/// A row ends with the crate's folder and a path in it, both in backticks: `media` `plan::grid`. The last
/// segment is a module or an item.
pub fn glossary(tree: &Tree) -> Vec<Finding> {
    let text = tree.text(GLOSSARY).unwrap_or_default();
    let folders: Vec<String> = crates(tree).iter().map(|found| found.folder().to_owned()).collect();
    let mut findings = Vec::new();
    for (line, row) in (1..).zip(text.lines()) {
        let Some(cell) = row.strip_suffix(" |").and_then(|row| row.rsplit("| ").next()) else { continue };
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        let &[folder, path] = &names[..] else { continue };
        if folders.iter().any(|known| known == folder) && !defines(tree, folder, path) {
            let message = format!("crate `{folder}` defines no `{path}`");
            findings.push(Finding { file: GLOSSARY.to_owned(), line, message });
        }
    }
    findings
}

fn defines(tree: &Tree, folder: &str, path: &str) -> bool {
    let module = format!("{folder}/src/{}", path.replace("::", "/"));
    let proto = format!("{folder}/proto/");
    let name = path.rsplit("::").next().unwrap_or(path);
    tree.files().any(|(file, text)| {
        file == format!("{module}.rs")
            || file == format!("{module}/mod.rs")
            || (file.starts_with(&format!("{folder}/src/"))
                && file.ends_with(".rs")
                && syntax::scan(text).items.contains(name))
            || (file.starts_with(&proto) && [" {", "{"].iter().any(|end| defines_message(text, name, end)))
    })
}

fn defines_message(text: &str, name: &str, end: &str) -> bool {
    ["message", "service"].iter().any(|kind| text.contains(&format!("{kind} {name}{end}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_crate_defines_are_found() {
        let rows = "| a | A | `media` `plan::grid` |\n| b | B | `media` `Grid` |\n\
                    | c | C | `media` `Gone` |\n| d | D | `wire` `Heartbeat` |\n| `x` | `y` | reason |\n";
        let tree = Tree::of([
            (GLOSSARY, rows),
            ("media/Cargo.toml", "[package]\nname = \"spool-media\""),
            ("media/src/plan/grid.rs", "pub struct Grid;"),
            ("wire/Cargo.toml", "[package]\nname = \"spool-wire\""),
            ("wire/proto/spool.proto", "message Heartbeat {}"),
        ]);
        let findings = glossary(&tree);
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [3], "{findings:?}");
    }
}
