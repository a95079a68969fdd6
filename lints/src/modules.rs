//! The module tree of a crate, and which files each file imports.
//!
//! An import counts toward the file that *defines* the name: re-exports (`pub use`) are followed, and do not
//! count as imports of the file that makes them. So a facade joins nothing that is apart. Names that a module
//! takes from its own children do not count either: they are its parts.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Tree,
    syntax::{self, Import, Syntax},
};

/// Re-exports that are followed from one name; a circle of globs ends there.
const MAX_HOPS: usize = 16;

/// Modules of one target of a crate: a library or a binary.
#[derive(Debug)]
pub(crate) struct Modules {
    modules: BTreeMap<Vec<String>, Module>,
}

#[derive(Debug)]
struct Module {
    file: String,
    syntax: Syntax,
}

/// One file of a crate that names what another defines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    /// Module of the importing file, such as `["routes", "jobs"]`; empty for the root.
    pub(crate) from: Vec<String>,
    /// Module of the file that defines the name.
    pub(crate) to: Vec<String>,
    /// The importing file.
    pub(crate) file: String,
    /// The file that defines the name.
    pub(crate) target: String,
    /// Line of the import.
    pub(crate) line: usize,
    /// The path as it is written.
    pub(crate) path: String,
}

/// Where a path leads.
enum Found {
    Module(Vec<String>),
    /// An item that the file of this module defines.
    Item(Vec<String>),
}

/// Returns the module trees of the crate in a folder, one for each target under `src/`.
pub(crate) fn targets(tree: &Tree, folder: &str) -> Vec<Modules> {
    let bins = format!("{folder}/src/bin/");
    let roots = [format!("{folder}/src/lib.rs"), format!("{folder}/src/main.rs")];
    let roots = roots.into_iter().filter(|root| tree.text(root).is_some());
    let bins =
        tree.files().map(|(name, _)| name).filter(|name| name.starts_with(&bins) && name.ends_with(".rs"));
    roots.chain(bins.map(str::to_owned)).map(|root| Modules::read(tree, &root)).collect()
}

impl Modules {
    fn read(tree: &Tree, root: &str) -> Self {
        let mut modules = BTreeMap::new();
        let mut open = vec![(Vec::new(), root.to_owned())];
        while let Some((path, file)) = open.pop() {
            let Some(text) = tree.text(&file) else { continue };
            let syntax = syntax::scan(text);
            let folder = children_folder(&file, path.is_empty());
            for name in &syntax.modules {
                let candidates = [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")];
                if let Some(file) = candidates.into_iter().find(|file| tree.text(file).is_some()) {
                    open.push(([path.as_slice(), std::slice::from_ref(name)].concat(), file));
                }
            }
            modules.insert(path, Module { file, syntax });
        }
        Self { modules }
    }

    /// Iterates over the modules, each with its file.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&[String], &str)> {
        self.modules.iter().map(|(path, module)| (path.as_slice(), module.file.as_str()))
    }

    /// Returns the imports between files, one for each pair of files.
    pub(crate) fn edges(&self) -> Vec<Edge> {
        let mut seen = BTreeSet::new();
        let mut edges = Vec::new();
        for (from, module) in &self.modules {
            let uses =
                module.syntax.imports.iter().filter(|import| !import.reexport).map(|import| &import.path);
            for path in uses.chain(&module.syntax.paths) {
                let Some(Found::Module(to) | Found::Item(to)) = self.find(from, &path.segments, MAX_HOPS)
                else {
                    continue;
                };
                if to.starts_with(from) || !seen.insert((from.clone(), to.clone())) {
                    continue;
                }
                edges.push(Edge {
                    from: from.clone(),
                    target: self.modules[&to].file.clone(),
                    to,
                    file: module.file.clone(),
                    line: path.line,
                    path: path.segments.join("::"),
                });
            }
        }
        edges
    }

    /// Returns where a path leads that is written in a module; `None` if it leads out of the crate.
    fn find(&self, from: &[String], path: &[String], hops: usize) -> Option<Found> {
        match path.first().map(String::as_str)? {
            "crate" => self.walk(&[], &path[1..], true, hops),
            "self" => self.walk(from, &path[1..], true, hops),
            "super" => {
                let up = path.iter().take_while(|segment| *segment == "super").count();
                self.walk(&from[..from.len().checked_sub(up)?], &path[up..], true, hops)
            }
            _ => self.walk(from, path, false, hops),
        }
    }

