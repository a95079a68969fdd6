//! An S3 server for tests: the real protocol with checked signatures, in this process, over a temporary directory.
//!
//! `s3s-fs` keeps the objects. The layer before it adds what that lacks of S3's behaviour (conditions on reads, writes that are atomic
//! against each other, 404 for a missing bucket), writes down every request, and can be told to fail.
#![expect(clippy::expect_used, reason = "a library of tests: a server that does not start is a failed test")]

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{
    Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result,
    auth::SimpleAuth,
    dto::*,
    s3_error,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::RwLock, task::JoinSet};

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
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
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
        let input = GetObjectInput { bucket: bucket.to_owned(), key: key.to_owned(), ..GetObjectInput::default() };
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
        let names = std::fs::read_dir(self.directory.path()).expect("a directory").flatten().map(|entry| entry.file_name());
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

/// What stands before `s3s-fs`.
#[derive(Clone)]
struct Layer {
    objects: Arc<FileSystem>,
    root: PathBuf,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Seen>,
    /// `s3s-fs` writes an object and its ETag one after the other: who reads must not come between.
    order: RwLock<()>,
    unconditional: AtomicBool,
}

#[derive(Default)]
struct Seen {
    asked: Vec<Asked>,
    faults: Vec<(Option<&'static str>, Fault)>,
}

impl State {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Layer {
    /// Writes the request down and meets the fault that waits for it, if any.
    async fn enter(&self, operation: &'static str, bucket: &str, key: &str) -> S3Result<Entered<'_>> {
        let (index, fault) = {
            let mut seen = self.state.seen();
            let asked = Asked { operation, bucket: bucket.into(), key: key.into(), range: None, received: 0, sent: 0 };
            seen.asked.push(asked);
            let due = seen.faults.iter().position(|(of, _)| of.is_none_or(|of| of == operation));
            (seen.asked.len() - 1, due.map(|due| seen.faults.remove(due).1))
        };
        let mut entered = Entered { state: &self.state, index, answer_is_lost: false };
        match fault {
            None => {}
            Some(Fault::Busy) => return Err(s3_error!(SlowDown)),
            Some(Fault::Internal) => return Err(s3_error!(InternalError)),
            Some(Fault::Denied) => return Err(s3_error!(AccessDenied)),
            Some(Fault::Conflict) => return Err(s3_error!(ConditionalRequestConflict)),
            Some(Fault::Stall(time)) => tokio::time::sleep(time).await,
            Some(Fault::LostAnswer) => entered.answer_is_lost = true,
        }
        if !self.root.join(bucket).is_dir() {
            return Err(s3_error!(NoSuchBucket));
        }
        Ok(entered)
    }

    /// A directory is no object, though `s3s-fs` takes it for one.
    fn find(&self, bucket: &str, key: &str) -> S3Result<()> {
        if self.root.join(bucket).join(key).is_file() { Ok(()) } else { Err(s3_error!(NoSuchKey)) }
    }
}

/// A request that was let in.
struct Entered<'a> {
    state: &'a State,
    index: usize,
    answer_is_lost: bool,
}

impl Entered<'_> {
    fn note(&self, note: impl FnOnce(&mut Asked)) {
        // Gone if the log was emptied meanwhile.
        if let Some(asked) = self.state.seen().asked.get_mut(self.index) {
            note(asked);
        }
    }

