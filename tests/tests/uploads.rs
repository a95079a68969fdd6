//! Uploads: in one request or in parts, through servers that die, and never with a byte that is not the
//! client's.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests start what they test")]

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use spool_tests::{
    check,
    clips::{Clip, Sound},
    folder,
    load_balancer::LoadBalancer,
    moto::Moto,
    s3::S3Server,
    serve::{Response, Serve},
};

/// The clip that is transcoded here.
fn clip() -> Clip {
    Clip { sound: Some(Sound::default()), frames: 100, ..Clip::default() }
}

/// Writes a file of random bytes.
fn noise(folder: &Path, bytes: u64) -> PathBuf {
    let path = folder.join("noise.bin");
    let mut random = std::fs::File::open("/dev/urandom").unwrap().take(bytes);
    std::io::copy(&mut random, &mut std::fs::File::create(&path).unwrap()).unwrap();
    path
}

/// Returns every stored file of uploads, without the names of their folders.
fn stored_files(data: &Path) -> Vec<(String, Vec<u8>)> {
    let files = folder::files(&data.join("uploads"));
    files.into_iter().map(|(name, bytes)| (name.rsplit('/').next().unwrap().to_owned(), bytes)).collect()
}

const TUS: [&str; 2] = ["-H", "Tus-Resumable: 1.0.0"];

/// Creates an upload by tus, and returns its path.
fn create(serve: &Serve, bytes: usize, metadata: &str) -> String {
    let (length, metadata) = (format!("Upload-Length: {bytes}"), format!("Upload-Metadata: {metadata}"));
    let answer =
        serve.request("/v1/uploads", &[&TUS[..], &["-X", "POST", "-H", &length, "-H", &metadata]].concat());
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.header("location").unwrap().to_owned()
}

/// Sends a part by tus.
fn send_part(serve: &Serve, path: &str, offset: usize, bytes: &[u8], more: &[&str]) -> Response {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("part");
    std::fs::write(&file, bytes).unwrap();
    let (offset, file) = (format!("Upload-Offset: {offset}"), format!("@{}", file.display()));
    let args = [
        "-X",
        "PATCH",
        "-H",
        &offset,
        "-H",
        "Content-Type: application/offset+octet-stream",
        "--data-binary",
        &file,
    ];
    serve.request(path, &[&TUS[..], &args, more].concat())
}

#[test]
fn one_upload_with_curl_gives_a_ladder_that_plays() {
    let folder = tempfile::tempdir().unwrap();
    let source = clip().make(folder.path(), "talk");
    let data = folder.path().join("data");
    let serve = Serve::start(&data, Path::new("ffmpeg"), &[]);
    let file = format!("@{}", source.display());
    let job = "%7B%22ladder%22:%22180p,90p:300k%22,%22segment_seconds%22:2,%22media_segment_seconds%22:1%7D";
    let answer = serve
        .request(&format!("/v1/uploads?name=it%27s%20a%20talk.mp4&job={job}"), &["--data-binary", &file]);
    assert_eq!(answer.status, 201, "{answer:?}");
    let upload = answer.json();
    assert_eq!((&upload["state"], &upload["name"]), (&json!("finished"), &json!("it's a talk.mp4")));
    assert_eq!(serve.request(answer.header("location").unwrap(), &[]).json(), upload);
    let job = serve.wait_until_published(upload["job"].as_str().unwrap());
    let video = job["video"].as_str().unwrap();
    let flaws: Vec<String> = check::all(&data.join("media").join(video), &clip(), &source)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(flaws.is_empty(), "{}", flaws.join("\n"));
    assert_eq!(serve.request(&format!("/v1/videos/{video}"), &[]).json()["name"], "it's a talk.mp4");
    assert_eq!(stored_files(&data), [("it's a talk.mp4".to_owned(), std::fs::read(&source).unwrap())]);
    // A default job, and none with `job=none`.
    let answer = serve.request("/v1/uploads?job=none", &["--data-binary", &file]).json();
    assert!(answer["state"] == "finished" && answer["job"].is_null(), "{answer}");
}

