//! What every store of uploads promises.

use spool_jobs::{NewUpload, Sources, UploadState, Uploads};

use super::*;

pub(super) fn new_upload(bytes: u64, kept_for: Duration) -> NewUpload {
    NewUpload {
        id: Id::upload(),
        tenant: "acme".to_owned(),
        name: "talk.mp4".to_owned(),
        metadata: BTreeMap::from([("filename".to_owned(), "talk.mp4".to_owned())]),
        location: "s3://uploads/1/talk.mp4".to_owned(),
        token: "multipart-1".to_owned(),
        bytes,
        order: Some(Order {
            priority: 7,
            ..Request::transcode("s3://uploads/1/talk.mp4", "s3://media/{video}/").into()
        }),
        once: None,
        kept_for,
    }
}

pub(super) async fn an_upload_grows_in_one_hand_at_a_time(backend: Backend) {
    let store = &backend.store;
    let new = new_upload(20, LONG);
    let upload = store.begin_upload(&new, false).await.unwrap();
    assert_eq!(
        (upload.state, upload.received, upload.bytes, &upload.metadata),
        (UploadState::Open, 0, 20, &new.metadata)
    );
    let first = store.hold_upload("acme", &upload.id, LONG).await.unwrap();
    store.advance_upload(&first, 5, &["one".to_owned()], LONG).await.unwrap();
    let other = backend.again().await;
    assert!(matches!(other.hold_upload("acme", &upload.id, LONG).await, Err(Error::Held { .. })));
    // Its client came back by another server, where the first does not know yet.
    store.renew_upload(&first, Duration::ZERO).await.unwrap();
    let second = other.hold_upload("acme", &upload.id, SHORT).await.unwrap();
    assert_eq!((second.upload.received, second.upload.pieces.as_slice()), (5, ["one".to_owned()].as_slice()));
    assert!(
        lost(store.advance_upload(&first, 15, &[], LONG).await) && lost(store.finish_upload(&first).await)
    );
    assert!(lost(store.give_up_upload(&first).await));
    assert_eq!(store.upload("acme", &upload.id).await.unwrap().received, 5);
    assert!(lost(store.renew_upload(&first, LONG).await));
    let elsewhere = store.hold_upload("globex", &upload.id, LONG).await.unwrap_err();
    assert!(matches!(elsewhere, Error::NotFound { .. }) && store.upload("globex", &upload.id).await.is_err());
    store.give_up_upload(&second).await.unwrap();
    assert!(store.hold_upload("acme", &upload.id, LONG).await.is_err(), "what is gone is not added to");
    assert_eq!(store.upload("acme", &upload.id).await.unwrap().state, UploadState::Gone);
}

pub(super) async fn an_upload_makes_one_job_when_all_of_it_is_there(backend: Backend) {
    let store = &backend.store;
    let upload = store.begin_upload(&new_upload(20, LONG), false).await.unwrap();
    let hold = store.hold_upload("acme", &upload.id, LONG).await.unwrap();
    let mut tries = JoinSet::new();
    for _ in 0..6 {
        let (store, hold) = (backend.store.clone(), hold.clone());
        tries.spawn(async move { store.finish_upload(&hold).await });
    }
    let finished: Vec<_> = tries.join_all().await.into_iter().filter_map(Result::ok).collect();
    assert_eq!(finished.len(), 1);
    assert_eq!((finished[0].state, finished[0].received), (UploadState::Finished, 20));
    let jobs = store.jobs("acme", &Filter::default(), None, 10).await.unwrap().items;
    assert!(
        jobs.len() == 1 && Some(&jobs[0].id) == finished[0].job.as_ref() && jobs[0].priority == 7,
        "{jobs:?}"
    );
    assert_eq!(store.upload("acme", &upload.id).await.unwrap(), finished[0]);
    let whole = store.begin_upload(&new_upload(20, LONG), true).await.unwrap();
    assert!(whole.state == UploadState::Finished && whole.job.is_some());
    let nothing = NewUpload { order: None, ..new_upload(20, LONG) };
    assert!(store.begin_upload(&nothing, true).await.unwrap().job.is_none());
    let bad = NewUpload { order: Some(Request::transcode("", "").into()), ..new_upload(20, LONG) };
    assert!(matches!(store.begin_upload(&bad, false).await, Err(Error::Request { .. })));
}

pub(super) async fn what_nobody_came_back_for_is_found(backend: Backend) {
    let store = &backend.store;
    let kept = store.begin_upload(&new_upload(20, LONG), false).await.unwrap();
    let left = store.begin_upload(&new_upload(20, SHORT), false).await.unwrap();
    let started = Instant::now();
    let hold = loop {
        if let Some(hold) = store.hold_left_upload(LONG).await.unwrap() {
            break hold;
        }
        assert!(started.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(hold.upload.id, left.id);
    assert!(
        backend.again().await.hold_left_upload(LONG).await.unwrap().is_none(),
        "one who cleans up is enough"
    );
    store.give_up_upload(&hold).await.unwrap();
    let hold = store.hold_upload("acme", &kept.id, SHORT).await.unwrap();
    store.advance_upload(&hold, 5, &[], SHORT).await.unwrap();
    store.advance_upload(&hold, 6, &[], LONG).await.unwrap();
    tokio::time::sleep(2 * SHORT).await;
    assert!(store.hold_left_upload(LONG).await.unwrap().is_none(), "who comes back keeps it");
}

pub(super) async fn a_video_is_swept_by_one_some_time_after_it_was_published(backend: Backend) {
    let store = &backend.store;
    let job = made(store, "acme", "talk.mp4").await;
    assert_eq!(store.hold_unswept(Duration::ZERO, LONG).await.unwrap(), None, "nothing is published");
    let claim = claimed(store, LONG).await;
    store.end(&claim, &Report::default(), &Ending::Published(json!({ "master": "m" }))).await.unwrap();
    assert_eq!(store.hold_unswept(LONG, LONG).await.unwrap(), None, "it was published just now");
    let video = store.hold_unswept(Duration::ZERO, LONG).await.unwrap().unwrap();
    assert_eq!(Some(&video.id), job.video.as_ref());
    assert_eq!(
        backend.again().await.hold_unswept(Duration::ZERO, LONG).await.unwrap(),
        None,
        "somebody has it in hand"
    );
    store.swept(&video.id, true).await.unwrap();
    assert_eq!(
        store.hold_unswept(Duration::ZERO, LONG).await.unwrap().map(|video| video.id),
        Some(video.id.clone())
    );
    store.swept(&video.id, false).await.unwrap();
    assert_eq!(store.hold_unswept(Duration::ZERO, LONG).await.unwrap(), None);
}
