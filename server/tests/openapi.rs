//! The OpenAPI document: equals the one in `docs`, declares the access of every route, and has plain
//! descriptions.
#![expect(clippy::unwrap_used, reason = "tests; clippy knows only those of one function as such")]

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

/// Operations that require no credential. A route is public only if it is listed here.
const PUBLIC: [&str; 5] =
    ["get /livez", "get /metrics", "get /readyz", "get /v1/play/{link}/{path}", "options /v1/uploads"];

/// Minimum number of characters of a description: a shorter one is a pronoun, or repeats a name.
const MIN_DESCRIPTION_CHARS: usize = 24;

/// Pronouns, which refer to another sentence or name no role.
const PRONOUNS: [&str; 12] = [
    "it",
    "he",
    "she",
    "they",
    "them",
    "these",
    "those",
    "whoever",  // lint: quotation
    "nobody",   // lint: quotation
    "somebody", // lint: quotation
    "anybody",
    "everybody",
];

fn document() -> Value {
    serde_json::from_str(&spool_server::openapi()).unwrap()
}

/// Returns every operation with a name such as `get /v1/jobs`.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| (format!("{method} {path}"), operation))
    });
    operations.collect()
}

/// Calls `visit` with the place and the text of every summary and description. A property may have one of
/// these names, and is an object then.
fn visit_texts(value: &Value, place: &str, visit: &mut impl FnMut(&str, &str)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let place = format!("{place}/{name}");
                match value.as_str() {
                    Some(text) if name == "description" || name == "summary" => visit(&place, text),
                    _ => visit_texts(value, &place, visit),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                visit_texts(item, &format!("{place}/{index}"), visit);
            }
        }
        _ => {}
    }
}

#[test]
fn the_document_in_docs_is_that_of_the_routes() {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../docs/openapi.json");
    let generated = spool_server::openapi();
    if std::env::var_os("SPOOL_WRITE_DOCS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == generated, "docs/openapi.json differs from the routes: run `make docs`");
}

#[test]
fn every_route_has_a_summary_and_problem_documents_as_errors() {
    let document = document();
    let operations = operations(&document);
    assert!(operations.len() >= 30, "{}", operations.len());
    for (name, operation) in operations {
        let summary = operation["summary"].as_str().unwrap_or_default();
        assert!(summary.ends_with('.') && summary.chars().count() <= 110, "{name}: summary {summary:?}");
        let verb = summary.split_whitespace().next().unwrap_or_default().trim_end_matches(',');
        assert!(verb.ends_with('s'), "{name}: {verb:?} is not a verb in the third person");
        let responses = operation["responses"].as_object().unwrap();
        let errors = responses.iter().filter(|(status, _)| status.as_str() >= "400");
        for (status, response) in errors {
            let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(problem, "#/components/schemas/Problem", "{name} {status}");
        }
    }
}

#[test]
fn every_route_declares_the_scopes_that_it_requires() {
    let document = document();
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    let mut public = BTreeSet::new();
    for (name, operation) in operations(&document) {
        let alternatives = operation["security"].as_array();
        let alternatives = alternatives.unwrap_or_else(|| panic!("{name} declares no security"));
        if alternatives.is_empty() {
            public.insert(name);
            continue;
        }
        let mut has_scope = false;
        for (scheme, scopes) in alternatives.iter().flat_map(|alternative| alternative.as_object().unwrap()) {
            assert!(schemes.contains_key(scheme), "{name}: {scheme} is not a security scheme");
            let scopes = scopes.as_array().unwrap();
            assert!(scopes.iter().all(|scope| ["read", "write", "keys"].contains(&scope.as_str().unwrap())));
            has_scope |= !scopes.is_empty();
        }
        assert!(has_scope, "{name} requires no scope");
    }
    assert_eq!(public.iter().map(String::as_str).collect::<Vec<_>>(), PUBLIC);
}

#[test]
fn operation_ids_are_unique() {
    let document = document();
    let operations = operations(&document);
    let ids: BTreeSet<&str> =
        operations.iter().map(|(_, operation)| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len(), "{ids:?}");
}

#[test]
fn descriptions_are_long_enough_and_use_no_pronoun() {
    let mut wrong = Vec::new();
    visit_texts(&document(), "", &mut |place, text| {
        if place.ends_with("description") && text.chars().count() < MIN_DESCRIPTION_CHARS {
            wrong.push(format!("{place}: too short: {text:?}"));
        }
        let words = text.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
        let pronouns: Vec<String> = words.filter(|word| PRONOUNS.contains(&word.as_str())).collect();
        if !pronouns.is_empty() {
            wrong.push(format!("{place}: {pronouns:?} in {text:?}"));
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_schema_is_named_for_our_code() {
    let document = document();
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(!name.ends_with("Shown"), "{name}");
    }
}
