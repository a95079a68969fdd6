//! What every store promises of who may ask.

use spool_jobs::{Access, NewKey, NewUpload, NewUploadToken, Policy, Scope, Shown, Uploads};

use super::{uploads::new_upload, *};

fn new_key(valid_for: Option<Duration>) -> NewKey {
    NewKey {
        tenant: "acme".to_owned(),
        name: "ci".to_owned(),
        scopes: vec![Scope::Read, Scope::Write],
        valid_for,
    }
}

pub(super) async fn a_key_opens_until_it_ends(backend: Backend) {
    let store = &backend.store;
    let (key, shown) = store.create_key(&new_key(None)).await.unwrap();
    let other = backend.again().await;
    let Some(Shown::Key(known)) = other.shown(&shown).await.unwrap() else { panic!("it is not known") };
    assert_eq!((&known.id, known.tenant.as_str(), &known.scopes), (&key.id, "acme", &key.scopes));
    assert!(store.keys("acme").await.unwrap()[0].used_ms.is_some(), "its use is noted");
    let wrong = format!("{}0", &shown[..shown.len() - 1]);
    for text in [
        wrong.as_str(),
        &shown[..shown.len() - 1],
        "",
        "spool_",
        key.id.as_str(),
        &format!("spool_{}_", key.id),
    ] {
        assert_eq!(store.shown(text).await.unwrap().filter(|_| *text != shown), None, "{text}");
    }
    assert!(matches!(store.revoke_key("globex", &key.id).await, Err(Error::NotFound { .. })));
    assert!(store.keys("globex").await.unwrap().is_empty());
    let revoked = store.revoke_key("acme", &key.id).await.unwrap().revoked_ms;
    assert!(revoked.is_some() && store.revoke_key("acme", &key.id).await.unwrap().revoked_ms == revoked);
    assert_eq!(other.shown(&shown).await.unwrap(), None);
    let (_, short) = store.create_key(&new_key(Some(SHORT))).await.unwrap();
    let started = Instant::now();
    while store.shown(&short).await.unwrap().is_some() {
        assert!(started.elapsed() < SOON, "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for bad in [
        NewKey { tenant: "../acme".to_owned(), ..new_key(None) },
        NewKey { scopes: Vec::new(), ..new_key(None) },
        NewKey { name: "x".repeat(1000), ..new_key(None) },
    ] {
        assert!(matches!(store.create_key(&bad).await, Err(Error::Request { .. })), "{bad:?}");
    }
}

pub(super) async fn a_token_is_good_for_one_upload(backend: Backend) {
    let store = &backend.store;
    let new = NewUploadToken {
        tenant: "acme".to_owned(),
        most_bytes: 100,
        job: Some("{}".to_owned()),
        valid_for: LONG,
    };
    let (token, shown) = store.create_upload_token(&new).await.unwrap();
    assert_eq!(store.shown(&shown).await.unwrap(), Some(Shown::Token(token.clone())));
    let begun = |id| NewUpload { id, once: Some(token.id.clone()), ..new_upload(20, LONG) };
    // Many at once: one of them is the first.
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let (store, new) = (store.clone(), begun(Id::upload()));
        all.spawn(async move { store.begin_upload(&new, false).await });
    }
    let (good, bad): (Vec<_>, Vec<_>) = all.join_all().await.into_iter().partition(Result::is_ok);
    assert!(
        good.len() == 1 && bad.iter().all(|refused| matches!(refused, Err(Error::Spent { .. }))),
        "{good:?} {bad:?}"
    );
    let upload = good.into_iter().next().unwrap().unwrap();
    let Some(Shown::Token(used)) = store.shown(&shown).await.unwrap() else {
        panic!("it goes on with its upload")
    };
    assert_eq!(used.upload, Some(upload.id));
    let (old, shown) =
        store.create_upload_token(&NewUploadToken { valid_for: Duration::ZERO, ..new }).await.unwrap();
    assert_eq!(store.shown(&shown).await.unwrap(), None);
    let late = NewUpload { id: Id::upload(), once: Some(old.id), ..new_upload(20, LONG) };
    assert!(matches!(store.begin_upload(&late, false).await, Err(Error::Spent { .. })));
}

pub(super) async fn a_quota_holds_whoever_asks_at_once(backend: Backend) {
    let store = &backend.store;
    assert_eq!(store.policy("acme").await.unwrap(), Policy::default());
    let policy = Policy {
        jobs: Some(3),
        upload_bytes: Some(50),
        sources: vec!["s3://in/".to_owned()],
        ..Policy::default()
    };
    store.set_policy("acme", &policy).await.unwrap();
    assert_eq!(backend.again().await.policy("acme").await.unwrap(), policy);
    let mut all = JoinSet::new();
    for number in 0..10 {
        let store = backend.again().await;
        all.spawn(async move { store.create(&new("acme", &format!("{number}.mp4"))).await });
    }
    let (good, bad): (Vec<_>, Vec<_>) = all.join_all().await.into_iter().partition(Result::is_ok);
    assert!(
        good.len() == 3 && bad.iter().all(|refused| matches!(refused, Err(Error::Quota { most: 3, .. }))),
        "{good:?} {bad:?}"
    );
    made(store, "globex", "theirs.mp4").await;
    store.cancel("acme", &good.into_iter().next().unwrap().unwrap().job.id).await.unwrap();
    made(store, "acme", "next.mp4").await;
    let uploads = |bytes| NewUpload { id: Id::upload(), order: None, ..new_upload(bytes, LONG) };
    store.begin_upload(&uploads(30), false).await.unwrap();
    assert!(matches!(store.begin_upload(&uploads(21), false).await, Err(Error::Quota { most: 50, .. })));
    store.begin_upload(&uploads(20), false).await.unwrap();
    let tenants: Vec<String> = store.tenants().await.unwrap().into_iter().map(|tenant| tenant.id).collect();
    assert_eq!(tenants, ["acme", "globex"]);
}

pub(super) async fn all_servers_sign_alike(backend: Backend) {
    let mut all = JoinSet::new();
    for _ in 0..4 {
        let store = backend.again().await;
        all.spawn(async move { store.secret("links").await.unwrap() });
    }
    let secrets: BTreeSet<[u8; 32]> = all.join_all().await.into_iter().collect();
    assert_eq!(secrets.len(), 1);
    assert!(!secrets.contains(&backend.store.secret("webhooks").await.unwrap()));
}
