//! How does a store begin, and how does it come back?

use super::*;

/// Of the two only SQLite's file is made by whoever comes first.
#[tokio::test(flavor = "multi_thread")]
async fn several_that_start_at_once_make_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start();
    for url in [folder.path().join("jobs.db").to_str().unwrap().to_owned(), server.url()] {
        let mut all = JoinSet::new();
        for _ in 0..6 {
            let url = url.clone();
            all.spawn(async move { SqlStore::open(&url).await });
        }
        let stores = all.join_all().await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        let job = made(&stores[0], "acme", "talk.mp4").await;
        assert_eq!(stores[5].job("acme", &job.id).await.unwrap(), job);
    }
}

#[tokio::test]
async fn what_is_no_database_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "these are notes, and no database at all\n".repeat(100)).unwrap();
    for url in [text.to_str().unwrap(), "mysql://host/jobs", "", "postgres://spool:secret@127.0.0.1:1/jobs"] {
        let error = SqlStore::open(url).await.unwrap_err();
        assert!(matches!(error, Error::Open { .. }), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert!(
        std::fs::read_to_string(&text).unwrap().starts_with("these are notes"),
        "nothing that was there is lost"
    );
}

/// What a server has said yes to is there after it was killed; while it is away calls fail, and soon.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_comes_back_with_all_of_it() {
    let mut server = Postgres::start();
    let store = SqlStore::open(&server.url()).await.unwrap();
    let job = made(&store, "acme", "talk.mp4").await;
    let claim = claimed(&store, LONG).await;
    server.kill();
    let away = Instant::now();
    let error = store.standing(&claim).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Transient && away.elapsed() < SOON, "{error}");
    assert!(store.create(&new("acme", "other.mp4")).await.is_err());
    server.restart();
    assert!(!store.standing(&claim).await.unwrap().cancel_requested);
    let ended = store.end(&claim, &Report::default(), &Ending::Published(json!({}))).await.unwrap();
    assert_eq!((ended.id, ended.state), (job.id, State::Published));
    assert_eq!(
        store.jobs("acme", &Filter::default(), None, 10).await.unwrap().items.len(),
        1,
        "what was refused is not there"
    );
}
