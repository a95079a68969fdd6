//! What every store promises of jobs in hand: one at a time, until the lease ends, and each report once.

use super::*;

pub(super) async fn a_job_is_in_one_hand_until_its_lease_ends(backend: Backend) {
    let (store, other) = (&backend.store, backend.again().await);
    let job = made(store, "acme", "talk.mp4").await;
    let first = claimed(store, SHORT).await;
    assert_eq!(
        (&first.job.id, first.job.state, first.job.phase, first.job.tries),
        (&job.id, State::Processing, Phase::Planning, 1)
    );
    let begun = Instant::now();
    // A report makes the lease as long as it was.
    while begun.elapsed() < 3 * SHORT {
        assert!(other.claim("b", SHORT).await.unwrap().is_none());
        assert!(!store.report(&first, SHORT, &Report::default()).await.unwrap().cancel_requested);
        tokio::time::sleep(SHORT / 10).await;
    }
    let second = claimed_soon(&other, "b").await;
    assert!(second.fence > first.fence && second.job.id == job.id && second.job.tries == 2);
    assert_eq!(second.job.started_ms, first.job.started_ms);
    let before = other.job("acme", &job.id).await.unwrap();
    let late = Report {
        progress: Some(Progress { rows: 9, ..Progress::default() }),
        rows: vec![row(0, RowState::Done)],
        ..Report::default()
    };
    assert!(lost(store.standing(&first).await));
    assert!(lost(store.report(&first, LONG, &late).await));
    assert!(lost(store.end(&first, &late, &Ending::Published(json!({}))).await));
    assert_eq!(other.job("acme", &job.id).await.unwrap(), before, "whoever was late wrote nothing");
    assert!(other.rows("acme", &job.id, 0, 10).await.unwrap().is_empty());
    let ended = other.end(&second, &Report::default(), &Ending::Published(json!({}))).await.unwrap();
    assert_eq!(ended.state, State::Published);
    assert!(lost(other.standing(&second).await), "what has ended is in nobody's hand");
    assert!(lost(other.report(&second, LONG, &late).await));
}

pub(super) async fn many_hands_never_hold_one_job(backend: Backend) {
    for number in 0..40 {
        made(&backend.store, "acme", &format!("{number}.mp4")).await;
    }
    let mut hands = JoinSet::new();
    for hand in 0..8 {
        let store = if hand % 2 == 0 { backend.store.clone() } else { backend.again().await };
        hands.spawn(async move {
            let mut mine = Vec::new();
            let mut idle = 0;
            // Where all race for the same job some come away without one.
            while idle < 5 {
                match store.claim(&format!("hand {hand}"), LONG).await.unwrap() {
                    Some(claim) => mine.push(claim.job.id),
                    None => idle += 1,
                }
            }
            mine
        });
    }
    let held: Vec<Id> = hands.join_all().await.into_iter().flatten().collect();
    assert_eq!(held.len(), 40);
    assert_eq!(held.into_iter().collect::<BTreeSet<_>>().len(), 40);
}

pub(super) async fn progress_never_goes_back_and_events_have_no_gap(backend: Backend) {
    let store = &backend.store;
    let job = made(store, "acme", "talk.mp4").await;
    let claim = claimed(store, LONG).await;
    let progress =
        |rows_done, media_done_ms| Some(Progress { rows: 2, rows_done, media_ms: 20_000, media_done_ms });
    let report = Report {
        phase: Some(Phase::Encoding),
        progress: progress(1, 12_000),
        rows: vec![row(0, RowState::Done), row(1, RowState::Running)],
        attempts: vec![Attempt { row: 1, claim: 0, attempt: 1, at_ms: 0, reason: "x264: killed".to_owned() }],
        events: vec![(Kind::Planned, json!({ "rows": 2 })), (Kind::Progress, json!({ "percent": 60 }))],
        ..Report::default()
    };
    // The second time as where an answer was lost.
    for _ in 0..2 {
        store.report(&claim, LONG, &report).await.unwrap();
    }
    store.report(&claim, LONG, &Report { progress: progress(0, 3_000), ..Report::default() }).await.unwrap();
    let now = store.job("acme", &job.id).await.unwrap();
    assert_eq!(
        (now.rows, now.rows_done, now.media_done_ms, now.percent(), now.phase),
        (2, 1, 12_000, 60, Phase::Encoding)
    );
    assert_eq!(store.rows("acme", &job.id, 0, 10).await.unwrap(), report.rows);
    assert_eq!(store.rows("acme", &job.id, 1, 10).await.unwrap(), report.rows[1..]);
    let attempts = store.attempts("acme", &job.id, 10).await.unwrap();
    assert!(
        attempts.len() == 1 && attempts[0].claim == claim.fence && attempts[0].reason == "x264: killed",
        "{attempts:?}"
    );
    // Several at once, and somebody who cancels.
    let mut all = JoinSet::new();
    for _ in 0..6 {
        let (store, claim) = (backend.store.clone(), claim.clone());
        let report = Report { events: vec![(Kind::Progress, json!({})); 3], ..Report::default() };
        all.spawn(async move { store.report(&claim, LONG, &report).await.map(drop) });
        let (store, id) = (backend.store.clone(), job.id.clone());
        all.spawn(async move { store.cancel("acme", &id).await.map(drop) });
    }
    all.join_all().await.into_iter().collect::<Result<(), _>>().unwrap();
    let kinds = kinds(store, &job).await;
    assert_eq!(kinds.len(), 2 + 4 + 18 + 1);
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::CancelRequested).count(), 1);
    assert!(store.standing(&claim).await.unwrap().cancel_requested);
}