#[test]
fn parts_of_any_length_make_the_file_that_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let bytes = std::fs::read(noise(folder.path(), 12 << 20)).unwrap();
    let serve = Serve::start(&data, Path::new("ffmpeg"), &[]);
    let path = create(&serve, bytes.len(), "filename bm9pc2UuYmlu");
    let mut at = 0;
    // Shorter than a part of the store, longer, and one that ends where a part does.
    for length in [1, 100_000, 6 << 20, (5 << 20) * 2 - 100_001 - (6 << 20), 7, 1 << 20] {
        let answer = send_part(&serve, &path, at, &bytes[at..at + length], &[]);
        at += length;
        assert!(
            answer.status == 204 && answer.header("upload-offset") == Some(at.to_string().as_str()),
            "{answer:?}"
        );
        assert_eq!(serve.request(&path, &["-I"]).header("upload-offset"), Some(at.to_string().as_str()));
    }
    // Bytes for another offset, or with a wrong checksum, are not stored.
    assert_eq!(send_part(&serve, &path, at - 1, b"again", &[]).status, 409);
    let wrong = ["-H", "Upload-Checksum: sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0="];
    assert_eq!(send_part(&serve, &path, at, b"not abc", &wrong).status, 460);
    assert_eq!(send_part(&serve, &path, at, &[0; 4 << 20], &[]).status, 413, "more than was announced");
    let other = serve.request(&path, &["-X", "PATCH", "-H", "Tus-Resumable: 0.2.2"]);
    assert!(other.status == 412 && other.header("tus-version") == Some("1.0.0"), "{other:?}");
    let shown = serve.request(&path, &[]);
    assert!(shown.json()["received"] == at && shown.header("upload-expires").is_some(), "{shown:?}");
    // Another server goes on.
    serve.stop();
    let serve = Serve::start(&data, Path::new("ffmpeg"), &[]);
    assert_eq!(send_part(&serve, &path, at, &bytes[at..], &[]).status, 204);
    assert_eq!(serve.request(&path, &[]).json()["state"], "finished");
    let kept = stored_files(&data);
    assert!(kept.len() == 1 && kept[0] == ("noise.bin".to_owned(), bytes), "{} files", kept.len());
    assert_eq!(
        send_part(&serve, &path, 12 << 20, b"", &[]).status,
        204,
        "a finished upload accepts an empty part"
    );
}

#[test]
fn parts_go_straight_into_a_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let (data, s3) = (folder.path().join("data"), S3Server::start(&["uploads"]));
    let bytes = std::fs::read(noise(folder.path(), 17 << 20)).unwrap();
    let api = || Serve::api_with_uploads(&data, "s3://uploads/in", s3.env());
    let serve = api();
    let path = create(&serve, bytes.len(), "filename dGFsayBvbmUubXA0");
    let mut at = 0;
    for length in [3, 7 << 20, 9 << 20] {
        assert_eq!(send_part(&serve, &path, at, &bytes[at..at + length], &[]).status, 204);
        at += length;
    }
    serve.kill();
    let serve = api();
    assert_eq!(send_part(&serve, &path, at, &bytes[at..], &[]).status, 204);
    let id = path.rsplit('/').next().unwrap();
    let stored = s3.get("uploads", &format!("in/default/{id}/talk one.mp4")).unwrap();
    assert!(stored.bytes == bytes[..], "the stored bytes differ from the sent ones");
    assert_eq!(stored.content_type.as_deref(), Some("video/mp4"));
    let given_up = create(&serve, bytes.len(), "");
    assert_eq!(send_part(&serve, &given_up, 0, &bytes[..6 << 20], &[]).status, 204);
    assert_eq!(s3.unfinished_uploads(), 1);
    assert_eq!(serve.request(&given_up, &[&TUS[..], &["-X", "DELETE"]].concat()).status, 204);
    assert_eq!(s3.unfinished_uploads(), 0);
    let file = format!("@{}", folder.path().join("noise.bin").display());
    let answer = serve.request("/v1/uploads?job=none&name=whole.bin", &["--data-binary", &file]);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert!(s3.get("uploads", &format!("in/default/{id}/whole.bin")).unwrap().bytes == bytes[..]);
    // A small upload and a large one have the same media type: the declared one, else the extension's.
    let small = folder.path().join("small");
    std::fs::write(&small, &bytes[..1000]).unwrap();
    for file in [format!("@{}", small.display()), file] {
        for (declared, expected) in [("audio/flac", "audio/flac"), ("text/plain", "video/quicktime")] {
            let declared = format!("Content-Type: {declared}");
            let args = ["-H", &declared, "--data-binary", &file];
            let answer = serve.request("/v1/uploads?job=none&name=talk.mov", &args);
            let id = answer.json()["id"].as_str().unwrap().to_owned();
            let stored = s3.get("uploads", &format!("in/default/{id}/talk.mov")).unwrap();
            assert_eq!(stored.content_type.as_deref(), Some(expected), "{} bytes", stored.bytes.len());
        }
    }
}

