//! Errors of bad input: one clear message that names the object, the documented exit code, soon, and nothing
//! is published or left behind.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use spool_tests::{
    ffmpeg_wrapper::{FfmpegWrapper, which, write_program},
    folder, footage,
    mount::Mount,
    privilege,
    run::{CommandOutput, Spool},
};

/// Time within which a message must be printed; and with retries of a transient failure: five tries, with up
/// to 6 s of waits between them.
const DEADLINE: Duration = Duration::from_secs(10);
const AFTER_TRIES: Duration = Duration::from_secs(20);

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const NOT_ALLOWED: i32 = 4;

/// Expects that a command failed with this code, soon, with one message that contains these words, and left
/// nothing.
fn refused(name: &str, ran: &CommandOutput, code: i32, words: &[&str]) {
    refused_within(DEADLINE, name, ran, code, words);
}

fn refused_within(limit: Duration, name: &str, ran: &CommandOutput, code: i32, words: &[&str]) {
    let stderr = &ran.stderr;
    assert_eq!(ran.code, Some(code), "{name}: {stderr}");
    assert!(ran.took < limit, "{name} took {:?}", ran.took);
    assert_eq!(ran.stdout, "", "{name}: results only on stdout");
    for word in words {
        assert!(stderr.contains(word), "{name}: {word:?} is not in: {stderr}");
    }
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{name}: {stderr}");
    // The engine's wording, the marker that carries a failure, a log line.
    for noise in [
        "panicked",
        "backtrace",
        "[spool:",
        "DataFusionError",
        "Execution(",
        "BallistaError",
        "Some(",
        "ERROR",
        "WARN",
        "\u{1b}",
    ] {
        assert!(!stderr.contains(noise), "{name}: {noise:?} is in: {stderr}");
    }
    ran.expect_no_leftovers();
}

/// A folder, a good source in it, and a destination.
struct Setting {
    folder: tempfile::TempDir,
    source: PathBuf,
    out: PathBuf,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = footage::bunny(folder.path(), "bunny.mp4", 4, 90);
        Self { source, out: folder.path().join("out"), folder }
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn args<'a>(&'a self, source: &'a Path) -> [&'a str; 6] {
        ["transcode", source.to_str().unwrap(), "-o", self.out.to_str().unwrap(), "--ladder", "90p"]
    }

    /// Expects that nothing was published.
    fn nothing_published(&self, name: &str) {
        assert!(!self.out.join("master.m3u8").exists(), "{name} was published");
    }
}

#[test]
fn files_without_video_are_refused() {
    let setting = Setting::new();
    let video = fs::read(&setting.source).unwrap();
    let beat = |n: usize| (n.wrapping_mul(2_654_435_761) >> 13) as u8;
    let noise: Vec<u8> = (0..100_000).map(beat).collect();
    let subtitles = setting.folder.path().join("subtitles.mp4");
    let srt = setting.file("words.srt", b"1\n00:00:00,000 --> 00:00:02,000\nnothing to see\n");
    footage::ffmpeg(["-i", srt.to_str().unwrap(), "-c:s", "mov_text", subtitles.to_str().unwrap()]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}/secret.ts", listener.local_addr().unwrap());
    let playlist = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{address}\n#EXT-X-ENDLIST\n");
    let concat = format!("ffconcat version 1.0\nfile '{address}'\n");

    let cases: [(&str, &[u8], &[&str]); 7] = [
        ("empty.mp4", b"", &["empty.mp4", "empty"]),
        ("letter.mp4", b"Dear Sir or Madam,\n\nthis is not a video.\n", &["letter.mp4", "not a video"]),
        ("playlist.mp4", playlist.as_bytes(), &["playlist.mp4", "not a video"]),
        ("concat.mp4", concat.as_bytes(), &["concat.mp4", "not a video"]),
        ("noise.mp4", &noise, &["noise.mp4", "not a video"]),
        ("head.mp4", &video[..200], &["head.mp4"]),
        ("subtitles-only.mp4", &fs::read(&subtitles).unwrap(), &["subtitles-only.mp4", "no video"]),
    ];
    for (name, content, words) in cases {
        let path = setting.file(name, content);
        let ran = Spool::new(setting.args(&path)).run();
        refused(name, &ran, FAILED, words);
        setting.nothing_published(name);
        // The other commands print the same message.
        refused(name, &Spool::new(["probe", path.to_str().unwrap()]).run(), FAILED, words);
        refused(name, &Spool::new(["plan", path.to_str().unwrap()]).run(), FAILED, words);
    }
    assert!(listener.accept().is_err(), "a source made Spool or FFmpeg open a connection");
    assert!(
        !setting.out.exists(),
        "files were written for a source without video: {:?}",
        folder::files(&setting.out)
    );
}