pub(super) async fn a_report_that_is_sent_again_is_written_down_once(backend: Backend) {
    let store = &backend.store;
    let job = made(store, "acme", "talk.mp4").await;
    let claim = claimed(store, LONG).await;
    let progress = |percents: &[i64]| {
        percents.iter().map(|percent| (Kind::Progress, json!({ "percent": percent }))).collect()
    };
    let report = |told: i64, percents: &[i64]| Report {
        told: Some(told),
        events: progress(percents),
        ..Report::default()
    };
    store.report(&claim, LONG, &report(0, &[10])).await.unwrap();
    // The answer to the second was lost: it comes again, with what happened since.
    store.report(&claim, LONG, &report(1, &[20, 30])).await.unwrap();
    store.report(&claim, LONG, &report(1, &[20, 30, 40])).await.unwrap();
    store.report(&claim, LONG, &report(1, &[20, 30, 40])).await.unwrap();
    store.end(&claim, &report(1, &[20, 30, 40, 50]), &again(Duration::ZERO)).await.unwrap();
    // Another claim counts from the beginning.
    let claim = claimed_soon(store, "b").await;
    store.report(&claim, LONG, &report(0, &[60])).await.unwrap();
    let events = store.events("acme", &job.id, 0, 100).await.unwrap();
    assert!(events.iter().map(|event| event.sequence).eq(1..=events.len() as i64), "{events:?}");
    let percents: Vec<i64> = events.iter().filter_map(|event| event.data["percent"].as_i64()).collect();
    assert_eq!(percents, [10, 20, 30, 40, 50, 60]);
}

pub(super) async fn each_ending_means_what_it_says(backend: Backend) {
    let store = &backend.store;
    let result = json!({ "master": "s3://media/talk.mp4/master.m3u8", "renditions": [] });
    let endings = [
        (Ending::Published(result.clone()), State::Published, Kind::Published),
        (failed(), State::Failed, Kind::Failed),
        (Ending::Canceled, State::Canceled, Kind::Canceled),
    ];
    for (ending, state, kind) in endings {
        let job = made(store, "acme", "talk.mp4").await;
        let claim = claimed(store, LONG).await;
        let report = Report { rows: vec![row(0, RowState::Done)], ..Report::default() };
        let ended = store.end(&claim, &report, &ending).await.unwrap();
        assert_eq!((ended.state, ended.phase), (state, Phase::Ended));
        assert!(ended.ended_ms.unwrap() >= ended.started_ms.unwrap());
        assert_eq!(kinds(store, &job).await, [Kind::Created, Kind::Started, kind]);
        assert_eq!(store.rows("acme", &job.id, 0, 10).await.unwrap(), report.rows);
        let video = store.video("acme", &job.video.unwrap()).await.unwrap();
        let published = state == State::Published;
        assert_eq!(
            (video.published.is_some(), ended.result.is_some(), ended.percent() == 100),
            (published, published, published)
        );
        assert_eq!(ended.error.is_some(), state == State::Failed);
        assert!(!published || video.published.unwrap() == result);
    }
    assert!(store.claim("a", LONG).await.unwrap().is_none(), "nothing of it is left");
}

pub(super) async fn a_thousand_rows_are_one_report(backend: Backend) {
    let store = &backend.store;
    let job = made(store, "acme", "film.mp4").await;
    let claim = claimed(store, LONG).await;
    let report = Report {
        rows: (0..1000).map(|number| row(number, RowState::Waiting)).collect(),
        ..Report::default()
    };
    store.report(&claim, LONG, &report).await.unwrap();
    assert_eq!(store.rows("acme", &job.id, 0, 2_000).await.unwrap(), report.rows);
}
