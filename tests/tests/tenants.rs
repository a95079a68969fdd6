//! Access control: keys, tokens and links grant their scopes, and nothing of another tenant.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use spool_tests::{
    clips::{Clip, Sound},
    run::{Spool, wait_until},
    serve::{Response, Serve},
    web::{Behavior, Web},
};

/// The API's document, which lists all routes.
const OPENAPI: &str = include_str!("../../docs/openapi.json");

/// Public routes, which need no key.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/metrics"];

struct Place {
    _folder: tempfile::TempDir,
    source: PathBuf,
    data: PathBuf,
    serve: Serve,
}

impl Place {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source =
            Clip { sound: Some(Sound::default()), frames: 50, ..Clip::default() }.make(folder.path(), "talk");
        let data = folder.path().join("data");
        let serve = Serve::start(&data, Path::new("ffmpeg"), &["--auth", "keys"]);
        Self { _folder: folder, source, data, serve }
    }

    fn spool<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> String {
        let store = self.data.join("jobs.db");
        let args = args.into_iter().map(str::to_owned);
        let all: Vec<String> =
            args.chain(["--database".to_owned(), store.to_str().unwrap().to_owned()]).collect();
        let run = Spool::new(all).run();
        assert!(run.code == Some(0), "{run:?}");
        run.stdout
    }

    /// Returns a key of a tenant, as a header.
    fn key(&self, tenant: &str, scopes: &[&str]) -> String {
        let scopes = scopes.iter().flat_map(|scope| ["--scope", scope]);
        let token = self.spool(["keys", "create", "--tenant", tenant].into_iter().chain(scopes));
        format!("Authorization: Bearer {}", token.trim())
    }

    fn request(&self, path: &str, key: &str, args: &[&str]) -> Response {
        self.serve.request(path, &["-H", key].iter().chain(args).copied().collect::<Vec<_>>())
    }

    fn post(&self, path: &str, key: &str, document: &Value) -> Response {
        self.serve.post(path, document, &["-H", key])
    }

    fn upload(&self, key: &str, job: &str) -> Response {
        let body = format!("@{}", self.source.display());
        self.request(&format!("/v1/uploads?name=talk.mp4&job={job}"), key, &["--data-binary", &body])
    }

    /// Waits for a job's end.
    fn ended(&self, key: &str, job: &str) -> Value {
        wait_until("a job to end", Duration::from_secs(180), || {
            let job = self.request(&format!("/v1/jobs/{job}"), key, &[]).json();
            Some(job).filter(|job| !["pending", "processing"].contains(&job["state"].as_str().unwrap()))
        })
    }
}

/// A small ladder that is done soon.
const LADDER: &str = "%7B%22ladder%22%3A%2290p%22%7D";

