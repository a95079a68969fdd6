//! Ports: which are open, and what they do for a client without credentials, for a foreign web page, and with
//! TLS.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts the processes that it tests"
)]

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use spool_tests::{
    clips::Clip,
    cluster::Cluster,
    ffmpeg_wrapper::FfmpegWrapper,
    folder,
    run::{Spool, wait_until},
    serve::Serve,
};
use spool_wire::{
    Address,
    v1::{
        ExecutorMessage, Register, ResultMessage, Statement, executor_message::Message,
        executor_service_client::ExecutorServiceClient, statements_client::StatementsClient,
    },
};
use tonic::Code;

const DEADLINE: Duration = Duration::from_secs(60);

/// Returns the TCP ports on which a process and its children listen.
fn listening(process: u32) -> BTreeSet<u16> {
    let output = Command::new("ss").args(["-H", "-l", "-t", "-n", "-p"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = format!("pid={process},");
    let lines = text.lines().filter(|line| line.contains(&ours));
    lines
        .map(|line| line.split_whitespace().nth(3).unwrap().rsplit(':').next().unwrap().parse().unwrap())
        .collect()
}

/// Sends bytes to a port, and returns the response.
fn exchange(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = Vec::new();
    // A server that keeps the connection open ends the wait by the time limit.
    let _ = stream.read_to_end(&mut response);
    String::from_utf8_lossy(&response).into_owned()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn plain(address: &str) -> Address {
    Address::Tcp { address: address.to_owned(), tls: None }
}

#[test]
fn an_executor_listens_on_nothing() {
    let ffmpeg = FfmpegWrapper::new();
    let mut cluster = Cluster::start(2, &ffmpeg.path(), &[]);
    let folder = tempfile::tempdir().unwrap();
    let source = Clip { frames: 250, ..Clip::default() }.make(folder.path(), "clip.mp4");
    let out = folder.path().join("out");
    let ran = cluster
        .spool(&["transcode", source.to_str().unwrap(), "-o", out.to_str().unwrap(), "--segment", "4"])
        .run();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(out.join("master.m3u8").exists() && !folder::media(&out).is_empty());
    for number in 0..2 {
        assert_eq!(listening(cluster.executor(number).id()), BTreeSet::new());
    }
    assert_eq!(listening(cluster.scheduler().id()).len(), 1);
    cluster.stop();
}

#[test]
fn a_cluster_in_one_process_has_no_port_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::start(&folder.path().join("data"), Path::new("ffmpeg"), &[]);
    let port: u16 = serve.address.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(listening(serve.id()), BTreeSet::from([port]));
}

#[test]
fn a_scheduler_takes_no_order_without_its_token() {
    let ffmpeg = FfmpegWrapper::new();
    let cluster = Cluster::start(0, &ffmpeg.path(), &[]);
    let refused = |code: Code| assert_eq!(code, Code::Unauthenticated);
    runtime().block_on(async {
        for token in [None, Some("another")] {
            let connection = spool_wire::connect(&plain(&cluster.address()), token).await.unwrap();
            let statement = Statement {
                sql: "SELECT 1".to_owned(),
                client_version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Default::default()
            };
            refused(StatementsClient::new(connection.clone()).run(statement).await.unwrap_err().code());
            let mut executors = ExecutorServiceClient::new(connection);
            let register = Message::Register(Register { slots: 1, ..Default::default() });
            let messages = tokio_stream::iter([ExecutorMessage { message: Some(register) }]);
            refused(executors.connect(messages).await.unwrap_err().code());
            let result = tokio_stream::iter([ResultMessage::default()]);
            refused(executors.send_result(result).await.unwrap_err().code());
        }
    });
    for path in ["/metrics", "/demand", "/executors", "/statements"] {
        let answer = cluster.http_with(None, "GET", path).unwrap();
        assert!(answer.contains("SPOOL_TOKEN"), "{path}: {answer}");
    }
    for path in ["/livez", "/readyz"] {
        assert!(cluster.http_with(None, "GET", path).unwrap().starts_with("ok"), "{path}");
    }
    let stranger = Spool::new(["sql", "--cluster", &cluster.address(), "-c", "SELECT 1"]).run();
    assert_eq!(
        (stranger.code, stranger.stderr.contains("SPOOL_TOKEN")),
        (Some(4), true),
        "{}",
        stranger.stderr
    );
}

/// A page cannot read the response, but the request alone would run a statement.
#[test]
fn a_scheduler_refuses_web_pages() {
    let ffmpeg = FfmpegWrapper::new();
    let cluster = Cluster::start(0, &ffmpeg.path(), &[]);
    let (address, token) = (cluster.address(), cluster.token().unwrap());
    let post = |host: &str, more: &str| {
        exchange(
            &address,
            &format!(
                "POST /spool.v1.Statements/Run HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
                 {more}Content-Length: 5\r\nConnection: close\r\n\r\n\0\0\0\0\0"
            ),
        )
    };
    let status = |response: &str| response.split(' ').nth(1).unwrap_or_default().to_owned();
    assert_eq!(status(&post(&address, "Content-Type: text/plain\r\n")), "415");
    assert_eq!(status(&post(&address, "Content-Type: application/grpc\r\n")), "415", "HTTP/1.1");
    assert_eq!(
        status(&post(&address, "Origin: http://evil.example\r\nContent-Type: application/grpc\r\n")),
        "403"
    );
    assert_eq!(status(&post("rebound.example", "Content-Type: application/grpc\r\n")), "403");
    let get = |host: &str, more: &str| {
        exchange(&address, &format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n"))
    };
    assert_eq!(status(&get(&address, "")), "200");
    assert_eq!(status(&get("rebound.example", "")), "403");
    assert_eq!(status(&get(&address, "Origin: null\r\n")), "403");
}

#[test]
fn beyond_loopback_a_role_needs_tls() {
    for role in [
        &["scheduler", "--token", "secret"][..],
        &["api", "--database", "jobs.db", "--uploads", "uploads", "--auth", "keys"],
        &["serve", "--auth", "keys"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let args = role.iter().copied().chain(["--listen", "0.0.0.0:0"]);
        let ran = Spool::new(args).current_dir(folder.path()).run();
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains("--tls-cert") && ran.stderr.contains("--insecure"), "{}", ran.stderr);
    }
}

/// Makes the certificate of a member in a folder.
fn member(folder: &Path, name: &str) {
    let ran = Spool::new(["tls", "init", folder.to_str().unwrap(), "--member", name]).run();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn a_cluster_with_mutual_tls_transcodes_and_refuses_everything_else() {
    let tls = tempfile::tempdir().unwrap();
    let (ours, foreign) = (tls.path().join("ours"), tls.path().join("foreign"));
    for (folder, name) in [(&ours, "scheduler"), (&ours, "node"), (&foreign, "node")] {
        member(folder, name);
    }
    let of = |folder: &Path, name: &str| {
        let path = |file: String| folder.join(file).to_str().unwrap().to_owned();
        let (cert, key) = (path(format!("{name}.pem")), path(format!("{name}.key")));
        ["--tls-cert".to_owned(), cert, "--tls-key".to_owned(), key]
    };
    let ca = ["--tls-ca".to_owned(), ours.join("ca.pem").to_str().unwrap().to_owned()];
    let args = |identity: &[String]| -> Vec<String> { identity.iter().chain(&ca).cloned().collect() };
    let scheduler = args(&of(&ours, "scheduler"));
    let ffmpeg = FfmpegWrapper::new();
    let mut cluster = Cluster::start_with_tls(&ffmpeg.path(), &as_refs(&scheduler), &ours, "node");
    let node = args(&of(&ours, "node"));
    cluster.add_executor(&as_refs(&node));
    cluster.wait_for_slots(1);
    let folder = tempfile::tempdir().unwrap();
    let source = Clip { frames: 250, ..Clip::default() }.make(folder.path(), "clip.mp4");
    let out = folder.path().join("out");
    let transcode = ["transcode", source.to_str().unwrap(), "-o", out.to_str().unwrap(), "--segment", "4"];
    let with = |more: &[String]| {
        let all: Vec<&str> = transcode.iter().copied().chain(more.iter().map(String::as_str)).collect();
        cluster.spool(&all)
    };
    let ran = with(&node).run();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(out.join("master.m3u8").exists());
    // A connection that fails its handshake is one that does not come about: clients try again for a while.
    for stranger in [args(&of(&foreign, "node")), ca.to_vec(), Vec::new()] {
        let address = Address::Tcp {
            address: cluster.address(),
            tls: (!stranger.is_empty()).then(|| spool_tls::ClientFiles {
                ca: Some(ours.join("ca.pem")),
                identity: (stranger.len() > 2)
                    .then(|| (stranger[1].clone().into(), stranger[3].clone().into())),
            }),
        };
        let token = cluster.token();
        let code = runtime().block_on(async {
            let connection = match spool_wire::connect(&address, token.as_deref()).await {
                Ok(connection) => connection,
                Err(status) => return status.code(),
            };
            let statement = Statement { sql: "SELECT 1".to_owned(), ..Default::default() };
            StatementsClient::new(connection).run(statement).await.unwrap_err().code()
        });
        assert!(matches!(code, Code::Unavailable | Code::Unknown | Code::Internal), "{stranger:?}: {code:?}");
    }
    // A new certificate is taken on SIGHUP, and the role stays.
    let before = fs::read(ours.join("scheduler.pem")).unwrap();
    member(&ours, "scheduler");
    assert_ne!(before, fs::read(ours.join("scheduler.pem")).unwrap());
    cluster.scheduler().signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("the new certificate", DEADLINE, || {
        let bare = |pem: String| pem.split_whitespace().collect::<String>();
        let new = fs::read_to_string(ours.join("scheduler.pem")).unwrap();
        (bare(cluster.certificate()) == bare(new)).then_some(())
    });
    cluster.stop();
}

fn as_refs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn the_api_speaks_tls() {
    let folder = tempfile::tempdir().unwrap();
    let tls = folder.path().join("tls");
    member(&tls, "api");
    let path = |file: &str| tls.join(file).to_str().unwrap().to_owned();
    let (cert, key) = (path("api.pem"), path("api.key"));
    let args = ["--tls-cert", &cert, "--tls-key", &key];
    let serve = Serve::start(&folder.path().join("data"), Path::new("ffmpeg"), &args);
    assert!(serve.address.starts_with("https://"), "{}", serve.address);
    let curl = |more: &[&str]| {
        let url = format!("{}/livez", serve.address);
        Command::new("curl").args(["-sS", "--max-time", "10"]).args(more).arg(url).output().unwrap()
    };
    let trusted = curl(&["--cacert", &path("ca.pem")]);
    assert_eq!(String::from_utf8_lossy(&trusted.stdout), "ok", "{trusted:?}");
    assert!(!curl(&[]).status.success(), "nothing trusts this authority");
    let listed = Spool::new(["jobs", "ls", "--server", &serve.address, "--tls-ca", &path("ca.pem")]).run();
    assert_eq!(listed.code, Some(0), "{}", listed.stderr);
}
