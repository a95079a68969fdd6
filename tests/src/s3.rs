//! An S3 server for tests: the real protocol with checked signatures, in this process, over a temporary directory.
//!
//! `s3s-fs` keeps the objects. The layer before it adds what that lacks of S3's behaviour (conditions on reads, writes that are atomic
//! against each other, 404 for a missing bucket), writes down every request, and can be told to fail.
#![expect(clippy::expect_used, reason = "a library of tests: a server that does not start is a failed test")]

// Named, because the tests of the stores have this file as a module of theirs.
#[path = "s3/layer.rs"]
mod layer;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{
    S3,
    auth::SimpleAuth,
    dto::*,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinSet};

use self::layer::{Layer, body, collect, request};

const ACCESS_KEY: &str = "SPOOLTESTKEY";
const SECRET_KEY: &str = "spool/test+secret";

/// A running server. Dropped, it stops and its objects are gone.
///
/// It has threads of its own, so that it can be used from blocking tests and from inside any runtime.
pub struct S3Server {
    address: SocketAddr,
    layer: Layer,
    runtime: Option<Runtime>,
    directory: TempDir,
}

/// What the server was asked, in order of arrival. Requests that fail authentication don't get this far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// S3's name of the operation: `GetObject`, `PutObject`, `UploadPart`, …
    pub operation: &'static str,
    /// The bucket.
    pub bucket: String,
    /// The key, or the prefix of a listing.
    pub key: String,
    /// First and last byte of a ranged read.
    pub range: Option<(u64, u64)>,
    /// Bytes of body received.
    pub received: u64,
    /// Bytes of body answered with.
    pub sent: u64,
}

/// How a request can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 503 SlowDown; nothing is done.
    Busy,
    /// 500 InternalError; nothing is done.
    Internal,
    /// 403 AccessDenied; nothing is done.
    Denied,
    /// 409 ConditionalRequestConflict; nothing is done.
    Conflict,
    /// No answer for this long, then it is done.
    Stall(Duration),
    /// It is done, and the answer is 500.
    LostAnswer,
}

/// An object as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What is in it.
    pub bytes: Bytes,
    /// Without quotes.
    pub etag: String,
    /// As it was sent.
    pub content_type: Option<String>,
    /// As it was sent.
    pub cache_control: Option<String>,
}

impl S3Server {
    /// Starts a server with one bucket of each of these names.
    pub fn start(buckets: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        for bucket in buckets {
            std::fs::create_dir(directory.path().join(bucket)).expect("a bucket");
        }
        let layer = Layer {
            objects: Arc::new(FileSystem::new(directory.path()).expect("a file system")),
            root: directory.path().canonicalize().expect("a temporary directory"),
            state: Arc::default(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let mut builder = S3ServiceBuilder::new(layer.clone());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        runtime.spawn(serve(listener, builder.build()));
        Self { address, layer, runtime: Some(runtime), directory }
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The variables that lead a client here, with credentials.
    pub fn env(&self) -> Vec<(String, String)> {
        let variables = [
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ];
        variables.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Adds a bucket.
    pub fn add_bucket(&self, bucket: &str) {
        std::fs::create_dir(self.directory.path().join(bucket)).expect("a bucket");
    }

    /// Puts an object there, past the wire and the log: also how a test changes an object behind a reader's back.
    pub fn put(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        let input = PutObjectInput {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            content_length: i64::try_from(bytes.len()).ok(),
            body: Some(body(bytes)),
            ..PutObjectInput::default()
        };
        let layer = self.layer.clone();
        self.run(async move {
            let _order = layer.state.order.write().await;
            layer.objects.put_object(request(input)).await.map(|_| ())
        })
        .expect("an object");
    }

    /// What is kept under a key.
    pub fn get(&self, bucket: &str, key: &str) -> Option<Stored> {
        let layer = self.layer.clone();
        let input =
            GetObjectInput { bucket: bucket.to_owned(), key: key.to_owned(), ..GetObjectInput::default() };
        self.run(async move {
            let _order = layer.state.order.read().await;
            layer.find(&input.bucket, &input.key).ok()?;
            let output = layer.objects.get_object(request(input)).await.ok()?.output;
            Some(Stored {
                bytes: collect(output.body?).await.ok()?,
                etag: output.e_tag?.into_value(),
                content_type: output.content_type,
                cache_control: output.cache_control,
            })
        })
    }

    /// Removes an object, past the wire and the log.
    pub fn remove(&self, bucket: &str, key: &str) {
        std::fs::remove_file(self.directory.path().join(bucket).join(key)).expect("an object");
    }

    /// Everything asked since the start or the last [`S3Server::forget`].
    pub fn asked(&self) -> Vec<Asked> {
        self.layer.state.seen().asked.clone()
    }

    /// How often an operation was asked for.
    pub fn count(&self, operation: &str) -> usize {
        self.layer.state.seen().asked.iter().filter(|asked| asked.operation == operation).count()
    }

    /// Bytes of objects sent.
    pub fn bytes_sent(&self) -> u64 {
        self.layer.state.seen().asked.iter().map(|asked| asked.sent).sum()
    }

    /// Empties the log.
    pub fn forget(&self) {
        self.layer.state.seen().asked.clear();
    }

    /// Makes the next `times` requests fail, of one operation or of any.
    pub fn fail_next(&self, times: usize, operation: Option<&'static str>, fault: Fault) {
        self.layer.state.seen().faults.extend(std::iter::repeat_n((operation, fault), times));
    }

    /// Faults that no request has met yet.
    pub fn faults_left(&self) -> usize {
        self.layer.state.seen().faults.len()
    }

    /// From now on, answers conditional writes with 501, as stores do that don't know them.
    pub fn forget_conditional_writes(&self) {
        self.layer.state.unconditional.store(true, Ordering::Relaxed);
    }

    /// Uploads in parts that were begun and neither completed nor aborted.
    pub fn unfinished_uploads(&self) -> usize {
        let names = std::fs::read_dir(self.directory.path())
            .expect("a directory")
            .flatten()
            .map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".upload-")).count()
    }

    /// Stops answering: connections break, new ones are refused.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // The listener is gone once its task is dropped, which the shutdown does on its own thread.
        while std::net::TcpStream::connect(self.address).is_ok() {
            std::thread::yield_now();
        }
    }

    /// Runs on the server's threads and waits: also from inside another runtime.
    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.runtime.as_ref().expect("a running server").spawn(async move {
            let _ = sender.send(work.await);
        });
        receiver.recv().expect("a running server")
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: std::net::TcpListener, service: S3Service) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let service = service.clone();
                connections.spawn(async move {
                    // A client that hangs up is its own affair.
                    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