#[test]
fn sound_without_pictures_is_transcoded() {
    let setting = Setting::new();
    let sound = setting.folder.path().join("sound.m4a");
    footage::ffmpeg(["-i", setting.source.to_str().unwrap(), "-vn", "-c", "copy", sound.to_str().unwrap()]);
    let ran = Spool::new(setting.args(&sound).iter().chain(&["--output", "json"])).ok();
    ran.expect_no_leftovers();
    let json = ran.json();
    let renditions = json["published"][0]["renditions"].as_array().unwrap();
    assert_eq!(renditions.len(), 1);
    assert_eq!((&renditions[0]["name"], &renditions[0]["codecs"]), (&"audio-0".into(), &"mp4a.40.2".into()));
    let files = folder::media(&setting.out);
    assert_eq!(folder::reachable(&files), files.keys().cloned().collect());
}

#[test]
fn sources_that_cannot_be_opened_are_refused() {
    let setting = Setting::new();
    let at = |name: &str| setting.folder.path().join(name);
    let locked = setting.file("locked.mp4", b"secret");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    symlink(at("loop.mp4"), at("loop.mp4")).unwrap();
    fs::create_dir(at("folder.mp4")).unwrap();
    let cases: [(&str, PathBuf, i32, &[&str]); 6] = [
        ("missing", at("nothing.mp4"), NOT_FOUND, &["nothing.mp4", "does not exist"]),
        ("missing folder", at("no/where.mp4"), NOT_FOUND, &["no/where.mp4", "does not exist"]),
        ("no permission", locked, NOT_ALLOWED, &["locked.mp4", "not allowed", "check the permissions"]),
        ("a link to itself", at("loop.mp4"), FAILED, &["loop.mp4"]),
        ("a folder", at("folder.mp4"), FAILED, &["folder.mp4", "is not a file"]),
        ("a device", PathBuf::from("/dev/zero"), FAILED, &["/dev/zero", "is not a file"]),
    ];
    for (name, path, code, words) in cases {
        refused(name, &Spool::unprivileged(setting.args(&path)).run(), code, words);
        let sql = format!("SELECT index FROM segments('{}')", path.display());
        refused(name, &Spool::unprivileged(["sql", "-c", &sql]).run(), code, words);
    }
    let uris: [(&str, &[&str]); 5] = [
        ("ftp://host/talk.mp4", &["ftp://", "supported are", "s3://"]),
        ("s3:///talk.mp4", &["s3:///talk.mp4", "no bucket"]),
        ("s3://me:hunter2@bucket/talk.mp4", &["bucket", "credentials belong in the environment"]),
        ("file://host/talk.mp4", &["file://host/talk.mp4", "absolute path"]),
        ("http://[broken/talk.mp4", &["not an address"]),
    ];
    for (uri, words) in uris {
        let ran = Spool::new(setting.args(Path::new(uri))).run();
        refused(uri, &ran, FAILED, words);
        assert!(!ran.stderr.contains("hunter2"), "a secret was printed: {}", ran.stderr);
    }
    assert!(!setting.out.exists());
}

