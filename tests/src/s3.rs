//! An S3 server for tests: the real protocol with checked signatures, in this process, over a temporary
//! directory.
//!
//! `s3s-fs` stores the objects. The layer before it adds behaviour of S3 that it lacks (conditions on reads,
//! atomic writes, 404 for a missing bucket), logs every request, and injects faults.
#![expect(clippy::expect_used, reason = "a library of tests: a server that does not start is a failed test")]

// Named, because the tests of the storage crate include this file as a module of theirs.
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

/// A running server. When it is dropped, it stops and its objects are gone.
///
/// It has its own threads, so that it can be used from blocking tests and from inside any runtime.
pub struct S3Server {
    address: SocketAddr,
    layer: Layer,
    runtime: Option<Runtime>,
    directory: TempDir,
}

/// One request that the server received, in order of arrival. Requests that fail authentication are not
/// logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedRequest {
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
    /// Bytes of body sent.
    pub sent: u64,
}

/// A fault to inject into a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 503 SlowDown; the request is not executed.
    Busy,
    /// 500 InternalError; the request is not executed.
    Internal,
    /// 403 AccessDenied; the request is not executed.
    Denied,
    /// 409 ConditionalRequestConflict; the request is not executed.
    Conflict,
    /// No response for this long, then the request is executed.
    Stall(Duration),
    /// The request is executed, and the response is 500.
    LostAnswer,
}

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Content.
    pub bytes: Bytes,
    /// ETag, without quotes.
    pub etag: String,
    /// `Content-Type` as it was sent.
    pub content_type: Option<String>,
    /// `Cache-Control` as it was sent.
    pub cache_control: Option<String>,
}

impl S3Server {
    /// Starts a server with these buckets.
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

    /// Returns `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the environment variables that lead a client here, with credentials.
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

    /// Writes an object without a request in the log: also how a test changes an object behind a reader's
    /// back.
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

    /// Returns the stored object of a key.
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

    /// Removes an object without a request in the log.
    pub fn remove(&self, bucket: &str, key: &str) {
        std::fs::remove_file(self.directory.path().join(bucket).join(key)).expect("an object");
    }

    /// Returns all requests since the start or the last time the log was cleared.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.layer.state.seen().requests.clone()
    }

    /// Returns the number of requests of an operation.
    pub fn count(&self, operation: &str) -> usize {
        self.layer.state.seen().requests.iter().filter(|request| request.operation == operation).count()
    }

    /// Returns the bytes of objects sent.
    pub fn bytes_sent(&self) -> u64 {
        self.layer.state.seen().requests.iter().map(|request| request.sent).sum()
    }

    /// Clears the log.
    pub fn clear_log(&self) {
        self.layer.state.seen().requests.clear();
    }

    /// Makes the next `times` requests fail, of one operation or of any.
    pub fn fail_next(&self, times: usize, operation: Option<&'static str>, fault: Fault) {
        self.layer.state.seen().faults.extend(std::iter::repeat_n((operation, fault), times));
    }

    /// Returns the faults that no request has met yet.
    pub fn faults_left(&self) -> usize {
        self.layer.state.seen().faults.len()
    }

    /// Answers conditional writes with 501 from now on, as stores without them do.
    pub fn disable_conditional_writes(&self) {
        self.layer.state.unconditional.store(true, Ordering::Relaxed);
    }

    /// Returns the multipart uploads that were neither completed nor aborted.
    pub fn unfinished_uploads(&self) -> usize {
        let names = std::fs::read_dir(self.directory.path())
            .expect("a directory")
            .flatten()
            .map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".upload-")).count()
    }

    /// Stops the server: connections break, new ones are refused.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // The listener is closed once its task is dropped, which the shutdown does on its own thread.
        while std::net::TcpStream::connect(self.address).is_ok() {
            std::thread::yield_now();
        }
    }

    /// Runs a future on the server's threads and waits for it: also from inside another runtime.
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
                    let connection = auto::Builder::new(TokioExecutor::new());
                    // A client that hangs up is no failure of the server.
                    let _ = connection.serve_connection(TokioIo::new(socket), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
