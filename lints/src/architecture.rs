//! Which file may import which: no large circles of files, no import from a lower floor to a higher one.
//!
//! Floors are written lowest first. Between crates an import goes down, and crates on one floor do not know
//! each other. Between the rooms of a crate (the top-level modules) an import goes down or stays on its
//! floor. A crate's root and its `error` module stand outside of floors and circles: the root re-exports from
//! every room, and `error` gathers the errors of all rooms, which all return it.

use std::collections::BTreeMap;

use crate::{
    Finding, Tree,
    crates::crates,
    modules::{Edge, targets},
};

/// Most files in a circle of imports. Two or three files that share one idea may know each other; a larger
/// circle has no order in which a reader can take it in.
pub const MAX_CIRCLE_FILES: usize = 3;

/// Module in the root of a crate that gathers the errors of all others.
const ERRORS: &str = "error";

/// Floors of crates.
pub const CRATE_FLOORS: &[&[&str]] = &[
    &["spool-storage", "spool-tls"],
    &["spool-media"],
    &["spool-udfs", "spool-wire", "spool-jobs"],
    &["spool-scheduler", "spool-executor", "spool-server"],
    &["spool"],
];

/// Floors of a crate's rooms.
pub type Rooms<'a> = (&'a str, &'a [&'a [&'a str]]);

/// Floors of rooms, for each crate that has any.
pub const ROOM_FLOORS: &[Rooms<'static>] = &[
    (
        "spool-media",
        &[
            &["time", "limits", "codec", "ffmpeg", "environment"],
            &["source"],
            &["plan"],
            &["predict"],
            &["listing"],
            &["package"],
            &["encode"],
        ],
    ),
    (
        "spool-scheduler",
        &[
            &["error", "engine", "executor_calls", "queue"],
            &["executors", "engine_config"],
            &["demand", "metrics"],
            &["run"],
            &["scheduler", "client"],
            &["api"],
            &["service"],
        ],
    ),
    (
        "spool-server",
        &[
            &["problem", "documents"],
            &["auth"],
            &["uploads", "ingest", "query", "background"],
            &["app_state"],
            &["routes"],
            &["connections", "server"],
        ],
    ),
];

/// Returns the circles of imports that hold too many files: one finding for each import in the circle.
pub fn import_circles(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for found in crates(tree) {
        for modules in targets(tree, found.folder()) {
            let edges: Vec<Edge> =
                modules.edges().into_iter().filter(|edge| !is_outside(&edge.from)).collect();
            for circle in circles(&edges) {
                if circle.len() <= MAX_CIRCLE_FILES {
                    continue;
                }
                let inside = |edge: &&Edge| {
                    circle.contains(&edge.file.as_str()) && circle.contains(&edge.target.as_str())
                };
                findings.extend(edges.iter().filter(inside).map(|edge| Finding {
                    file: edge.file.clone(),
                    line: edge.line,
                    message: format!(
                        "circle of imports of {} files, at most {MAX_CIRCLE_FILES}: `{}` is defined in {}",
                        circle.len(),
                        edge.path,
                        edge.target
                    ),
                }));
            }
        }
    }
    findings
}

/// Returns the imports from a room on a lower floor to one on a higher floor, and the rooms that have no
/// floor.
pub fn room_floors(tree: &Tree, rooms: &[Rooms<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for found in crates(tree) {
        let Some((_, floors)) = rooms.iter().find(|(name, _)| *name == found.name) else { continue };
        let floor = |module: &[String]| {
            let room = module.first().filter(|_| !is_outside(module))?;
            floors.iter().position(|floor| floor.contains(&room.as_str()))
        };
        for modules in targets(tree, found.folder()) {
            findings.extend(
                modules
                    .files()
                    .filter(|(module, _)| module.len() == 1 && !is_outside(module) && floor(module).is_none())
                    .map(|(module, file)| Finding {
                        file: file.to_owned(),
                        line: 0,
                        message: format!(
                            "`{}` has no floor; give it one in ROOM_FLOORS (lints)",
                            module.join("::")
                        ),
                    }),
            );
            for edge in modules.edges() {
                let (Some(from), Some(to)) = (floor(&edge.from), floor(&edge.to)) else { continue };
                if from < to {
                    findings.push(Finding {
                        file: edge.file,
                        line: edge.line,
                        message: format!(
                            "`{}` imports `{}` of {}, which lies on a higher floor",
                            edge.from[0], edge.path, edge.target
                        ),
                    });
                }
            }
        }
    }
    findings
}

/// Returns the dependencies between crates that do not go down.
pub fn crate_floors(tree: &Tree, floors: &[&[&str]]) -> Vec<Finding> {
    let floor = |name: &str| floors.iter().position(|floor| floor.contains(&name));
    let mut findings = Vec::new();
    for found in crates(tree) {
        let Some(own) = floor(&found.name) else { continue };
        for (dependency, line) in &found.dependencies {
            if floor(dependency).is_some_and(|other| other >= own) {
                findings.push(Finding {
                    file: found.manifest.clone(),
                    line: *line,
                    message: format!(
                        "`{}` depends on `{dependency}`, which does not lie on a lower floor",
                        found.name
                    ),
                });
            }
        }
    }
    findings
}

/// Returns whether a module is the crate's root or its `error` module.
fn is_outside(module: &[String]) -> bool {
    module.first().is_none_or(|first| first == ERRORS)
}

/// Returns the strongly connected components of the files, by Tarjan's algorithm.
fn circles(edges: &[Edge]) -> Vec<Vec<&str>> {
    let mut graph: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for edge in edges {
        graph.entry(&edge.file).or_default().push(&edge.target);
        graph.entry(&edge.target).or_default();
    }
    let mut search = Search {
        graph: &graph,
        order: BTreeMap::new(),
        low: BTreeMap::new(),
        open: Vec::new(),
        found: Vec::new(),
    };
    for file in graph.keys() {
        if !search.order.contains_key(file) {
            search.visit(file);
        }
    }
    search.found
}

struct Search<'a, 'g> {
    graph: &'g BTreeMap<&'a str, Vec<&'a str>>,
    order: BTreeMap<&'a str, usize>,
    low: BTreeMap<&'a str, usize>,
    open: Vec<&'a str>,
    found: Vec<Vec<&'a str>>,
}

impl<'a> Search<'a, '_> {
    /// Visits a file and all that it reaches. Recursion is as deep as the longest chain of imports.
    fn visit(&mut self, file: &'a str) {
        let number = self.order.len();
        self.order.insert(file, number);
        let mut low = number;
        self.open.push(file);
        for target in &self.graph[file] {
            if !self.order.contains_key(target) {
                self.visit(target);
                low = low.min(self.low[target]);
            } else if self.open.contains(target) {
                low = low.min(self.order[target]);
            }
        }
        self.low.insert(file, low);
        if low == number {
            let start = self.open.iter().position(|open| *open == file).unwrap_or_default();
            self.found.push(self.open.split_off(start));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: (&str, &str) = ("a/Cargo.toml", "[package]\nname = \"spool-a\"\n");

    fn ring(files: usize) -> Vec<(String, String)> {
        let names: Vec<String> = (0..files).map(|number| format!("m{number}")).collect();
        let declared: String = names.iter().map(|name| format!("mod {name};")).collect();
        let file = |number: usize| {
            let next = &names[(number + 1) % files];
            (
                format!("a/src/{}.rs", names[number]),
                format!("//! Ring.\n\nuse crate::{next}::X as Next;\n\npub struct X;"),
            )
        };
        let root = ("a/src/lib.rs".to_owned(), declared);
        (0..files).map(file).chain([root, (MANIFEST.0.to_owned(), MANIFEST.1.to_owned())]).collect()
    }

    fn tree(files: &[(String, String)]) -> Tree {
        Tree::of(files.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    #[test]
    fn a_circle_of_four_files_is_found() {
        let findings = import_circles(&tree(&ring(4)));
        assert_eq!(findings.len(), 4, "{findings:?}");
        assert_eq!((findings[0].file.as_str(), findings[0].line), ("a/src/m0.rs", 3));
        assert!(findings[0].message.contains("4 files"), "{}", findings[0]);
        assert!(import_circles(&tree(&ring(3))).is_empty());
    }

    #[test]
    fn circles_that_share_a_file_are_one() {
        let text = |target: &str| format!("use crate::{target}::X as Next; pub struct X;");
        let mut files = ring(3);
        files[0].1.push_str("use crate::n0::X as Y;");
        files[3].1.push_str("mod n0; mod n1;");
        files.push(("a/src/n0.rs".to_owned(), text("n1")));
        files.push(("a/src/n1.rs".to_owned(), text("m0")));
        assert!(import_circles(&tree(&files)).iter().all(|finding| finding.message.contains("5 files")));
        assert_eq!(import_circles(&tree(&files)).len(), 6);
    }

    #[test]
    fn a_facade_joins_nothing() {
        // The root re-exports all; each file imports from the root.
        let files: Vec<(&str, &str)> = vec![
            MANIFEST,
            ("a/src/lib.rs", "mod b; mod c; mod d; mod e; pub use self::{b::B, c::C, d::D, e::E};"),
            ("a/src/b.rs", "use crate::C; pub struct B;"),
            ("a/src/c.rs", "use crate::D; pub struct C;"),
            ("a/src/d.rs", "use crate::E; pub struct D;"),
            ("a/src/e.rs", "pub struct E;"),
        ];
        assert!(import_circles(&Tree::of(files)).is_empty());
    }

    #[test]
    fn the_error_of_a_crate_joins_nothing() {
        let mut files = ring(4);
        files[0].1 = "pub struct X; fn f() -> crate::error::Error { panic!() }".to_owned();
        files[4].1.push_str("mod error;");
        files.push(("a/src/error.rs".to_owned(), "use crate::m1::X; pub struct Error;".to_owned()));
        assert!(import_circles(&tree(&files)).is_empty());
    }

    const ROOMS: &[Rooms<'static>] = &[("spool-a", &[&["ground"], &["left", "right"], &["roof"]])];

    fn house(room: &str, text: &'static str) -> Vec<Finding> {
        let mut files = BTreeMap::from([
            MANIFEST,
            ("a/src/lib.rs", "mod ground; mod left; mod right; mod roof; pub struct Root;"),
            ("a/src/ground.rs", "pub struct X;"),
            ("a/src/left/mod.rs", "mod inner; pub struct X;"),
            ("a/src/left/inner.rs", "pub struct X;"),
            ("a/src/right.rs", "pub struct X;"),
            ("a/src/roof.rs", "pub struct X;"),
        ]);
        *files.get_mut(room).unwrap() = text;
        room_floors(&Tree::of(files), ROOMS)
    }

    #[test]
    fn an_import_from_a_lower_floor_to_a_higher_one_is_found() {
        let findings = house("a/src/ground.rs", "use crate::roof::X;");
        assert_eq!((findings.len(), findings[0].line), (1, 1), "{findings:?}");
        assert_eq!(house("a/src/left/inner.rs", "fn f() {\n super::super::roof::X }").len(), 1);
        assert_eq!(house("a/src/ground.rs", "use crate::left;").len(), 1);
    }

    #[test]
    fn imports_down_and_on_one_floor_are_allowed() {
        assert!(house("a/src/roof.rs", "use crate::{ground, left::X, Root};").is_empty());
        assert!(house("a/src/left/inner.rs", "use crate::{ground, right::X};").is_empty());
    }

    #[test]
    fn a_room_without_a_floor_is_found() {
        let findings = house("a/src/lib.rs", "mod ground; mod cellar;");
        assert!(findings.is_empty(), "a module without a file is rustc's to find: {findings:?}");
        let tree = Tree::of([MANIFEST, ("a/src/lib.rs", "mod cellar;"), ("a/src/cellar.rs", "")]);
        assert_eq!(room_floors(&tree, ROOMS)[0].file, "a/src/cellar.rs");
    }

    #[test]
    fn crates_depend_on_lower_floors_only() {
        let floors: &[&[&str]] = &[&["spool-a"], &["spool-b", "spool-c"]];
        let check = |dependent: &str, dependency: &str| {
            let manifest =
                format!("[package]\nname = \"{dependent}\"\n[dependencies]\n{dependency}.workspace = true\n");
            crate_floors(&Tree::of([("x/Cargo.toml", manifest.as_str())]), floors).len()
        };
        assert_eq!(check("spool-b", "spool-a"), 0);
        assert_eq!(check("spool-a", "spool-b"), 1);
        assert_eq!(check("spool-b", "spool-c"), 1);
        assert_eq!(check("spool-b", "serde"), 0);
    }
}