#[test]
fn destinations_that_cannot_be_written_are_refused() {
    let setting = Setting::new();
    let file = setting.file("taken", b"I was here first");
    let closed = setting.folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    let file_inside = file.join("inside");
    let cases: [(&str, &str, i32, &[&str]); 6] = [
        ("a file", file.to_str().unwrap(), FAILED, &["taken"]),
        ("in a file", file_inside.to_str().unwrap(), FAILED, &["taken/inside"]),
        (
            "no permission",
            closed.to_str().unwrap(),
            NOT_ALLOWED,
            &["closed", "not allowed", "check the permissions"],
        ),
        (
            "the web",
            "http://127.0.0.1:9/talk",
            FAILED,
            &["http://127.0.0.1:9/talk", "can only be read", "s3://"],
        ),
        ("unknown scheme", "ftp://host/talk", FAILED, &["ftp://", "supported are"]),
        ("empty", "", FAILED, &["empty"]),
    ];
    let ffmpeg = FfmpegWrapper::new();
    for (name, destination, code, words) in cases {
        let args = ["transcode", setting.source.to_str().unwrap(), "-o", destination, "--ladder", "90p"];
        let ran = Spool::unprivileged(args).env("SPOOL_FFMPEG", ffmpeg.path()).run();
        refused(name, &ran, code, words);
    }
    // The failure comes before anything is encoded in vain.
    assert_eq!(ffmpeg.encodes(), Vec::<String>::new());
    assert_eq!(fs::read(&file).unwrap(), b"I was here first");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(folder::files(&closed).is_empty());
    refused(
        "nothing published",
        &Spool::new(["gc", closed.to_str().unwrap()]).run(),
        NOT_FOUND,
        &["closed", "no master.m3u8"],
    );
}

#[test]
fn a_read_only_destination_is_refused() {
    let own = tempfile::tempdir().unwrap();
    let Some(mount) = privilege::require(Mount::tmpfs(own.path(), "ro")) else { return };
    let setting = Setting::new();
    let out = mount.path().join("talk");
    let ran = Spool::new([
        "transcode",
        setting.source.to_str().unwrap(),
        "-o",
        out.to_str().unwrap(),
        "--ladder",
        "90p",
    ])
    .run();
    refused("read-only", &ran, NOT_ALLOWED, &[out.to_str().unwrap(), "not allowed", "read-only"]);
}

#[test]
fn a_destination_that_fills_up_fails_the_job() {
    let own = tempfile::tempdir().unwrap();
    let Some(mount) = privilege::require(Mount::tmpfs(own.path(), "size=128k")) else { return };
    let setting = Setting::new();
    let source = footage::bunny(setting.folder.path(), "long.mp4", 12, 90);
    let out = mount.path().join("talk");
    let ran =
        Spool::new(["transcode", source.to_str().unwrap(), "-o", out.to_str().unwrap(), "--ladder", "90p"])
            .run();
    let words = [out.to_str().unwrap(), "no space left", "free some or choose another"];
    refused_within(AFTER_TRIES, "full", &ran, FAILED, &words);
    assert!(!out.join("master.m3u8").exists());
    let halves: Vec<String> =
        folder::files(&out).into_keys().filter(|name| name.contains(".spool-")).collect();
    assert!(halves.is_empty(), "half-written files are left: {halves:?}");
}

#[test]
fn a_scratch_folder_that_fills_up_fails_the_job() {
    let own = tempfile::tempdir().unwrap();
    let Some(mount) = privilege::require(Mount::tmpfs(own.path(), "size=512k")) else { return };
    let setting = Setting::new();
    let source = footage::bunny(setting.folder.path(), "long.mp4", 12, 360);
    assert!(source.metadata().unwrap().len() > 1 << 20);
    // In one row, whose window is larger than the free space.
    let ran = Spool::new(setting.args(&source)).env("SPOOL_SEGMENT", "30").scratch(mount.path()).run();
    refused_within(AFTER_TRIES, "full", &ran, FAILED, &["no space left", mount.path().to_str().unwrap()]);
    setting.nothing_published("full scratch");
}