    fn leave<T>(self, result: S3Result<S3Response<T>>) -> S3Result<S3Response<T>> {
        if self.answer_is_lost { Err(s3_error!(InternalError, "the answer is lost")) } else { result }
    }
}

#[async_trait::async_trait]
impl S3 for Layer {
    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        let entered = self.enter("HeadBucket", &req.input.bucket, "").await?;
        entered.leave(self.objects.head_bucket(req).await)
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let entered = self.enter("GetObject", &req.input.bucket, &req.input.key).await?;
        entered.note(|asked| {
            asked.range = match req.input.range {
                Some(Range::Int { first, last }) => Some((first, last.unwrap_or(u64::MAX))),
                _ => None,
            }
        });
        let _order = self.state.order.read().await;
        self.find(&req.input.bucket, &req.input.key)?;
        let whole = req.clone().map_input(|input| GetObjectInput { range: None, ..input });
        let present = self.objects.get_object(whole).await?.output;
        check_read(&req.input, present.e_tag.as_ref(), present.last_modified.as_ref())?;
        let response = self.objects.get_object(req).await?;
        entered.note(|asked| asked.sent = u64::try_from(response.output.content_length.unwrap_or_default()).unwrap_or_default());
        entered.leave(Ok(response))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let entered = self.enter("HeadObject", &req.input.bucket, &req.input.key).await?;
        let _order = self.state.order.read().await;
        self.find(&req.input.bucket, &req.input.key)?;
        entered.leave(self.objects.head_object(req).await)
    }

    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let received = receive(&mut req.input.body).await?;
        let entered = self.enter("PutObject", &req.input.bucket, &req.input.key).await?;
        entered.note(|asked| asked.received = received);
        if self.state.unconditional.load(Ordering::Relaxed) && (req.input.if_match.is_some() || req.input.if_none_match.is_some()) {
            return Err(s3_error!(NotImplemented));
        }
        let _order = self.state.order.write().await;
        if req.input.if_match.is_some() {
            self.find(&req.input.bucket, &req.input.key)?;
        }
        entered.leave(self.objects.put_object(req).await)
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let entered = self.enter("CopyObject", &req.input.bucket, &req.input.key).await?;
        let _order = self.state.order.write().await;
        entered.leave(self.objects.copy_object(req).await)
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let entered = self.enter("DeleteObject", &req.input.bucket, &req.input.key).await?;
        let _order = self.state.order.write().await;
        entered.leave(self.objects.delete_object(req).await)
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let keys = req.input.delete.objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>().join(" ");
        let entered = self.enter("DeleteObjects", &req.input.bucket, &keys).await?;
        let _order = self.state.order.write().await;
        entered.leave(self.objects.delete_objects(req).await)
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let entered = self.enter("ListObjectsV2", &req.input.bucket, req.input.prefix.as_deref().unwrap_or_default()).await?;
        let _order = self.state.order.read().await;
        entered.leave(self.objects.list_objects_v2(req).await)
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let entered = self.enter("CreateMultipartUpload", &req.input.bucket, &req.input.key).await?;
        entered.leave(self.objects.create_multipart_upload(req).await)
    }

    async fn upload_part(&self, mut req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let received = receive(&mut req.input.body).await?;
        let entered = self.enter("UploadPart", &req.input.bucket, &req.input.key).await?;
        entered.note(|asked| asked.received = received);
        entered.leave(self.objects.upload_part(req).await)
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let entered = self.enter("ListParts", &req.input.bucket, &req.input.key).await?;
        entered.leave(self.objects.list_parts(req).await)
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let entered = self.enter("CompleteMultipartUpload", &req.input.bucket, &req.input.key).await?;
        let _order = self.state.order.write().await;
        entered.leave(self.objects.complete_multipart_upload(req).await)
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let entered = self.enter("AbortMultipartUpload", &req.input.bucket, &req.input.key).await?;
        entered.leave(self.objects.abort_multipart_upload(req).await)
    }
}

/// If-Match and If-Unmodified-Since of a read (RFC 9110 section 13.2.2: the second counts only without the first).
fn check_read(input: &GetObjectInput, etag: Option<&ETag>, modified: Option<&Timestamp>) -> S3Result<()> {
    let holds = match (&input.if_match, &input.if_unmodified_since) {
        (Some(ETagCondition::ETag(expected)), _) => etag.is_some_and(|etag| etag.strong_cmp(expected)),
        (None, Some(date)) => modified.is_some_and(|modified| seconds(modified) <= seconds(date)),
        _ => true,
    };
    if holds { Ok(()) } else { Err(s3_error!(PreconditionFailed)) }
}

/// Dates in headers have whole seconds.
fn seconds(timestamp: &Timestamp) -> u64 {
    let mut text = Vec::new();
    timestamp.format(TimestampFormat::EpochSeconds, &mut text).expect("a date");
    String::from_utf8_lossy(&text).split('.').next().and_then(|seconds| seconds.parse().ok()).expect("a date")
}

fn body(bytes: Bytes) -> StreamingBlob {
    StreamingBlob::from(Body::from(bytes))
}

/// Takes in a body as a whole, before anything is answered: a slow sender must not keep others waiting, and one that is refused
/// halfway sees a broken connection and no answer.
async fn receive(sent: &mut Option<StreamingBlob>) -> S3Result<u64> {
    let Some(stream) = sent.take() else { return Ok(0) };
    let bytes = collect(stream).await?;
    let length = bytes.len() as u64;
    *sent = Some(body(bytes));
    Ok(length)
}

async fn collect(mut body: StreamingBlob) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.map_err(|e| S3Error::with_source(S3ErrorCode::IncompleteBody, e))?);
    }
    Ok(bytes.freeze())
}

fn request<T>(input: T) -> S3Request<T> {
    S3Request {
        input,
        method: Default::default(),
        uri: Default::default(),
        headers: Default::default(),
        extensions: Default::default(),
        credentials: None,
        region: None,
        service: None,
        trailing_headers: None,
    }
}
