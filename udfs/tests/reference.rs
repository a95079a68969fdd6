//! Function reference: the test fails if `docs/functions.md` differs from the functions' own documentation.

use std::{path::Path, sync::Arc};

use spool_media::{
    encode::worker::Worker,
    environment::Environment,
    ffmpeg::{SandboxMode, Tools},
};
use spool_storage::Stores;

#[test]
fn the_function_reference_is_up_to_date() {
    let tools = Tools {
        ffmpeg: "ffmpeg".into(),
        ffprobe: "ffprobe".into(),
        confinement: SandboxMode::None,
        libraries: Vec::new(),
    };
    let scratch = tempfile::tempdir().unwrap();
    let worker = Arc::new(Worker::new(Environment::new(Stores::from_env(), tools, scratch.path()).unwrap()));
    let text = spool_udfs::reference::markdown(&worker).expect("every function is documented");
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../docs/functions.md");
    if std::env::var_os("SPOOL_WRITE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&path).unwrap_or_default(),
        text,
        "run `make docs` and commit docs/functions.md"
    );
}
