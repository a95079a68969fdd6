//! Leases, completion and expiry of uploads, and cleanup after a publication.

use spool_jobs::{CleanupQueue, NewUpload, UploadState, UploadStore};

use super::*;

pub(super) fn new_upload(bytes: u64, expires_after: Duration) -> NewUpload {
    NewUpload {
        id: Id::upload(),
        tenant: "acme".to_owned(),
        name: "talk.mp4".to_owned(),
        metadata: BTreeMap::from([("filename".to_owned(), "talk.mp4".to_owned())]),
        location: "s3://uploads/1/talk.mp4".to_owned(),
        token: "multipart-1".to_owned(),
        bytes,
        spec: Some(JobSpec {
            priority: 7,
            ..Request::transcode("s3://uploads/1/talk.mp4", "s3://media/{video}/").into()
        }),
        upload_token: None,
        expires_after,
    }
}

pub(super) async fn an_upload_has_one_lease_at_a_time(backend: Backend) {
    let store = &backend.store;
    let new = new_upload(20, LONG);
    let upload = store.create_upload(&new, false).await.unwrap();
    assert_eq!(
        (upload.state, upload.received, upload.bytes, &upload.metadata),
        (UploadState::Open, 0, 20, &new.metadata)
    );
    let first = store.lease_upload("acme", &upload.id, LONG).await.unwrap();
    store.advance_upload(&first, 5, &["one".to_owned()], LONG).await.unwrap();
    let other = backend.reopen().await;
    assert!(matches!(other.lease_upload("acme", &upload.id, LONG).await, Err(Error::Locked { .. })));
    // The client reconnected through another server, which the first does not know yet.
    store.renew_upload(&first, Duration::ZERO).await.unwrap();
    let second = other.lease_upload("acme", &upload.id, SHORT).await.unwrap();
    assert_eq!((second.upload.received, second.upload.parts.as_slice()), (5, ["one".to_owned()].as_slice()));
    assert!(
        lost(store.advance_upload(&first, 15, &[], LONG).await) && lost(store.finish_upload(&first).await)
    );
    assert!(lost(store.abort_upload(&first).await));
    assert_eq!(store.upload("acme", &upload.id).await.unwrap().received, 5);
    assert!(lost(store.renew_upload(&first, LONG).await));
    let elsewhere = store.lease_upload("globex", &upload.id, LONG).await.unwrap_err();
    assert!(matches!(elsewhere, Error::NotFound { .. }) && store.upload("globex", &upload.id).await.is_err());
    store.abort_upload(&second).await.unwrap();
    assert!(store.lease_upload("acme", &upload.id, LONG).await.is_err(), "an aborted upload is not leased");
    assert_eq!(store.upload("acme", &upload.id).await.unwrap().state, UploadState::Gone);
}

pub(super) async fn a_finished_upload_creates_one_job(backend: Backend) {
    let store = &backend.store;
    let upload = store.create_upload(&new_upload(20, LONG), false).await.unwrap();
    let lease = store.lease_upload("acme", &upload.id, LONG).await.unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..6 {
        let (store, lease) = (backend.store.clone(), lease.clone());
        calls.spawn(async move { store.finish_upload(&lease).await });
    }
    let finished: Vec<_> = calls.join_all().await.into_iter().filter_map(Result::ok).collect();
    assert_eq!(finished.len(), 1);
    assert_eq!((finished[0].state, finished[0].received), (UploadState::Finished, 20));
    let jobs = store.jobs("acme", &JobFilter::default(), None, 10).await.unwrap().items;
    assert!(
        jobs.len() == 1 && Some(&jobs[0].id) == finished[0].job.as_ref() && jobs[0].priority == 7,
        "{jobs:?}"
    );
    assert_eq!(store.upload("acme", &upload.id).await.unwrap(), finished[0]);
    let whole = store.create_upload(&new_upload(20, LONG), true).await.unwrap();
    assert!(whole.state == UploadState::Finished && whole.job.is_some());
    let without_job = NewUpload { spec: None, ..new_upload(20, LONG) };
    assert!(store.create_upload(&without_job, true).await.unwrap().job.is_none());
    let invalid = NewUpload { spec: Some(Request::transcode("", "").into()), ..new_upload(20, LONG) };
    assert!(matches!(store.create_upload(&invalid, false).await, Err(Error::Request { .. })));
}

pub(super) async fn an_abandoned_upload_is_leased_once(backend: Backend) {
    let store = &backend.store;
    let active = store.create_upload(&new_upload(20, LONG), false).await.unwrap();
    let abandoned = store.create_upload(&new_upload(20, SHORT), false).await.unwrap();
    let started = Instant::now();
    let lease = loop {
        if let Some(lease) = store.lease_abandoned_upload(LONG).await.unwrap() {
            break lease;
        }
        assert!(started.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(lease.upload.id, abandoned.id);
    assert!(
        backend.reopen().await.lease_abandoned_upload(LONG).await.unwrap().is_none(),
        "one process aborts it"
    );
    store.abort_upload(&lease).await.unwrap();
    let lease = store.lease_upload("acme", &active.id, SHORT).await.unwrap();
    store.advance_upload(&lease, 5, &[], SHORT).await.unwrap();
    store.advance_upload(&lease, 6, &[], LONG).await.unwrap();
    tokio::time::sleep(2 * SHORT).await;
    assert!(store.lease_abandoned_upload(LONG).await.unwrap().is_none(), "new bytes extend the expiry");
}

pub(super) async fn gc_of_a_video_is_leased_once_after_the_grace_period(backend: Backend) {
    let store = &backend.store;
    let job = create(store, "acme", "talk.mp4").await;
    assert_eq!(store.lease_gc(Duration::ZERO, LONG).await.unwrap(), None, "no video is published");
    let lease = leased(store, LONG).await;
    store.finish(&lease, &Report::default(), &Outcome::Published(json!({ "master": "m" }))).await.unwrap();
    assert_eq!(store.lease_gc(LONG, LONG).await.unwrap(), None, "the grace period is not over");
    let video = store.lease_gc(Duration::ZERO, LONG).await.unwrap().unwrap();
    assert_eq!(Some(&video.id), job.video.as_ref());
    assert_eq!(
        backend.reopen().await.lease_gc(Duration::ZERO, LONG).await.unwrap(),
        None,
        "another process holds the lease"
    );
    store.finish_gc(&video.id, true).await.unwrap();
    assert_eq!(
        store.lease_gc(Duration::ZERO, LONG).await.unwrap().map(|video| video.id),
        Some(video.id.clone())
    );
    store.finish_gc(&video.id, false).await.unwrap();
    assert_eq!(store.lease_gc(Duration::ZERO, LONG).await.unwrap(), None);
}
