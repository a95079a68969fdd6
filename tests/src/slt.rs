//! Runs the `.slt` files, on any engine.
//!
//! In the files `$CLIPS` is a folder with the clips that they name, and `$OUT` an empty one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sqllogictest::{AsyncDB, DefaultColumnType, MakeConnection, Runner};

use crate::footage::{bunny, clip, ffmpeg};

/// Text for NULL and for an empty text, which CSV does not distinguish.
pub const EMPTY: &str = "(empty)";

/// Makes a clip in a folder.
type Make = fn(&Path);

/// Every clip that a file may name, with the function that makes it.
const CLIPS: [(&str, Make); 8] = [
    ("bunny.mp4", |folder| {
        bunny(folder, "bunny.mp4", 8, 180);
    }),
    ("bunny.mkv", |folder| {
        let source = bunny(folder, "for-mkv.mp4", 8, 180);
        derive(folder, &source, "bunny.mkv", "-c copy");
        fs::remove_file(source).unwrap();
    }),
    ("surround.mp4", |folder| {
        derive(
            folder,
            &clip("bigbuckbunny.mp4"),
            "surround.mp4",
            "-t 1 -vf scale=-2:90 -c:v libx264 -preset ultrafast -c:a copy",
        );
    }),
    // 30000/1001 frames a second, silent, with a keyframe every 30 frames.
    ("ntsc.mp4", |folder| {
        let how = "-vf scale=160:-2,fps=30000/1001 -frames:v 359 -c:v libx264 -preset ultrafast -g 30 -an";
        let twice = folder.join("bikes-twice.mp4");
        let source = clip("bikes.mp4");
        ffmpeg(["-stream_loop", "1", "-i", text(&source), "-c", "copy", "-an", text(&twice)]);
        derive(folder, &twice, "ntsc.mp4", how);
        fs::remove_file(twice).unwrap();
    }),
    ("turned.mp4", |folder| {
        let upright = bunny(folder, "upright.mp4", 1, 90);
        derive(folder, &upright, "turned.mp4", "-c copy -metadata:s:v rotate=90");
        fs::remove_file(upright).unwrap();
    }),
    ("languages.mp4", |folder| {
        let source = bunny(folder, "for-languages.mp4", 2, 90);
        let how =
            "-map 0:v -map 0:a -map 0:a -c copy -metadata:s:a:0 language=eng -metadata:s:a:1 language=deu";
        derive(folder, &source, "languages.mp4", how);
        fs::remove_file(source).unwrap();
    }),
    ("sound.m4a", |folder| {
        let source = bunny(folder, "for-sound.mp4", 8, 90);
        derive(folder, &source, "sound.m4a", "-vn -c copy");
        fs::remove_file(source).unwrap();
    }),
    ("letter.mp4", |folder| {
        fs::write(folder.join("letter.mp4"), "Dear Sir or Madam,\n\nthis is not a video.\n").unwrap()
    }),
];

fn derive(folder: &Path, source: &Path, name: &str, how: &str) {
    let out = folder.join(name);
    ffmpeg(["-i", text(source)].into_iter().chain(how.split(' ')).chain([text(&out)]));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns the folder of the `.slt` files.
///
/// # Panics
/// If the folder is missing.
pub fn files() -> PathBuf {
    crate::repository::root().join("tests/slt").canonicalize().unwrap()
}

/// Runs one file on the connections that `connect` makes.
///
/// # Panics
/// If a statement gives another result than the file expects.
pub async fn run<D, C>(file: &str, connect: C)
where
    D: AsyncDB<ColumnType = DefaultColumnType>,
    C: MakeConnection<Conn = D>,
{
    let path = files().join(file);
    let statements = fs::read_to_string(&path).unwrap();
    let (clips, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (_, make) in CLIPS.into_iter().filter(|(name, _)| statements.contains(name)) {
        make(clips.path());
    }
    let mut runner = Runner::new(connect);
    runner.set_var("CLIPS".to_owned(), text(clips.path()).to_owned());
    runner.set_var("OUT".to_owned(), text(out.path()).to_owned());
    // An engine may not know types; it knows the number of columns.
    runner.with_column_validator(|actual, expected| actual.len() == expected.len());
    if let Err(error) = runner.run_file_async(&path).await {
        panic!("{}", error.display(false));
    }
}
