//! API keys, upload tokens, quotas and signing keys.

use spool_jobs::{
    Credential, CredentialStore, NewApiKey, NewUpload, NewUploadToken, Scope, TenantPolicy, UploadStore,
};

use super::{uploads::new_upload, *};

fn new_key(valid_for: Option<Duration>) -> NewApiKey {
    NewApiKey {
        tenant: "acme".to_owned(),
        name: "ci".to_owned(),
        scopes: vec![Scope::Read, Scope::Write],
        valid_for,
    }
}

pub(super) async fn a_key_is_valid_until_it_expires_or_is_revoked(backend: Backend) {
    let store = &backend.store;
    let (key, secret_text) = store.create_key(&new_key(None)).await.unwrap();
    let other = backend.reopen().await;
    let Some(Credential::ApiKey(known)) = other.authenticate(&secret_text).await.unwrap() else {
        panic!("the key is not valid")
    };
    assert_eq!((&known.id, known.tenant.as_str(), &known.scopes), (&key.id, "acme", &key.scopes));
    assert!(store.keys("acme").await.unwrap()[0].used_ms.is_some(), "the use is recorded");
    let wrong = format!("{}0", &secret_text[..secret_text.len() - 1]);
    for text in [
        wrong.as_str(),
        &secret_text[..secret_text.len() - 1],
        "",
        "spool_",
        key.id.as_str(),
        &format!("spool_{}_", key.id),
    ] {
        assert_eq!(store.authenticate(text).await.unwrap().filter(|_| *text != secret_text), None, "{text}");
    }
    assert!(matches!(store.revoke_key("globex", &key.id).await, Err(Error::NotFound { .. })));
    assert!(store.keys("globex").await.unwrap().is_empty());
    let revoked = store.revoke_key("acme", &key.id).await.unwrap().revoked_ms;
    assert!(revoked.is_some() && store.revoke_key("acme", &key.id).await.unwrap().revoked_ms == revoked);
    assert_eq!(other.authenticate(&secret_text).await.unwrap(), None);
    let (_, short) = store.create_key(&new_key(Some(SHORT))).await.unwrap();
    let started = Instant::now();
    while store.authenticate(&short).await.unwrap().is_some() {
        assert!(started.elapsed() < SOON, "the key does not expire");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for bad in [
        NewApiKey { tenant: "../acme".to_owned(), ..new_key(None) },
        NewApiKey { scopes: Vec::new(), ..new_key(None) },
        NewApiKey { name: "x".repeat(1000), ..new_key(None) },
    ] {
        assert!(matches!(store.create_key(&bad).await, Err(Error::Request { .. })), "{bad:?}");
    }
}

pub(super) async fn an_upload_token_is_redeemed_once(backend: Backend) {
    let store = &backend.store;
    let new = NewUploadToken {
        tenant: "acme".to_owned(),
        max_bytes: 100,
        job: Some("{}".to_owned()),
        valid_for: LONG,
    };
    let (token, secret_text) = store.create_upload_token(&new).await.unwrap();
    assert_eq!(store.authenticate(&secret_text).await.unwrap(), Some(Credential::UploadToken(token.clone())));
    let redeeming = |id| NewUpload { id, upload_token: Some(token.id.clone()), ..new_upload(20, LONG) };
    // Of concurrent calls one redeems the token.
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let (store, new) = (store.clone(), redeeming(Id::upload()));
        all.spawn(async move { store.create_upload(&new, false).await });
    }
    let (good, bad): (Vec<_>, Vec<_>) = all.join_all().await.into_iter().partition(Result::is_ok);
    assert!(
        good.len() == 1 && bad.iter().all(|refused| matches!(refused, Err(Error::TokenUsed { .. }))),
        "{good:?} {bad:?}"
    );
    let upload = good.into_iter().next().unwrap().unwrap();
    let Some(Credential::UploadToken(used)) = store.authenticate(&secret_text).await.unwrap() else {
        panic!("the token is not valid for its open upload")
    };
    assert_eq!(used.upload, Some(upload.id));
    let (old, secret_text) =
        store.create_upload_token(&NewUploadToken { valid_for: Duration::ZERO, ..new }).await.unwrap();
    assert_eq!(store.authenticate(&secret_text).await.unwrap(), None);
    let late = NewUpload { id: Id::upload(), upload_token: Some(old.id), ..new_upload(20, LONG) };
    assert!(matches!(store.create_upload(&late, false).await, Err(Error::TokenUsed { .. })));
}

pub(super) async fn a_quota_holds_under_concurrent_requests(backend: Backend) {
    let store = &backend.store;
    assert_eq!(store.policy("acme").await.unwrap(), TenantPolicy::default());
    let policy = TenantPolicy {
        jobs: Some(3),
        upload_bytes: Some(50),
        sources: vec!["s3://in/".to_owned()],
        ..TenantPolicy::default()
    };
    store.set_policy("acme", &policy).await.unwrap();
    assert_eq!(backend.reopen().await.policy("acme").await.unwrap(), policy);
    let mut all = JoinSet::new();
    for number in 0..10 {
        let store = backend.reopen().await;
        all.spawn(async move { store.create(&new("acme", &format!("{number}.mp4"))).await });
    }
    let (good, bad): (Vec<_>, Vec<_>) = all.join_all().await.into_iter().partition(Result::is_ok);
    assert!(
        good.len() == 3 && bad.iter().all(|refused| matches!(refused, Err(Error::Quota { max: 3, .. }))),
        "{good:?} {bad:?}"
    );
    create(store, "globex", "theirs.mp4").await;
    store.cancel("acme", &good.into_iter().next().unwrap().unwrap().job.id).await.unwrap();
    create(store, "acme", "next.mp4").await;
    let uploads = |bytes| NewUpload { id: Id::upload(), spec: None, ..new_upload(bytes, LONG) };
    store.create_upload(&uploads(30), false).await.unwrap();
    assert!(matches!(store.create_upload(&uploads(21), false).await, Err(Error::Quota { max: 50, .. })));
    store.create_upload(&uploads(20), false).await.unwrap();
    let tenants: Vec<String> = store.tenants().await.unwrap().into_iter().map(|tenant| tenant.id).collect();
    assert_eq!(tenants, ["acme", "globex"]);
}

pub(super) async fn all_servers_share_a_signing_key(backend: Backend) {
    let mut all = JoinSet::new();
    for _ in 0..4 {
        let store = backend.reopen().await;
        all.spawn(async move { store.signing_key("links").await.unwrap() });
    }
    let secrets: BTreeSet<[u8; 32]> = all.join_all().await.into_iter().collect();
    assert_eq!(secrets.len(), 1);
    assert!(!secrets.contains(&backend.store.signing_key("webhooks").await.unwrap()));
}
