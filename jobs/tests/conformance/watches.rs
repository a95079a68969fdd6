//! What every store promises of places where files arrive.

use spool_jobs::{NewWatch, Watches};

use super::*;

fn new_watch(tenant: &str, list_every: Option<Duration>) -> NewWatch {
    NewWatch {
        tenant: tenant.to_owned(),
        prefix: "s3://in/".to_owned(),
        job: "{}".to_owned(),
        queue: None,
        list_every,
    }
}

pub(super) async fn a_place_is_looked_at_by_one_when_its_time_comes(backend: Backend) {
    let store = &backend.store;
    let told = store.create_watch(&new_watch("acme", None)).await.unwrap();
    assert_eq!(store.hold_watch(LONG).await.unwrap(), None, "where somebody tells nobody looks");
    let listed = store.create_watch(&new_watch("globex", Some(SHORT))).await.unwrap();
    assert_eq!(store.watches(None).await.unwrap(), [told.clone(), listed.clone()]);
    assert_eq!(store.watches(Some("acme")).await.unwrap(), std::slice::from_ref(&told));
    // Many hands: one of them looks, until its lease ends.
    let mut all = JoinSet::new();
    for _ in 0..6 {
        let store = backend.again().await;
        all.spawn(async move { store.hold_watch(LONG).await.unwrap() });
    }
    let holds: Vec<_> = all.join_all().await.into_iter().flatten().collect();
    assert_eq!(holds.iter().map(|watch| &watch.id).collect::<Vec<_>>(), [&listed.id]);
    store.looked(&listed.id, Some("there is no bucket")).await.unwrap();
    let until = Instant::now() + SOON;
    let again = loop {
        assert!(Instant::now() < until, "its time does not come");
        if let Some(watch) = store.hold_watch(LONG).await.unwrap() {
            break watch;
        }
        tokio::task::yield_now().await;
    };
    assert!(again.trouble.as_deref() == Some("there is no bucket") && again.looked_ms.is_some(), "{again:?}");
    store.remove_watch(&listed.id).await.unwrap();
    assert!(matches!(store.remove_watch(&listed.id).await, Err(Error::NotFound { .. })));
    assert_eq!(store.watches(None).await.unwrap(), [told]);
    assert!(store.create_watch(&new_watch("../acme", None)).await.is_err());
}

pub(super) async fn what_a_job_was_made_of_is_known(backend: Backend) {
    let store = &backend.store;
    let key = |number: usize| format!("arrived s3://in/{number}.mp4 \"ab\"");
    store.create(&NewJob { key: Some(key(700)), ..new("acme", "talk.mp4") }).await.unwrap();
    // More than fit into one statement.
    let keys: Vec<String> = (0..1201).map(key).collect();
    assert_eq!(store.used_keys("acme", &keys).await.unwrap(), [key(700)]);
    assert!(store.used_keys("globex", &keys).await.unwrap().is_empty(), "a key is its tenant's");
}