    /// Follows a path from a module on. An `anchored` path is known to lie in this crate, so what is not
    /// found is an item of the module (a macro may have made it).
    fn walk(&self, module: &[String], path: &[String], anchored: bool, hops: usize) -> Option<Found> {
        let Some((first, rest)) = path.split_first() else { return Some(Found::Module(module.to_vec())) };
        let child = [module, std::slice::from_ref(first)].concat();
        if self.modules.contains_key(&child) {
            return self.walk(&child, rest, true, hops);
        }
        let syntax = &self.modules.get(module)?.syntax;
        let hops = hops.checked_sub(1)?;
        if let Some(import) = syntax.imports.iter().find(|import| import.name.as_ref() == Some(first)) {
            return match self.find_import(module, import, hops)? {
                Found::Module(found) => self.walk(&found, rest, true, hops),
                item => Some(item),
            };
        }
        if syntax.items.contains(first) {
            return Some(Found::Item(module.to_vec()));
        }
        let globs = syntax.imports.iter().filter(|import| import.name.is_none());
        for glob in globs {
            if let Some(Found::Module(found)) = self.find_import(module, glob, hops)
                && found != module
                && let Some(found) = self.walk(&found, path, false, hops)
            {
                return Some(found);
            }
        }
        anchored.then(|| Found::Item(module.to_vec()))
    }

    /// Returns where a `use` leads. Its first segment is an anchor, a child, or a name that another `use` of
    /// the module brings; anything else is another crate.
    fn find_import(&self, module: &[String], import: &Import, hops: usize) -> Option<Found> {
        let path = &import.path.segments;
        let first = path.first()?;
        let child = [module, std::slice::from_ref(first)].concat();
        let brought = |other: &Import| !std::ptr::eq(other, import) && other.name.as_ref() == Some(first);
        let known = is_anchor(first)
            || self.modules.contains_key(&child)
            || self.modules[module].syntax.imports.iter().any(brought);
        if known { self.find(module, path, hops) } else { None }
    }
}

fn is_anchor(segment: &str) -> bool {
    matches!(segment, "crate" | "self" | "super")
}

/// Returns the folder in which the files of a file's modules lie.
fn children_folder(file: &str, root: bool) -> String {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    if root || name == "mod.rs" { folder.to_owned() } else { file.trim_end_matches(".rs").to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(files: &[(&'static str, &'static str)]) -> Vec<String> {
        let tree = Tree::of(files.iter().copied());
        let edges = targets(&tree, "a").iter().flat_map(Modules::edges).collect::<Vec<_>>();
        edges.iter().map(|edge| format!("{} -> {}", edge.file, edge.target)).collect()
    }

    #[test]
    fn paths_lead_to_the_file_that_defines_the_name() {
        let files = [
            ("a/src/lib.rs", "mod b; mod c;"),
            ("a/src/b.rs", "mod d; pub use self::d::D; pub struct B;"),
            ("a/src/b/d.rs", "pub struct D; pub struct Hidden;"),
            ("a/src/c/mod.rs", "use crate::b::D; fn f() { crate::b::B; }"),
        ];
        assert_eq!(edges(&files), ["a/src/c/mod.rs -> a/src/b/d.rs", "a/src/c/mod.rs -> a/src/b.rs"]);
    }

    #[test]
    fn imported_modules_are_followed() {
        let files = [
            ("a/src/lib.rs", "mod b; mod c;"),
            ("a/src/b.rs", "mod d; fn f() { d::f() }"),
            ("a/src/b/d.rs", "pub fn f() {}"),
            ("a/src/c.rs", "use crate::b; use std::fmt; fn f() -> fmt::Result { b::d::f(); Vec::new(); }"),
        ];
        assert_eq!(edges(&files), ["a/src/c.rs -> a/src/b.rs", "a/src/c.rs -> a/src/b/d.rs"]);
    }

    #[test]
    fn a_module_may_use_its_children() {
        let files = [
            ("a/src/lib.rs", "mod b; use b::d::f;"),
            ("a/src/b.rs", "mod d; use self::d::g; fn h() { d::f() }"),
            ("a/src/b/d.rs", "use super::h;"),
        ];
        assert_eq!(edges(&files), ["a/src/b/d.rs -> a/src/b.rs"]);
    }

    #[test]
    fn globs_are_searched() {
        let files = [
            ("a/src/lib.rs", "mod b; mod c; mod d; pub use b::*; pub use c::*;"),
            ("a/src/b.rs", "pub struct B;"),
            ("a/src/c.rs", "pub struct C; pub use super::*;"),
            ("a/src/d.rs", "use crate::{B, C, Unknown};"),
        ];
        let found = edges(&files);
        assert!(found.contains(&"a/src/d.rs -> a/src/b.rs".to_owned()), "{found:?}");
        assert!(found.contains(&"a/src/d.rs -> a/src/c.rs".to_owned()), "{found:?}");
    }

    #[test]
    fn test_modules_are_no_part_of_the_tree() {
        let files = [
            ("a/src/lib.rs", "mod b; #[cfg(test)] mod tests;"),
            ("a/src/b.rs", ""),
            ("a/src/tests.rs", "use crate::b;"),
        ];
        assert!(edges(&files).is_empty());
    }

    #[test]
    fn binaries_are_trees_of_their_own() {
        let files = [("a/src/main.rs", "mod b;"), ("a/src/b.rs", "use super::X;"), ("a/src/bin/c.rs", "")];
        assert_eq!(edges(&files), ["a/src/b.rs -> a/src/main.rs"]);
        assert_eq!(targets(&Tree::of(files), "a").len(), 2);
    }
}
