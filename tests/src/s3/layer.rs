//! Layer before `s3s-fs`: logs requests, injects faults, and adds the conditions that `s3s-fs` lacks.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use s3s::{Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, dto::*, s3_error};
use s3s_fs::FileSystem;
use tokio::sync::RwLock;

use super::{Fault, LoggedRequest};

/// The layer.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) objects: Arc<FileSystem>,
    pub(super) root: PathBuf,
    pub(super) state: Arc<State>,
}

#[derive(Default)]
pub(super) struct State {
    seen: Mutex<Seen>,
    /// `s3s-fs` writes an object and its ETag one after the other: a read must not come between.
    pub(super) order: RwLock<()>,
    pub(super) unconditional: AtomicBool,
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) requests: Vec<LoggedRequest>,
    pub(super) faults: Vec<(Option<&'static str>, Fault)>,
}

impl State {
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Layer {
    /// Logs the request and applies the pending fault, if any.
    async fn enter(&self, operation: &'static str, bucket: &str, key: &str) -> S3Result<Entered<'_>> {
        let (index, fault) = {
            let mut seen = self.state.seen();
            let request = LoggedRequest {
                operation,
                bucket: bucket.into(),
                key: key.into(),
                range: None,
                received: 0,
                sent: 0,
            };
            seen.requests.push(request);
            let due = seen.faults.iter().position(|(of, _)| of.is_none_or(|of| of == operation));
            (seen.requests.len() - 1, due.map(|due| seen.faults.remove(due).1))
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
    pub(super) fn find(&self, bucket: &str, key: &str) -> S3Result<()> {
        if self.root.join(bucket).join(key).is_file() { Ok(()) } else { Err(s3_error!(NoSuchKey)) }
    }
}

/// A request that was let through.
struct Entered<'a> {
    state: &'a State,
    index: usize,
    answer_is_lost: bool,
}

impl Entered<'_> {
    fn note(&self, note: impl FnOnce(&mut LoggedRequest)) {
        // Gone if the log was cleared meanwhile.
        if let Some(request) = self.state.seen().requests.get_mut(self.index) {
            note(request);
        }
    }

    fn leave<T>(self, result: S3Result<S3Response<T>>) -> S3Result<S3Response<T>> {
        if self.answer_is_lost { Err(s3_error!(InternalError, "the response is lost")) } else { result }
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
        entered.note(|request| {
            request.range = match req.input.range {
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
        entered.note(|request| {
            request.sent =
                u64::try_from(response.output.content_length.unwrap_or_default()).unwrap_or_default()
        });
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
        entered.note(|request| request.received = received);
        if self.state.unconditional.load(Ordering::Relaxed)
            && (req.input.if_match.is_some() || req.input.if_none_match.is_some())
        {
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

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let entered = self.enter("DeleteObject", &req.input.bucket, &req.input.key).await?;
        let _order = self.state.order.write().await;
        entered.leave(self.objects.delete_object(req).await)
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let keys =
            req.input.delete.objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>().join(" ");
        let entered = self.enter("DeleteObjects", &req.input.bucket, &keys).await?;
        let _order = self.state.order.write().await;
        entered.leave(self.objects.delete_objects(req).await)
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let entered = self
            .enter("ListObjectsV2", &req.input.bucket, req.input.prefix.as_deref().unwrap_or_default())
            .await?;
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

    async fn upload_part(
        &self,
        mut req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let received = receive(&mut req.input.body).await?;
        let entered = self.enter("UploadPart", &req.input.bucket, &req.input.key).await?;
        entered.note(|request| request.received = received);
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

/// If-Match and If-Unmodified-Since of a read (RFC 9110 section 13.2.2: the second counts only without the
/// first).
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

pub(super) fn body(bytes: Bytes) -> StreamingBlob {
    StreamingBlob::from(Body::from(bytes))
}

/// Receives a body as a whole before the response: a slow sender must not block others, and a client that is
/// refused halfway sees a broken connection and no response.
async fn receive(sent: &mut Option<StreamingBlob>) -> S3Result<u64> {
    let Some(stream) = sent.take() else { return Ok(0) };
    let bytes = collect(stream).await?;
    let length = bytes.len() as u64;
    *sent = Some(body(bytes));
    Ok(length)
}

pub(super) async fn collect(mut body: StreamingBlob) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.map_err(|e| S3Error::with_source(S3ErrorCode::IncompleteBody, e))?);
    }
    Ok(bytes.freeze())
}

pub(super) fn request<T>(input: T) -> S3Request<T> {
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