#[test]
fn parts_sent_by_links_make_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (data, s3) = (folder.path().join("data"), S3Server::start(&["uploads"]));
    let bytes = std::fs::read(noise(folder.path(), 12 << 20)).unwrap();
    let api = || Serve::api_with_uploads(&data, "s3://uploads/in", s3.env());
    let serve = api();
    let document = json!({ "name": "a talk+1.mp4", "bytes": bytes.len(), "job": { "ladder": "180p" } });
    let begun = serve.post("/v1/uploads/multipart", &document, &[]);
    assert_eq!(begun.status, 201, "{begun:?}");
    assert_eq!((&begun.json()["parts"], &begun.json()["part_bytes"]), (&json!(3), &json!(5 << 20)));
    let path = begun.header("location").unwrap().to_owned();
    let links = |serve: &Serve, asked: Value| serve.post(&format!("{path}/links"), &asked, &[]);
    let all = links(&serve, json!({})).json()["links"].as_array().unwrap().clone();
    assert_eq!(
        all.iter().map(|link| link["bytes"].as_u64().unwrap()).collect::<Vec<_>>(),
        [5 << 20, 5 << 20, 2 << 20]
    );
    let refused = links(&serve, json!({ "from": 4 }));
    assert!(
        refused.status == 422 && refused.json()["detail"].as_str().unwrap().contains("from 1 to 3"),
        "{refused:?}"
    );
    // A client without knowledge of Amazon's keys. In any order, and repeated.
    let put = |url: &str, at: usize, length: usize| {
        let file = folder.path().join("part");
        std::fs::write(&file, &bytes[at..at + length]).unwrap();
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %header{etag}", "-T"]).arg(&file).arg(url);
        let output = String::from_utf8(curl.output().unwrap().stdout).unwrap();
        let (status, etag) = output.split_once(' ').unwrap();
        (status.to_owned(), etag.to_owned())
    };
    let url = |number: usize| all[number]["url"].as_str().unwrap();
    let mut etags = [const { String::new() }; 3];
    for number in [2, 0, 0] {
        let (status, etag) =
            put(url(number), number * (5 << 20), if number == 2 { 2 << 20 } else { 5 << 20 });
        assert_eq!(status, "200");
        etags[number] = etag;
    }
    // A link is good for its own part of its own upload, and expires.
    assert!(url(1).contains("X-Amz-Expires=3600"), "{}", url(1));
    assert_eq!(put(&url(1).replace("partNumber=2", "partNumber=3"), 0, 5 << 20).0, "403");
    assert_eq!(put(url(1), 0, (5 << 20) + 1).0, "403", "a link is for one length");
    let complete = |serve: &Serve, etags: &[String]| {
        serve.post(&format!("{path}/complete"), &json!({ "etags": etags }), &[])
    };
    assert_eq!(complete(&serve, &etags[..2]).status, 422);
    // Another server goes on.
    serve.kill();
    let serve = api();
    let again = links(&serve, json!({ "from": 2, "count": 1 })).json()["links"][0].clone();
    assert_eq!((&again["part"], &again["bytes"]), (&json!(2), &json!(5 << 20)));
    let (status, etag) = put(again["url"].as_str().unwrap(), 5 << 20, 5 << 20);
    assert_eq!(status, "200");
    etags[1] = etag;
    let finished = complete(&serve, &etags);
    assert!(finished.status == 200 && finished.json()["state"] == "finished", "{finished:?}");
    assert_eq!(complete(&serve, &etags).json(), finished.json(), "completing is idempotent");
    let id = path.rsplit('/').next().unwrap();
    assert!(
        s3.get("uploads", &format!("in/default/{id}/a talk+1.mp4")).unwrap().bytes == bytes[..],
        "the stored bytes differ from the sent ones"
    );
    let job = serve.get_job(finished.json()["job"].as_str().unwrap());
    assert_eq!(job["request"]["source"], format!("s3://uploads/in/default/{id}/a talk+1.mp4"));
    assert_eq!((s3.unfinished_uploads(), links(&serve, json!({})).status), (0, 409));
    // An aborted upload leaves no parts; and a folder has no links.
    let other = serve.post("/v1/uploads/multipart", &json!({ "bytes": 100 }), &[]);
    assert_eq!(s3.unfinished_uploads(), 1);
    assert_eq!(
        serve.request(other.header("location").unwrap(), &[&TUS[..], &["-X", "DELETE"]].concat()).status,
        204
    );
    assert_eq!(s3.unfinished_uploads(), 0);
    let local = Serve::api(&data).post("/v1/uploads/multipart", &json!({ "bytes": 100 }), &[]);
    assert!(local.status == 422 && local.json()["detail"].as_str().unwrap().contains("tus"), "{local:?}");
}