#[test]
fn an_unusable_scratch_folder_is_refused() {
    let setting = Setting::new();
    let file = setting.file("taken", b"");
    let ran = Spool::new(setting.args(&setting.source)).scratch(&file).run();
    refused("a file", &ran, NOT_ALLOWED, &["taken", "scratch folder", "--scratch or SPOOL_SCRATCH"]);
    let closed = setting.folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    let ran = Spool::unprivileged(setting.args(&setting.source)).scratch(&closed).run();
    refused("no permission", &ran, NOT_ALLOWED, &["closed", "scratch folder", "--scratch or SPOOL_SCRATCH"]);
}

#[test]
fn an_unsuitable_ffmpeg_is_refused() {
    let setting = Setting::new();
    let transcode = || Spool::new(setting.args(&setting.source));
    let ran = transcode().env("PATH", "").run();
    refused("no programs at all", &ran, FAILED, &["not found", "install"]);
    let ran = transcode().env("SPOOL_FFMPEG", "/nowhere/ffmpeg").run();
    refused(
        "no ffmpeg",
        &ran,
        FAILED,
        &["/nowhere/ffmpeg not found", "apt-get install ffmpeg", "SPOOL_FFMPEG"],
    );
    let ran = transcode().env("SPOOL_FFPROBE", "/nowhere/ffprobe").run();
    refused(
        "no ffprobe",
        &ran,
        FAILED,
        &["/nowhere/ffprobe not found", "apt-get install ffmpeg", "SPOOL_FFPROBE"],
    );

    let poor = setting.folder.path().join("ffmpeg");
    let real = which("ffmpeg");
    let script =
        "#!/bin/sh\ncase \" $* \" in *' libx264 '*) echo \"Unknown encoder 'libx264'\" >&2; exit 1 ;; esac\n";
    write_program(&poor, &format!("{script}exec {} \"$@\"\n", real.display()));
    let ran = transcode().env("SPOOL_FFMPEG", &poor).run();
    refused("no libx264", &ran, FAILED, &["libx264", "install"]);
    assert!(!setting.out.exists(), "files were written: {:?}", folder::files(&setting.out));
    let doctor = Spool::new(["doctor"]).env("SPOOL_FFMPEG", &poor).run();
    assert_eq!(doctor.code, Some(FAILED), "{}", doctor.stderr);
    assert!(
        doctor.stdout.lines().any(|line| line.starts_with("FAIL") && line.contains("libx264")),
        "{}",
        doctor.stdout
    );
    doctor.expect_no_leftovers();
}

#[test]
fn an_ffmpeg_failure_is_quoted() {
    let setting = Setting::new();
    let ffmpeg = FfmpegWrapper::new();
    ffmpeg.before_each("echo 'the flux capacitor is empty' >&2; exit 1");
    let ran = Spool::new(setting.args(&setting.source)).env("SPOOL_FFMPEG", ffmpeg.path()).run();
    refused("a failure", &ran, FAILED, &["ffmpeg ended with exit code 1", "the flux capacitor is empty"]);
    setting.nothing_published("a failure");
    // A crash is not retried: the same bytes would crash it again.
    ffmpeg.clear_log();
    ffmpeg.before_each("kill -SEGV $$");
    let ran = Spool::new(setting.args(&setting.source)).env("SPOOL_FFMPEG", ffmpeg.path()).run();
    refused("a crash", &ran, FAILED, &["ffmpeg ended with a crash"]);
    assert!(ffmpeg.encodes().len() <= 2, "{:#?}", ffmpeg.encodes());
}

