//! Behaviour of local folders alone.

use super::*;

#[tokio::test]
async fn what_is_no_file_is_not_opened() {
    let directory = TempDir::new().unwrap();
    let stores = Stores::with_options([("", "")]);
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [directory.path(), &pipe, Path::new("/dev/zero")] {
        let error = stores.locate(path.to_str().unwrap()).unwrap().open().await.unwrap_err();
        assert!(matches!(error, Error::NotAFile { .. }), "{error:?}");
    }
}

#[test]
fn a_listing_can_be_asked_for_before_there_is_a_runtime() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("a"), "x").unwrap();
    let entries = Stores::with_options([("", "")]).locate(directory.path().to_str().unwrap()).unwrap().list();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let entries: Vec<Entry> = runtime.block_on(entries.try_collect()).unwrap();
    assert_eq!((entries.len(), entries[0].relative.as_str()), (1, "a"));
}

#[tokio::test]
async fn a_write_without_permission_is_an_error() {
    // A path where no user can create a directory.
    let location = Stores::with_options([("", "")]).locate("/sys/spool/out.json").unwrap();
    let errors = [
        location.put(text("x"), ObjectKind::Record).await.unwrap_err(),
        location.create(text("x"), ObjectKind::Record).await.unwrap_err(),
        location.replace(text("x"), ObjectKind::Record, None).await.unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(&error, Error::NotAllowed { uri, .. } if uri == "file:///sys/spool/out.json"),
            "{error:?}"
        );
        assert!(error.to_string().contains("check the permissions"), "{error}");
    }
}

#[tokio::test]
async fn what_killed_writers_left_is_removed_once_it_is_old() {
    let directory = TempDir::new().unwrap();
    let root = Stores::with_options([("", "")]).locate(directory.path().to_str().unwrap()).unwrap();
    root.child("a/b.json").replace(text("x"), ObjectKind::Record, None).await.unwrap();
    let left = directory.path().join("a/.spool-x1y2.tmp");
    std::fs::write(&left, "half").unwrap();
    assert_eq!(root.remove_abandoned(std::time::Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(root.remove_abandoned(std::time::Duration::ZERO).await.unwrap(), 1);
    assert!(!left.exists() && directory.path().join("a/.spool-lock").exists());
    assert_eq!(content_of(&root.child("a/b.json")).await, "x");
}

#[tokio::test]
async fn a_file_written_in_place_has_changed() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("growing.mp4");
    std::fs::write(&path, patterned(1000)).unwrap();
    let location = Stores::with_options([("", "")]).locate(path.to_str().unwrap()).unwrap();
    let reader = location.open().await.unwrap();
    assert_eq!(reader.local_path(), Some(path.as_path()));
    std::fs::write(&path, patterned(1001)).unwrap();
    assert!(matches!(reader.read(0..10).await.unwrap_err(), Error::SourceChanged { .. }));
}
