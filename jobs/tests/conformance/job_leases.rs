//! Leases of jobs: one at a time until it expires, and each report written once.

use spool_jobs::FencingToken;

use super::*;

pub(super) async fn a_job_has_one_lease_until_it_expires(backend: Backend) {
    let (store, other) = (&backend.store, backend.reopen().await);
    let job = create(store, "acme", "talk.mp4").await;
    let first = leased(store, SHORT).await;
    assert_eq!(
        (&first.job.id, first.job.state, first.job.phase, first.job.tries),
        (&job.id, JobState::Processing, Phase::Planning, 1)
    );
    let started = Instant::now();
    // Each report renews the lease.
    while started.elapsed() < 3 * SHORT {
        assert!(other.lease_job("b", SHORT).await.unwrap().is_none());
        assert!(!store.renew_lease(&first, SHORT, &Report::default()).await.unwrap().cancel_requested);
        tokio::time::sleep(SHORT / 10).await;
    }
    let second = leased_soon(&other, "b").await;
    assert!(second.fencing_token > first.fencing_token && second.job.id == job.id && second.job.tries == 2);
    assert_eq!(second.job.started_ms, first.job.started_ms);
    let before = other.job("acme", &job.id).await.unwrap();
    let late = Report {
        progress: Some(JobProgress { rows: 9, ..JobProgress::default() }),
        rows: vec![row(0, RowState::Done)],
        ..Report::default()
    };
    assert!(lost(store.lease_status(&first).await));
    assert!(lost(store.renew_lease(&first, LONG, &late).await));
    assert!(lost(store.finish(&first, &late, &Outcome::Published(json!({}))).await));
    assert_eq!(
        other.job("acme", &job.id).await.unwrap(),
        before,
        "a write under a lost lease changes nothing"
    );
    assert!(other.rows("acme", &job.id, 0, 10).await.unwrap().is_empty());
    let ended = other.finish(&second, &Report::default(), &Outcome::Published(json!({}))).await.unwrap();
    assert_eq!(ended.state, JobState::Published);
    assert!(lost(other.lease_status(&second).await), "an ended job has no lease");
    assert!(lost(other.renew_lease(&second, LONG, &late).await));
}

pub(super) async fn concurrent_dispatchers_never_lease_one_job(backend: Backend) {
    for number in 0..40 {
        create(&backend.store, "acme", &format!("{number}.mp4")).await;
    }
    let mut dispatchers = JoinSet::new();
    for dispatcher in 0..8 {
        let store = if dispatcher % 2 == 0 { backend.store.clone() } else { backend.reopen().await };
        dispatchers.spawn(async move {
            let mut leased = Vec::new();
            let mut idle = 0;
            // Of dispatchers that try to lease one job at the same time, all but one get none.
            while idle < 5 {
                match store.lease_job(&format!("dispatcher {dispatcher}"), LONG).await.unwrap() {
                    Some(lease) => leased.push(lease.job.id),
                    None => idle += 1,
                }
            }
            leased
        });
    }
    let leased: Vec<Id> = dispatchers.join_all().await.into_iter().flatten().collect();
    assert_eq!(leased.len(), 40);
    assert_eq!(leased.into_iter().collect::<BTreeSet<_>>().len(), 40);
}

pub(super) async fn progress_never_decreases_and_events_have_no_gap(backend: Backend) {
    let store = &backend.store;
    let job = create(store, "acme", "talk.mp4").await;
    let lease = leased(store, LONG).await;
    let progress =
        |rows_done, media_done_ms| Some(JobProgress { rows: 2, rows_done, media_ms: 20_000, media_done_ms });
    let report = Report {
        phase: Some(Phase::Encoding),
        progress: progress(1, 12_000),
        rows: vec![row(0, RowState::Done), row(1, RowState::Running)],
        attempts: vec![Attempt {
            ordinal: 1,
            fencing_token: FencingToken::new(0),
            attempt: 1,
            at_ms: 0,
            reason: "x264: killed".to_owned(),
        }],
        events: vec![
            (EventKind::Planned, json!({ "rows": 2 })),
            (EventKind::Progress, json!({ "percent": 60 })),
        ],
        ..Report::default()
    };
    // The second report repeats the first, as after a lost response.
    for _ in 0..2 {
        store.renew_lease(&lease, LONG, &report).await.unwrap();
    }
    store
        .renew_lease(&lease, LONG, &Report { progress: progress(0, 3_000), ..Report::default() })
        .await
        .unwrap();
    let now = store.job("acme", &job.id).await.unwrap();
    assert_eq!(
        (now.rows, now.rows_done, now.media_done_ms, now.percent(), now.phase),
        (2, 1, 12_000, 60, Phase::Encoding)
    );
    assert_eq!(store.rows("acme", &job.id, 0, 10).await.unwrap(), report.rows);
    assert_eq!(store.rows("acme", &job.id, 1, 10).await.unwrap(), report.rows[1..]);
    let attempts = store.attempts("acme", &job.id, 10).await.unwrap();
    assert!(
        attempts.len() == 1
            && attempts[0].fencing_token == lease.fencing_token
            && attempts[0].reason == "x264: killed",
        "{attempts:?}"
    );
    // Concurrent reports and cancellations.
    let mut all = JoinSet::new();
    for _ in 0..6 {
        let (store, lease) = (backend.store.clone(), lease.clone());
        let report = Report { events: vec![(EventKind::Progress, json!({})); 3], ..Report::default() };
        all.spawn(async move { store.renew_lease(&lease, LONG, &report).await.map(drop) });
        let (store, id) = (backend.store.clone(), job.id.clone());
        all.spawn(async move { store.cancel("acme", &id).await.map(drop) });
    }
    all.join_all().await.into_iter().collect::<Result<(), _>>().unwrap();
    let kinds = kinds(store, &job).await;
    assert_eq!(kinds.len(), 2 + 4 + 18 + 1);
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::CancelRequested).count(), 1);
    assert!(store.lease_status(&lease).await.unwrap().cancel_requested);
}

