//! Is the document in `docs` the one that the server gives?

use std::path::Path;

#[test]
fn the_document_in_the_docs_is_that_of_the_routes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let now = spool_server::openapi();
    if std::env::var_os("SPOOL_WRITE_DOCS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == now, "docs/openapi.json is not that of the routes: run `make docs`");
}

#[test]
fn every_route_says_what_it_takes_and_gives() {
    let document: serde_json::Value = serde_json::from_str(&spool_server::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 10, "{paths:?}");
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            let text =
                operation["summary"].as_str().or(operation["description"].as_str()).unwrap_or_default();
            assert!(!text.is_empty(), "{method} {path} says nothing");
            let responses = operation["responses"].as_object().unwrap();
            let problems = responses.iter().filter(|(status, _)| status.as_str() >= "400");
            for (status, response) in problems {
                let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(problem, "#/components/schemas/Problem", "{method} {path} {status}");
            }
        }
    }
}