#[test]
fn no_route_reaches_another_tenants_data() {
    let place = Place::start();
    let (ours, theirs) =
        (place.key("acme", &["read", "write", "keys"]), place.key("globex", &["read", "write", "keys"]));
    let upload = place.upload(&ours, LADDER);
    assert_eq!(upload.status, 201, "{upload:?}");
    let (upload, job) = (upload.json()["id"].clone(), upload.json()["job"].clone());
    let (upload, job) = (upload.as_str().unwrap(), job.as_str().unwrap());
    let done = place.ended(&ours, job);
    assert_eq!(done["state"], "published", "{done}");
    let video = done["video"].as_str().unwrap();
    let key = place.request("/v1/keys", &ours, &[]).json()["keys"][0]["id"].as_str().unwrap().to_owned();
    let names = [upload, job, video, key.as_str()];
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut tried = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            if OPEN.contains(&path.as_str()) || method == "options" {
                continue;
            }
            let id = match path.split('/').nth(2).unwrap() {
                "jobs" => job,
                "videos" => video,
                "uploads" => upload,
                "keys" => key.as_str(),
                _ => "none",
            };
            let route = path.replace("{id}", id).replace("{path}", "master.m3u8").replace("{link}", "forged");
            let method = method.to_uppercase();
            let body = if path.ends_with("/complete") { r#"{"etags": []}"# } else { "{}" };
            let args = match method.as_str() {
                "GET" => vec!["-X", "GET"],
                "PATCH" => vec![
                    "-X",
                    "PATCH",
                    "-H",
                    "Tus-Resumable: 1.0.0",
                    "-H",
                    "Upload-Offset: 0",
                    "-H",
                    "Content-Type: application/offset+octet-stream",
                    "-d",
                    "x",
                ],
                "DELETE" => vec!["-X", "DELETE", "-H", "Tus-Resumable: 1.0.0"],
                _ => vec!["-X", method.as_str(), "-H", "Content-Type: application/json", "-d", body],
            };
            let answer = place.request(&route, &theirs, &args);
            let body = String::from_utf8_lossy(&answer.body);
            if path.contains("{id}") {
                assert_eq!(answer.status, 404, "{method} {route}: {answer:?}");
            } else if path.contains("{link}") {
                assert_eq!(answer.status, 403, "{method} {route}: {answer:?}");
            } else {
                assert!(names.iter().all(|name| !body.contains(name)), "{method} {route}: {body}");
            }
            if !path.contains("{link}") {
                let anonymous = place.serve.request(&route, &args);
                assert!(
                    anonymous.status == 401 && anonymous.header("www-authenticate").is_some(),
                    "{method} {route}: {anonymous:?}"
                );
                assert_eq!(anonymous.json()["type"], "urn:spool:problem:unauthenticated");
                let wrong = place.request(&route, "Authorization: Bearer spool_key_0_0", &args);
                assert_eq!(wrong.status, 401, "{method} {route}: {wrong:?}");
            }
            tried += 1;
        }
    }
    assert!(tried >= 18, "only {tried} routes were tried");
    // No object of the other tenant was changed.
    assert_eq!(place.request(&format!("/v1/jobs/{job}"), &ours, &[]).json()["state"], "published");
    assert_eq!(place.request(&format!("/v1/videos/{video}/play/master.m3u8"), &ours, &[]).status, 200);
    assert!(
        place.request("/v1/jobs", &theirs, &[]).json()["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .all(|shown| shown["id"] != job)
    );
}

#[test]
fn a_key_grants_its_scopes_until_it_is_revoked() {
    let place = Place::start();
    let (reads, all) = (place.key("acme", &["read"]), place.key("acme", &["read", "write", "keys"]));
    assert_eq!(place.request("/v1/jobs", &reads, &[]).status, 200);
    let refused = place.upload(&reads, "none");
    assert!(
        refused.status == 403 && refused.json()["detail"].as_str().unwrap().contains("write"),
        "{refused:?}"
    );
    assert_eq!(place.request("/v1/keys", &reads, &[]).status, 403);
    let made = place.post("/v1/keys", &all, &json!({ "name": "ci", "scopes": ["write"] }));
    assert_eq!(made.status, 201, "{made:?}");
    let (id, token) =
        (made.json()["id"].as_str().unwrap().to_owned(), made.json()["token"].as_str().unwrap().to_owned());
    let writes = format!("Authorization: Bearer {token}");
    assert_eq!(place.upload(&writes, "none").status, 201);
    assert_eq!(place.post("/v1/keys", &writes, &json!({ "scopes": ["keys"] })).status, 403);
    let listed = place.request("/v1/keys", &all, &[]);
    assert!(
        listed.json()["keys"].as_array().unwrap().len() == 3
            && !String::from_utf8_lossy(&listed.body).contains(&token)
    );
    assert_eq!(place.request(&format!("/v1/keys/{id}"), &all, &["-X", "DELETE"]).status, 200);
    assert_eq!(place.upload(&writes, "none").status, 401);
    // The command line sends a key as well.
    let bearer = all.strip_prefix("Authorization: Bearer ").unwrap();
    let listed =
        Spool::new(["jobs", "ls", "--server", &place.serve.address]).env("SPOOL_API_KEY", bearer).run();
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let anonymous = Spool::new(["jobs", "ls", "--server", &place.serve.address]).run();
    assert!(anonymous.code == Some(4) && anonymous.stderr.contains("spool keys create"), "{anonymous:?}");
    assert!(!place.spool(["keys", "ls", "--tenant", "acme"]).contains(&token[..40]));
}

