//! Opening of a database: concurrent starts, refused addresses, and recovery after a crash.

use super::*;

/// A new SQLite file is created by the first process; a PostgreSQL database exists before.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_starts_create_one_database() {
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start();
    for url in [folder.path().join("jobs.db").to_str().unwrap().to_owned(), server.url()] {
        let mut all = JoinSet::new();
        for _ in 0..6 {
            let url = url.clone();
            all.spawn(async move { SqlStore::open(&url).await });
        }
        let stores = all.join_all().await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        let job = create(&stores[0], "acme", "talk.mp4").await;
        assert_eq!(stores[5].job("acme", &job.id).await.unwrap(), job);
    }
}

#[tokio::test]
async fn an_unusable_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "these are notes, not a database\n".repeat(100)).unwrap();
    for url in [text.to_str().unwrap(), "mysql://host/jobs", "", "postgres://spool:secret@127.0.0.1:1/jobs"] {
        let error = SqlStore::open(url).await.unwrap_err();
        assert!(matches!(error, Error::Open { .. }), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert!(
        std::fs::read_to_string(&text).unwrap().starts_with("these are notes"),
        "the file is not changed"
    );
}

/// Acknowledged writes survive a crash of the server; calls fail within their deadline while it is down.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashed_keeps_every_acknowledged_write() {
    let mut server = Postgres::start();
    let store = SqlStore::open(&server.url()).await.unwrap();
    let job = create(&store, "acme", "talk.mp4").await;
    let lease = leased(&store, LONG).await;
    server.kill();
    let down = Instant::now();
    let error = store.lease_status(&lease).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Transient && down.elapsed() < SOON, "{error}");
    assert!(store.create(&new("acme", "other.mp4")).await.is_err());
    server.restart();
    assert!(!store.lease_status(&lease).await.unwrap().cancel_requested);
    let ended = store.finish(&lease, &Report::default(), &Outcome::Published(json!({}))).await.unwrap();
    assert_eq!((ended.id, ended.state), (job.id, JobState::Published));
    assert_eq!(
        store.jobs("acme", &JobFilter::default(), None, 10).await.unwrap().items.len(),
        1,
        "the refused job does not exist"
    );
}
