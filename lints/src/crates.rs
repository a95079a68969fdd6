//! The crates of the workspace, and which of them each depends on, from their `Cargo.toml`.

use crate::Tree;

/// One crate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Crate {
    /// Name of the package.
    pub(crate) name: String,
    /// Path of its `Cargo.toml`.
    pub(crate) manifest: String,
    /// Dependencies and build dependencies, with their lines. Dependencies of tests are left out.
    pub(crate) dependencies: Vec<(String, usize)>,
}

impl Crate {
    /// Returns the folder of the crate.
    pub(crate) fn folder(&self) -> &str {
        self.manifest.trim_end_matches("/Cargo.toml")
    }
}

/// Returns the crates whose folder lies in the root.
pub(crate) fn crates(tree: &Tree) -> Vec<Crate> {
    let manifests = tree.files().filter_map(|(name, text)| {
        let folder = name.strip_suffix("/Cargo.toml")?;
        (!folder.contains('/')).then_some((name, text))
    });
    manifests.filter_map(|(name, text)| parse(name, text)).collect()
}

fn parse(manifest: &str, text: &str) -> Option<Crate> {
    let mut section = "";
    let mut name = None;
    let mut dependencies = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        if let Some(header) = text.strip_prefix('[') {
            section = header.trim_end_matches(']');
            // `[dependencies.name]`
            if let Some(("dependencies" | "build-dependencies", name)) = section.split_once('.') {
                dependencies.push((name.to_owned(), line));
            }
            continue;
        }
        let Some((key, value)) = text.split_once('=') else { continue };
        let key = key.trim().split('.').next().unwrap_or_default();
        match section.rsplit('.').next() {
            Some("package") if key == "name" => name = Some(value.trim().trim_matches('"').to_owned()),
            Some("dependencies" | "build-dependencies") => dependencies.push((key.to_owned(), line)),
            _ => {}
        }
    }
    Some(Crate { name: name?, manifest: manifest.to_owned(), dependencies })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_in_every_form() {
        let text = "[package]\nname = \"spool-a\"\n[dependencies]\nspool-b.workspace = true\n\
                    spool-c = { path = \"../c\" }\n\
                    [dependencies.spool-d]\nworkspace = true\n\
                    [target.'cfg(unix)'.dependencies]\nspool-e = \"1\"\n\
                    [dev-dependencies]\nspool-f.workspace = true\n";
        let found = crates(&Tree::of([("a/Cargo.toml", text), ("a/b/Cargo.toml", text)]));
        let [found] = &found[..] else { panic!("{found:?}") };
        assert_eq!((found.name.as_str(), found.folder()), ("spool-a", "a"));
        let names: Vec<_> = found.dependencies.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["spool-b", "spool-c", "spool-d", "spool-e"]);
    }
}