#[test]
fn jobs_stay_within_their_tenants_path_policy() {
    let place = Place::start();
    let key = place.key("acme", &["read", "write"]);
    let web = Web::start(&place.source, Behavior { ranges: true, etag: true });
    let source = place.source.to_str().unwrap();
    let refused = place.post("/v1/jobs", &key, &json!({ "source": source }));
    assert!(
        refused.status == 403 && refused.json()["detail"].as_str().unwrap().starts_with("source: "),
        "{refused:?}"
    );
    let out = place.data.join("elsewhere");
    let refused = place.upload(&key, &format!("%7B%22destination%22%3A%22{}%22%7D", out.display()));
    assert!(
        refused.status == 403 && refused.json()["detail"].as_str().unwrap().starts_with("destination: "),
        "{refused:?}"
    );
    // A prefix for reading is not one for deleting.
    let folder = place.source.parent().unwrap().to_str().unwrap();
    place.spool(["tenants", "set", "acme", "--source", folder]);
    let refused = place.post("/v1/jobs", &key, &json!({ "source": source, "delete_source": true }));
    assert!(
        refused.status == 403 && refused.json()["detail"].as_str().unwrap().starts_with("delete_source: "),
        "{refused:?}"
    );
    place.spool(["tenants", "set", "acme"]);
    // The sources of a statement are not known before it runs.
    let quoted = source.replace('\'', "''");
    for sql in [
        format!("SELECT count(*) FROM segments('{quoted}')"),
        format!("SELECT probe('{quoted}')"),
        format!("SELECT * FROM media('{}/**')", place.data.parent().unwrap().display()),
        format!("SELECT * FROM parts('{}')", place.data.display()),
        format!("SELECT * FROM segments('{}')", web.address),
    ] {
        let job =
            place.post("/v1/jobs", &key, &json!({ "sql": sql })).json()["id"].as_str().unwrap().to_owned();
        let failed = place.ended(&key, &job);
        assert!(failed["state"] == "failed" && failed["error"]["kind"] == "not_allowed", "{sql}: {failed}");
    }
    for sql in [
        "COPY (SELECT 1) TO 'x.csv'",
        "CREATE TABLE t AS SELECT 1",
        "DROP TABLE jobs",
        "SET spool.path_policy = ''",
        "INSERT INTO t VALUES (1)",
    ] {
        let job =
            place.post("/v1/jobs", &key, &json!({ "sql": sql })).json()["id"].as_str().unwrap().to_owned();
        let failed = place.ended(&key, &job);
        assert!(failed["state"] == "failed" && failed["error"]["kind"] == "bad_input", "{sql}: {failed}");
    }
    assert!(web.log().is_empty(), "a request was sent");
    // The policy's prefixes may be read, except for private hosts.
    place.spool(["tenants", "set", "acme", "--source", folder, "--source", "http://"]);
    let job = place.post("/v1/jobs", &key, &json!({ "source": source, "ladder": "90p" })).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(place.ended(&key, &job)["state"], "published");
    let job = place.post("/v1/jobs", &key, &json!({ "source": web.address })).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let failed = place.ended(&key, &job);
    assert!(failed["error"]["kind"] == "not_allowed" && web.log().is_empty(), "{failed}");
    assert!(failed["error"]["message"].as_str().unwrap().contains("not a public address"), "{failed}");
}