pub(super) async fn a_repeated_report_is_written_once(backend: Backend) {
    let store = &backend.store;
    let job = create(store, "acme", "talk.mp4").await;
    let lease = leased(store, LONG).await;
    let progress = |percents: &[i64]| {
        percents.iter().map(|percent| (EventKind::Progress, json!({ "percent": percent }))).collect()
    };
    let report = |written: i64, percents: &[i64]| Report {
        events_written: Some(written),
        events: progress(percents),
        ..Report::default()
    };
    store.renew_lease(&lease, LONG, &report(0, &[10])).await.unwrap();
    // The second report is repeated after a lost answer, with newer events.
    store.renew_lease(&lease, LONG, &report(1, &[20, 30])).await.unwrap();
    store.renew_lease(&lease, LONG, &report(1, &[20, 30, 40])).await.unwrap();
    store.renew_lease(&lease, LONG, &report(1, &[20, 30, 40])).await.unwrap();
    store.finish(&lease, &report(1, &[20, 30, 40, 50]), &retry(Duration::ZERO)).await.unwrap();
    // Another lease counts from the start.
    let lease = leased_soon(store, "b").await;
    store.renew_lease(&lease, LONG, &report(0, &[60])).await.unwrap();
    let events = store.events("acme", &job.id, 0, 100).await.unwrap();
    assert!(events.iter().map(|event| event.sequence).eq(1..=events.len() as i64), "{events:?}");
    let percents: Vec<i64> = events.iter().filter_map(|event| event.data["percent"].as_i64()).collect();
    assert_eq!(percents, [10, 20, 30, 40, 50, 60]);
}

pub(super) async fn each_outcome_sets_its_state(backend: Backend) {
    let store = &backend.store;
    let result = json!({ "master": "s3://media/talk.mp4/master.m3u8", "renditions": [] });
    let outcomes = [
        (Outcome::Published(result.clone()), JobState::Published, EventKind::Published),
        (failed(), JobState::Failed, EventKind::Failed),
        (Outcome::Canceled, JobState::Canceled, EventKind::Canceled),
    ];
    for (outcome, state, kind) in outcomes {
        let job = create(store, "acme", "talk.mp4").await;
        let lease = leased(store, LONG).await;
        let report = Report { rows: vec![row(0, RowState::Done)], ..Report::default() };
        let ended = store.finish(&lease, &report, &outcome).await.unwrap();
        assert_eq!((ended.state, ended.phase), (state, Phase::Ended));
        assert!(ended.ended_ms.unwrap() >= ended.started_ms.unwrap());
        assert_eq!(kinds(store, &job).await, [EventKind::Created, EventKind::Started, kind]);
        assert_eq!(store.rows("acme", &job.id, 0, 10).await.unwrap(), report.rows);
        let video = store.video("acme", &job.video.unwrap()).await.unwrap();
        let published = state == JobState::Published;
        assert_eq!(
            (video.published.is_some(), ended.result.is_some(), ended.percent() == 100),
            (published, published, published)
        );
        assert_eq!(ended.error.is_some(), state == JobState::Failed);
        assert!(!published || video.published.unwrap() == result);
    }
    assert!(store.lease_job("a", LONG).await.unwrap().is_none(), "no job is pending");
}

pub(super) async fn a_thousand_rows_fit_one_report(backend: Backend) {
    let store = &backend.store;
    let job = create(store, "acme", "film.mp4").await;
    let lease = leased(store, LONG).await;
    let report = Report {
        rows: (0..1000).map(|ordinal| row(ordinal, RowState::Waiting)).collect(),
        ..Report::default()
    };
    store.renew_lease(&lease, LONG, &report).await.unwrap();
    assert_eq!(store.rows("acme", &job.id, 0, 2_000).await.unwrap(), report.rows);
}
