//! Overhead of Spool: the bytes that it reads from an object store, and the time until its first FFmpeg
//! starts.

use std::{fs, path::Path, time::SystemTime};

use spool_tests::{ffmpeg_wrapper::FfmpegWrapper, run::Spool, s3::S3Server};

use crate::{encode::median, inputs::Source, report::Table};

/// Runs of each source.
const ROUNDS: usize = 5;

/// One rung, since neither figure depends on the ladder.
const LADDER: &str = "360p";

const BUCKET: &str = "media";

/// Transcodes each source from an S3 server in this process that counts the bytes it sends, and from a file.
pub fn measure(folder: &Path, sources: &[Source]) -> Vec<Table> {
    fs::create_dir_all(folder).unwrap();
    let folder = folder.canonicalize().unwrap();
    let columns = [
        "source",
        "MB",
        "MB read from S3",
        "read, as a multiple of the source",
        "seconds until the first FFmpeg, from a file (min to max)",
    ];
    let mut table = Table::new("Overhead of Spool", &columns);
    for source in sources {
        let path = source.make(&folder);
        let size = path.metadata().unwrap().len() as f64;
        let read = read_from_s3(&path) as f64;
        let mut starts: Vec<f64> = (0..ROUNDS).map(|_| until_first_ffmpeg(&folder, &path)).collect();
        starts.sort_by(f64::total_cmp);
        table.add(vec![
            source.to_string(),
            format!("{:.2}", size / 1e6),
            format!("{:.2}", read / 1e6),
            format!("{:.3}", read / size),
            format!("{:.2} ({:.2} to {:.2})", median(starts.iter().copied()), starts[0], starts[ROUNDS - 1]),
        ]);
    }
    vec![table]
}

/// Returns the bytes that the server sent while a source was transcoded.
fn read_from_s3(path: &Path) -> u64 {
    let server = S3Server::start(&[BUCKET]);
    server.put(BUCKET, "in.mp4", fs::read(path).unwrap());
    server.clear_log();
    let (source, out) = (format!("s3://{BUCKET}/in.mp4"), format!("s3://{BUCKET}/out"));
    Spool::new(["transcode", &source, "-o", &out, "--ladder", LADDER]).envs(server.env()).ok();
    server.bytes_sent()
}

/// Returns the seconds from the start of the command to the start of the first FFmpeg that encodes.
fn until_first_ffmpeg(folder: &Path, path: &Path) -> f64 {
    let scratch = tempfile::tempdir_in(folder).unwrap();
    let (wrapper, out) = (FfmpegWrapper::new(), scratch.path().join("out"));
    let started = SystemTime::now();
    let args = ["transcode", path.to_str().unwrap(), "-o", out.to_str().unwrap(), "--ladder", LADDER];
    Spool::new(args).env("SPOOL_FFMPEG", wrapper.path()).ok();
    let first = wrapper.encodes_with_times().into_iter().map(|(at, _)| at).min().unwrap();
    first.duration_since(started).unwrap().as_secs_f64()
}