#[test]
fn a_source_that_changes_while_it_is_read_fails_the_job() {
    for name in ["windows.mp4", "whole.mkv"] {
        let setting = Setting::new();
        let at = |name: &str| setting.folder.path().join(name);
        let (source, other) = (at(name), at(&format!("other-{name}")));
        let long = footage::bunny(setting.folder.path(), "long.mp4", 12, 90);
        footage::ffmpeg(["-i", long.to_str().unwrap(), "-c", "copy", source.to_str().unwrap()]);
        let turned =
            ["-vf", "hflip,vflip", "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-c:a", "copy"];
        footage::ffmpeg(
            ["-i", long.to_str().unwrap()].iter().chain(&turned).chain(&[other.to_str().unwrap()]),
        );
        let ffmpeg = FfmpegWrapper::new();
        // In place, as an upload over a file does it: a rename would leave open files alone.
        ffmpeg.before_each(&format!("[ \"$n\" -eq 2 ] && cat {} > {}", other.display(), source.display()));
        let rows = ["--segment", "4", "--slots", "1"];
        let ran =
            Spool::new(setting.args(&source).iter().chain(&rows)).env("SPOOL_FFMPEG", ffmpeg.path()).run();
        refused(name, &ran, FAILED, &[name, "changed", "again"]);
        setting.nothing_published(name);
    }
}

#[test]
fn a_file_that_changes_during_its_last_row_fails_the_job() {
    // FFmpeg itself reads a local file that has no windows: the bytes that it read are of the planned version
    // only if the file is of that version afterwards too.
    let setting = Setting::new();
    let at = |name: &str| setting.folder.path().join(name);
    let (source, other) = (at("whole.mkv"), at("other.mkv"));
    let silent = ["-an", "-c:v", "copy"];
    footage::ffmpeg(
        ["-i", setting.source.to_str().unwrap()].iter().chain(&silent).chain(&[source.to_str().unwrap()]),
    );
    let turned = ["-an", "-vf", "hflip,vflip", "-c:v", "libx264", "-preset", "ultrafast", "-g", "25"];
    footage::ffmpeg(
        ["-i", setting.source.to_str().unwrap()].iter().chain(&turned).chain(&[other.to_str().unwrap()]),
    );
    let ffmpeg = FfmpegWrapper::new();
    ffmpeg.before_each(&format!("cat {} > {}", other.display(), source.display()));
    let ran = Spool::new(setting.args(&source)).env("SPOOL_FFMPEG", ffmpeg.path()).run();
    refused("whole.mkv", &ran, FAILED, &["whole.mkv", "changed", "again"]);
    setting.nothing_published("whole.mkv");
    assert!(
        folder::records(&setting.out).is_empty(),
        "a record assigns bytes of another version to this one"
    );
}