#[test]
fn quotas_of_a_tenant_are_enforced_and_reported() {
    let place = Place::start();
    let (key, other) = (place.key("acme", &["read", "write"]), place.key("globex", &["read"]));
    let bytes = std::fs::metadata(&place.source).unwrap().len();
    place.spool([
        "tenants",
        "set",
        "acme",
        "--upload-bytes",
        &bytes.to_string(),
        "--requests-per-minute",
        "4",
    ]);
    assert_eq!(place.upload(&key, "none").status, 201);
    let kept = || spool_tests::folder::files(&place.data.join("uploads")).len();
    assert_eq!(kept(), 1);
    let full = place.upload(&key, "none");
    assert_eq!(kept(), 1, "a refused job is not stored");
    assert!(full.status == 429 && full.json()["type"] == "urn:spool:problem:quota", "{full:?}");
    let third = place.request("/v1/jobs", &key, &[]);
    assert_eq!(
        (third.header("ratelimit-limit"), third.header("ratelimit-remaining")),
        (Some("4"), Some("1")),
        "{third:?}"
    );
    assert_eq!(place.request("/v1/jobs", &key, &[]).status, 200);
    let often = place.request("/v1/jobs", &key, &[]);
    assert!(often.status == 429 && often.json()["type"] == "urn:spool:problem:rate", "{often:?}");
    assert!(often.header("retry-after").unwrap().parse::<u64>().unwrap() <= 15, "{often:?}");
    assert_eq!(place.request("/v1/jobs", &other, &[]).status, 200, "another tenant has its own limit");
}

#[test]
fn a_browser_uploads_by_a_token_and_plays_by_a_link() {
    let place = Place::start();
    let key = place.key("acme", &["read", "write"]);
    let made = place.post(
        "/v1/uploads/tokens",
        &key,
        &json!({ "job": { "ladder": "90p" }, "max_bytes": 10_000_000 }),
    );
    assert_eq!(made.status, 201, "{made:?}");
    let once = format!("Authorization: Bearer {}", made.json()["token"].as_str().unwrap());
    assert_eq!(place.request("/v1/jobs", &once, &[]).status, 403);
    // The holder of an upload token cannot choose the job.
    let upload = place.upload(&once, "none");
    assert!(upload.status == 201 && upload.json()["job"].is_string(), "{upload:?}");
    let again = place.upload(&once, "none");
    assert_eq!(again.status, 403, "{again:?}");
    assert_eq!(
        place.request(&format!("/v1/uploads/{}", upload.json()["id"].as_str().unwrap()), &once, &[]).status,
        200
    );
    let done = place.ended(&key, upload.json()["job"].as_str().unwrap());
    let video = done["video"].as_str().unwrap();
    let link =
        place.post(&format!("/v1/videos/{video}/links"), &key, &json!({ "expires_seconds": 600 })).json();
    let play = link["play"].as_str().unwrap();
    let master = place.serve.request(play, &["-H", "Origin: https://player.example"]);
    assert!(master.status == 200 && master.header("access-control-allow-origin") == Some("*"), "{master:?}");
    let playlist = String::from_utf8(master.body)
        .unwrap()
        .lines()
        .rfind(|line| line.ends_with(".m3u8"))
        .unwrap()
        .to_owned();
    let media = play.replace("master.m3u8", &playlist);
    assert_eq!(place.serve.request(&media, &[]).status, 200, "the files behind it play by the same link");
    let forged = play.replacen("/v1/play/", "/v1/play/A", 1);
    assert_eq!(place.serve.request(&forged, &[]).status, 403);
    let short =
        place.post(&format!("/v1/videos/{video}/links"), &key, &json!({ "expires_seconds": 1 })).json();
    let short = short["play"].as_str().unwrap();
    wait_until("the expiry of a link", Duration::from_secs(20), || {
        (place.serve.request(short, &[]).status == 403).then_some(())
    });
    let bad = place.post("/v1/uploads/tokens", &key, &json!({ "job": { "destination": "/elsewhere" } }));
    assert_eq!(bad.status, 403, "{bad:?}");
}
