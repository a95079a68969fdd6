//! The web page in a real browser: it uploads a file, follows the job, and plays the result.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests start what they test")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use spool_tests::{
    clips::{Clip, Sound},
    run::Spool,
    serve::Serve,
};

/// Runs a browser that uploads this file on the page, and returns its observations. Screenshots stay in the
/// target folder.
fn used(serve: &Serve, file: &Path, name: &str, args: &[&str]) -> Value {
    let browser = spool_tests::repository::root().join("tests/browser");
    assert!(browser.join("node_modules").exists(), "run scripts/browser-setup first");
    let shot = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
    let output = Command::new("node")
        .arg(browser.join("page.mjs"))
        .arg(format!("{}/", serve.address))
        .arg(file)
        .arg(&shot)
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(std::fs::metadata(shot).unwrap().len() > 10_000, "the screenshot is empty");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn clip(folder: &Path) -> PathBuf {
    Clip { sound: Some(Sound::default()), frames: 125, ..Clip::default() }.make(folder, "talk")
}

#[test]
fn a_dropped_video_plays_and_a_file_without_video_gives_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (source, notes) = (clip(folder.path()), folder.path().join("notes.txt"));
    std::fs::write(&notes, "these are notes, and no video at all\n".repeat(100)).unwrap();
    let data = folder.path().join("data");
    let serve = Serve::start(&data, Path::new("ffmpeg"), &[]);
    let seen = used(&serve, &source, "page", &["--bad", notes.to_str().unwrap(), "--cut"]);
    assert_eq!((&seen["state"], &seen["bad"]["state"]), (&json!("published"), &json!("failed")), "{seen}");
    assert!(
        seen["frames"].as_u64().unwrap() > 0 && (seen["duration"].as_f64().unwrap() - 5.0).abs() < 0.1,
        "{seen}"
    );
    assert!(seen["bad"]["reason"].as_str().unwrap().contains("notes.txt"), "{seen}");
    assert!(!seen["broken"].as_array().unwrap().is_empty(), "no part broke off: {seen}");
    let job = serve.get_job(seen["job"].as_str().unwrap());
    assert_eq!((&job["state"], &job["video"]), (&json!("published"), &seen["video"]));
    let uploads = serve.request("/v1/jobs", &[]).json()["jobs"].as_array().unwrap().len();
    assert_eq!(uploads, 2, "each file makes one job, also if its upload broke off");
}

#[test]
fn the_page_works_with_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let (source, data) = (clip(folder.path()), folder.path().join("data"));
    let serve = Serve::start(&data, Path::new("ffmpeg"), &["--auth", "keys"]);
    let store = data.join("jobs.db");
    let key =
        Spool::new(["keys", "create", "--tenant", "acme", "--database", store.to_str().unwrap()]).ok().stdout;
    let seen =
        used(&serve, &source, "page-with-key", &["--key", key.trim(), "--width", "390", "--scheme", "dark"]);
    assert!(seen["state"] == "published" && seen["frames"].as_u64().unwrap() > 0, "{seen}");
    let page = serve.request("/", &[]);
    assert!(
        page.status == 200 && page.header("content-security-policy").unwrap().contains("script-src 'self'"),
        "{page:?}"
    );
    let known = format!("If-None-Match: {}", page.header("etag").unwrap());
    assert_eq!(serve.request("/", &["-H", &known]).status, 304);
    assert_eq!(serve.request("/page/nothing.js", &[]).status, 404);
}