#[test]
fn invalid_command_lines_are_refused() {
    let setting = Setting::new();
    let source = setting.source.to_str().unwrap();
    let with = |more: &[&'static str]| {
        setting.args(&setting.source).into_iter().chain(more.iter().copied()).collect::<Vec<_>>()
    };
    let twin = setting.folder.path().join("bunny.mov");
    fs::copy(&setting.source, &twin).unwrap();
    let twin = twin.to_str().unwrap();
    let cases: Vec<(Vec<&str>, &[&str])> = vec![
        (vec![], &["Usage"]),
        (vec!["transmogrify"], &["transmogrify"]),
        (vec!["transcode", source], &["--destination", "DESTINATION"]),
        (vec!["transcode", "-o", "out"], &["SOURCE"]),
        (vec!["transcode", source, twin, "-o", "out"], &["bunny", "two commands"]),
        (vec!["transcode", source, "-o", "out", "--ladder", "wbe"], &["--ladder", "wbe", "web"]),
        (vec!["transcode", source, "-o", "out", "--ladder", ""], &["--ladder", "720p"]),
        (vec!["transcode", source, "-o", "out", "--ladder", "720"], &["720", "720p"]),
        (vec!["transcode", source, "-o", "out", "--ladder", "720p,720p"], &["720p", "twice"]),
        (vec!["transcode", source, "-o", "out", "--ladder", "720p:fast"], &["720p:fast", "k or M"]),
        (vec!["transcode", source, "-o", "out", "--ladder", "720p@crf99"], &["99", "51"]),
        (vec!["transcode", source, "-o", "out", "--ladder", "99999p"], &["99999", "4320"]),
        (with(&["--segment", "0"]), &["segment", "0 s"]),
        (with(&["--segment", "-5"]), &["-5"]),
        (with(&["--segment=-5"]), &["segment", "-5 s"]),
        (with(&["--segment", "nan"]), &["segment", "NaN"]),
        (with(&["--segment", "inf"]), &["segment", "inf"]),
        (with(&["--segment", "soon"]), &["--segment", "soon"]),
        (with(&["--segment", "2", "--media-segment", "4"]), &["segment", "2 s"]),
        (with(&["--media-segment", "0"]), &["media segment", "0 s"]),
        (with(&["--media-segment", "90"]), &["media segment", "90 s"]),
        (with(&["--slots", "0"]), &["--slots", "1..=1024"]),
        (with(&["--slots", "2000"]), &["--slots", "2000"]),
        (with(&["--threads", "0"]), &["--threads", "1..=64"]),
        (with(&["--output", "xml"]), &["--output", "xml", "json"]),
        (vec!["plan", source, "--ladder", "wbe"], &["wbe", "web"]),
        (vec!["plan", source, "--segment", "0"], &["segment", "0 s"]),
        (vec!["gc", "out", "--grace-hours", "-1"], &["-1"]),
        (vec!["gc", "out", "--grace-hours=-1"], &["--grace-hours", "-1"]),
        (vec!["gc", "out", "--grace-hours", "nan"], &["--grace-hours", "NaN"]),
        (vec!["sql"], &["--command", "--file"]),
        (vec!["sql", "-c", "SELECT 1", "-f", "x.sql"], &["--command", "--file"]),
        (vec!["sql", "-c", ""], &["statement"]),
    ];
    for (args, words) in cases {
        let ran = Spool::new(&args).run();
        let name = args.join(" ");
        // Help for a missing command is an error on stderr, without the word.
        if args.is_empty() {
            assert_eq!(ran.code, Some(USAGE), "{}", ran.stderr);
            assert!(ran.stderr.contains(words[0]), "{}", ran.stderr);
            continue;
        }
        refused(&name, &ran, USAGE, words);
    }
    assert!(!setting.out.exists());
    let missing = setting.folder.path().join("no.sql");
    refused(
        "no statement file",
        &Spool::new(["sql", "-f", missing.to_str().unwrap()]).run(),
        NOT_FOUND,
        &["no.sql"],
    );
}