#[test]
fn parts_with_wrong_bytes_make_no_upload() {
    let folder = tempfile::tempdir().unwrap();
    let amazon = Moto::start();
    let serve = Serve::api_with_uploads(&folder.path().join("data"), "s3://inbox/uploads/", amazon.env());
    let send = |bytes: usize, sent: usize| {
        let begun = serve.post("/v1/uploads/multipart", &json!({ "bytes": bytes }), &[]);
        let path = begun.header("location").unwrap().to_owned();
        let link = serve.post(&format!("{path}/links"), &json!({}), &[]).json()["links"][0]["url"]
            .as_str()
            .unwrap()
            .to_owned();
        let file = folder.path().join("part");
        std::fs::write(&file, vec![7; sent]).unwrap();
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-o", "/dev/null", "-w", "%header{etag}", "-T"]).arg(&file).arg(link);
        (path, String::from_utf8(curl.output().unwrap().stdout).unwrap())
    };
    let complete =
        |path: &str, etag: &str| serve.post(&format!("{path}/complete"), &json!({ "etags": [etag] }), &[]);
    let (path, etag) = send(1000, 1000);
    let wrong = complete(&path, "\"0123456789abcdef0123456789abcdef\"");
    assert_eq!(wrong.status, 422, "{wrong:?}");
    assert_eq!(serve.request(&path, &[]).json()["state"], "open", "refused bytes can be sent again");
    assert_eq!(complete(&path, &etag).json()["state"], "finished");
    // Shorter than announced: it is no upload, and nothing of it stays.
    let (path, etag) = send(1000, 999);
    let short = complete(&path, &etag);
    assert!(short.status == 409 && short.json()["detail"].as_str().unwrap().contains("999"), "{short:?}");
    assert_eq!(serve.request(&path, &[]).json()["state"], "gone");
}

#[test]
fn an_aborted_upload_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let serve = Serve::start(&data, Path::new("ffmpeg"), &[]);
    let path = create(&serve, 1000, "");
    assert_eq!(send_part(&serve, &path, 0, b"some of it", &[]).status, 204);
    assert_eq!(serve.request(&path, &[&TUS[..], &["-X", "DELETE"]].concat()).status, 204);
    assert!(folder::files(&data.join("uploads")).is_empty());
    assert_eq!(send_part(&serve, &path, 10, b"more", &[]).status, 404);
    assert_eq!(serve.request(&path, &[&TUS[..], &["-X", "DELETE"]].concat()).status, 404);
    let options = serve.request("/v1/uploads", &["-X", "OPTIONS"]);
    assert!(
        options.status == 204 && options.header("tus-extension").unwrap().contains("checksum"),
        "{options:?}"
    );
}

