//! Names and descriptions in `docs/openapi.json`, which become the classes and the documentation of generated
//! clients.
//!
//! The document is written with one key to a line, so it is read line by line.

use crate::{Finding, Tree};

/// Fewest characters of a description: less is a pronoun, or a word that the name already says.
pub const MIN_DESCRIPTION_CHARS: usize = 24;

const DOCUMENT: &str = "docs/openapi.json";

/// Ending of a schema's name that describes our code instead of the thing.
const ENDING: &str = "Shown";

/// Returns the descriptions that are too short, and the schemas that are named for our code.
pub fn openapi(tree: &Tree) -> Vec<Finding> {
    let text = tree.text(DOCUMENT).unwrap_or_default();
    let found = (1..).zip(text.lines()).filter_map(|(line, text)| Some((line, complaint(text.trim())?)));
    found.map(|(line, message)| Finding { file: DOCUMENT.to_owned(), line, message }).collect()
}

fn complaint(line: &str) -> Option<String> {
    let (key, value) = line.split_once("\": ")?;
    let key = key.trim_start_matches('"');
    let value = value.trim_end_matches(',');
    if key == "description" && value.starts_with('"') {
        let chars = value.trim_matches('"').chars().count();
        let message =
            format!("description of {chars} characters, at least {MIN_DESCRIPTION_CHARS} expected: {value}");
        return (chars < MIN_DESCRIPTION_CHARS).then_some(message);
    }
    (key.ends_with(ENDING) && value == "{").then(|| format!("schema `{key}` ends in `{ENDING}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        openapi(&Tree::of([(DOCUMENT, text)])).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn short_descriptions_are_found() {
        assert_eq!(
            lines(
                "{\n\"description\": \"It.\",\n\"description\": \"The job with its rows and renditions.\"}"
            ),
            [2]
        );
    }

    #[test]
    fn a_property_named_description_is_no_description() {
        assert!(lines("\"description\": {\n").is_empty());
    }

    #[test]
    fn schemas_named_for_our_code_are_found() {
        assert_eq!(lines("\"JobShown\": {\n\"Job\": {\n"), [1]);
    }
}