#[test]
fn invalid_statements_are_refused() {
    let setting = Setting::new();
    let ffmpeg = FfmpegWrapper::new();
    let (source, out) = (setting.source.display(), setting.out.display());
    let transcode = format!("transcode(segment, '90p', '{out}')");
    let from = format!("FROM segments('{source}')");
    let cases: Vec<(String, &[&str])> = vec![
        ("SELEKT 1".into(), &["SELEKT"]),
        ("SELECT nothing".into(), &["nothing"]),
        ("SELECT * FROM nowhere".into(), &["nowhere"]),
        ("SELECT transmogrify(1)".into(), &["transmogrify"]),
        ("SELECT 1; SELECT 2".into(), &["statement"]),
        // Statements that would silently give a wrong result.
        (format!("SELECT hls_ladder({transcode}) {from}"), &["aggregate", "subquery"]),
        (
            format!("SELECT {transcode}['segment'], {transcode}['renditions'] {from}"),
            &["twice", "once in a subquery"],
        ),
        (format!("SELECT CASE WHEN index = 0 THEN {transcode} END {from}"), &["CASE", "WHERE"]),
        (format!("SELECT coalesce({transcode}, NULL) {from}"), &["COALESCE", "WHERE"]),
        (format!("SELECT index {from} WHERE {transcode} IS NOT NULL"), &["select list", "WHERE", "subquery"]),
        (format!("SELECT index {from} ORDER BY {transcode}['destination']"), &["select list", "subquery"]),
        (format!("SELECT count(*) FROM (SELECT {transcode} AS part {from})"), &["never run", "count(part)"]),
        (format!("SELECT index FROM (SELECT index, {transcode} AS part {from})"), &["never run"]),
        (
            format!("SELECT s.index FROM (VALUES ('{source}')) AS v(uri), LATERAL segments(v.uri) AS s"),
            &["LATERAL", "literals"],
        ),
        (format!("SELECT index FROM segments('{source}') WITH (seconds = 4)"), &["WITH", "in order"]),
        (format!("SELECT index FROM segments(source => '{source}')"), &["in order", "without names"]),
        // Wrong values.
        ("SELECT index FROM segments(30)".into(), &["source", "text in single quotes"]),
        ("SELECT index FROM segments()".into(), &["source", "segments('source'"]),
        (format!("SELECT index FROM segments('{source}', 'soon')"), &["seconds", "number"]),
        (format!("SELECT index FROM segments('{source}', 0)"), &["segment", "0 s"]),
        (
            format!("SELECT index FROM segments('{source}', 30, 4, 1)"),
            &["deinterlace", "text in single quotes"],
        ),
        (
            format!("SELECT index FROM segments('{source}', 30, 4, 'line')"),
            &["\"line\"", "'frame'", "'field'"],
        ),
        (format!("SELECT index FROM segments('{source}', 30, 4, 'frame', 1)"), &["too many"]),
        (format!("SELECT transcode(index, '90p', '{out}') AS part {from}"), &["first argument", "segment"]),
        (format!("SELECT transcode(segment, 90, '{out}') AS part {from}"), &["ladder", "text"]),
        (
            format!("SELECT transcode(segment, '90p') AS part {from}"),
            &["transcode takes three arguments", "transcode(segment, 'web', 'destination')"],
        ),
        ("SELECT hls_ladder(1)".into(), &["hls_ladder", "transcode"]),
        ("SELECT publish('x')".into(), &["publish", "hls_ladder"]),
        (format!("SELECT transcode(segment, '90p', NULL) AS part {from}"), &["destination", "text", "Null"]),
    ];
    for (sql, words) in cases {
        let ran = Spool::new(["sql", "-c", &sql]).env("SPOOL_FFMPEG", ffmpeg.path()).run();
        refused(&sql, &ran, USAGE, words);
    }
    assert_eq!(ffmpeg.encodes(), Vec::<String>::new());
    assert!(!setting.out.exists());
}

#[test]
fn statements_that_fail_while_they_run_are_reported() {
    let setting = Setting::new();
    let (source, out) = (setting.source.display(), setting.out.display());
    let from = format!("FROM segments('{source}')");
    let whole = |part: &str| format!("SELECT publish(hls_ladder(part)) FROM (SELECT {part} AS part {from})");
    let gap = format!(
        "SELECT hls_ladder(part) FROM (SELECT transcode(segment, '90p', '{out}') AS part FROM segments('{source}', 1, 1) WHERE index <> 1)"
    );
    let cases: Vec<(String, &[&str])> = vec![
        (whole(&format!("transcode(segment, 'wbe', '{out}')")), &["wbe", "web"]),
        (whole("transcode(segment, '90p', 'ftp://host/x')"), &["ftp://", "supported are"]),
        (whole("transcode(segment, '90p', CAST(NULL AS VARCHAR))"), &["destination", "null"]),
        ("SELECT ladder('wbe')".into(), &["wbe", "web"]),
        (gap, &["gap", "merge all rows"]),
        (
            format!(
                "SELECT publish(hls_ladder(part)) FROM (SELECT transcode(segment, '90p', '{out}') AS part {from} WHERE false)"
            ),
            &["nothing to publish"],
        ),
    ];
    for (sql, words) in cases {
        let ran = Spool::new(["sql", "-c", &sql]).run();
        refused(&sql, &ran, FAILED, words);
        setting.nothing_published(&sql);
    }
}