#[test]
fn an_invalid_upload_is_refused_before_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let serve = Serve::start(&data, Path::new("ffmpeg"), &[]);
    let tus = |more: &[&str]| serve.request("/v1/uploads", &[&TUS[..], &["-X", "POST"], more].concat());
    let bad_job = "Upload-Metadata: job eyJsYWRkZXIiOiAiODAwMHgifQ==";
    let foreign = "Upload-Metadata: job eyJzb3VyY2UiOiAiL2V0Yy9wYXNzd2QifQ==";
    let cases = [
        (tus(&[]), 400, "Upload-Length"),
        (tus(&["-H", "Upload-Length: -1"]), 400, "upload-length"),
        (tus(&["-H", "Upload-Length: 999999999999999"]), 413, "at most"),
        (tus(&["-H", "Upload-Length: 10", "-H", "Upload-Metadata: name !"]), 400, "Upload-Metadata"),
        (tus(&["-H", "Upload-Length: 10", "-H", bad_job]), 422, "ladder"),
        (tus(&["-H", "Upload-Length: 10", "-H", foreign]), 422, "job"),
        (serve.request("/v1/uploads?job=%7B%22sql%22:%22SELECT%201%22%7D", &["-d", "x"]), 422, "job"),
        (serve.request("/v1/uploads?speed=2", &["-d", "x"]), 400, "speed"),
        (
            serve.request("/v1/uploads", &["-H", "Transfer-Encoding: chunked", "-d", "x"]),
            411,
            "Content-Length",
        ),
        (serve.request("/v1/uploads/upload_0", &[]), 404, "upload_0"),
    ];
    for (answer, status, says) in cases {
        assert_eq!(answer.status, status, "{answer:?}");
        let problem: Value = answer.json();
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
    assert!(folder::files(&data.join("uploads")).is_empty());
    for name in ["../../../../etc/cron.d/x", "..", ".hidden", "a/b/c", "%00", ""] {
        let name = name.replace('/', "%2F");
        let answer = serve.request(&format!("/v1/uploads?job=none&name={name}"), &["-d", "x"]);
        assert!(answer.status == 201, "{name}: {answer:?}");
    }
    let below =
        folder::files(&data).into_keys().filter(|name| !name.starts_with("jobs.db")).collect::<Vec<_>>();
    assert!(
        below.len() == 6 && below.iter().all(|name| name.starts_with("uploads/default/upload_")),
        "{below:?}"
    );
}

/// A real client, and three servers, each of which is killed while it receives.
#[test]
fn an_independent_tus_client_uploads_and_resumes() {
    let root = spool_tests::repository::root();
    let python = root.join(".cache/python");
    assert!(
        python.join("tusclient").exists(),
        "run scripts/python-setup .cache/python tests/clients/requirements.txt first"
    );
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), noise(folder.path(), 12_345_678));
    let serve = Serve::api(&data);
    let output = Command::new("python3")
        .env("PYTHONPATH", python)
        .arg(root.join("tests/clients/upload.py"))
        .arg(format!("{}/v1/uploads", serve.address))
        .arg(&file)
        .args(["3000001", r#"{"filename": "noise.bin"}"#])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stored_files(&data), [("noise.bin".to_owned(), std::fs::read(&file).unwrap())]);
}

#[test]
fn a_resumed_upload_loses_no_byte_to_killed_servers() {
    let browser = spool_tests::repository::root().join("tests/browser");
    assert!(browser.join("node_modules/tus-js-client").exists(), "run scripts/browser-setup first");
    let full = std::env::var_os("SPOOL_TEST_FULL").is_some();
    let bytes: u64 = if full { 200 << 20 } else { 48 << 20 };
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), noise(folder.path(), bytes));
    let mut serves: Vec<Serve> = (0..4).map(|_| Serve::api(&data)).collect();
    let balancer = LoadBalancer::start(&serves[0].address);
    let mut client = Command::new("node")
        .arg(browser.join("upload.mjs"))
        .arg(format!("{}/v1/uploads", balancer.address))
        .arg(&file)
        .args(["3000001", r#"{"filename": "noise.bin"}"#])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let (mut at, mut most) = (Vec::new(), 0);
    for line in lines.map_while(Result::ok) {
        let Some(accepted) = line.strip_prefix("at ") else { continue };
        at.push(accepted.parse::<u64>().unwrap());
        let dead = 4 - serves.len() as u64;
        if serves.len() > 1 && at.last().unwrap() * 4 > bytes * (dead + 1) {
            let victim = serves.remove(0);
            most = most.max(victim.peak_bytes());
            balancer.set_backend(&serves[0].address);
            victim.kill();
        }
    }
    assert!(client.wait().unwrap().success() && serves.len() == 1 && at.last() == Some(&bytes), "{at:?}");
    most = most.max(serves[0].peak_bytes());
    println!("servers used at most {} MB", most >> 20);
    assert!(most < 150 << 20, "{most} bytes");
    let kept = stored_files(&data);
    assert!(
        kept.len() == 1 && kept[0].1 == std::fs::read(&file).unwrap(),
        "the stored bytes differ from the sent ones"
    );
    let uploads = serves[0].request("/v1/jobs", &[]).json();
    assert_eq!(uploads["jobs"], json!([]), "no job was requested");
}
