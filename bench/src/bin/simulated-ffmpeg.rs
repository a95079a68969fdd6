//! Simulates FFmpeg: repeats the result of an encode that ran before, after a given time and without using a
//! processor. FFmpeg itself runs new encodes and all other commands.
//!
//! Spool starts FFmpeg with hardly any environment. The program therefore reads the file `settings` beside
//! itself, and keeps the results of encodes (`kept/`) and a list of runs (`log`) there.
#![expect(clippy::unwrap_used, reason = "a simulation that fails must stop with a message")]
#![expect(clippy::disallowed_methods, reason = "it stands in for FFmpeg, which it starts")]

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use spool_bench::simulation::{Run, Settings};

/// Time between two progress reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// Name of the file with FFmpeg's standard output.
const STDOUT: &str = "stdout";

fn main() -> ExitCode {
    let started = Instant::now();
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let settings = Settings::read(&beside);
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Spool passes -copyts to every encode, and to no other command.
    if !args.iter().any(|arg| arg == "-copyts") {
        let error = Command::new(&settings.ffmpeg).args(&args).exec();
        eprintln!("{}: {error}", settings.ffmpeg.display());
        return ExitCode::FAILURE;
    }
    let folder = std::env::current_dir().unwrap();
    let key = key(&args, &folder);
    let kept = beside.join("kept").join(&key);
    if !kept.exists() {
        return encode(&settings.ffmpeg, &args, &folder, &kept);
    }
    let stdout = fs::read_to_string(kept.join(STDOUT)).unwrap();
    let media = length(&args, &stdout);
    let duration = settings.duration(media, &key);
    loop {
        let elapsed = started.elapsed();
        let Some(left) = duration.checked_sub(elapsed) else { break };
        let done_us = (media.as_micros() as f64 * elapsed.as_secs_f64() / duration.as_secs_f64()) as u64;
        print!("out_time_us={done_us}\nprogress=continue\n");
        std::io::stdout().flush().unwrap();
        sleep(left.min(REPORT_INTERVAL));
    }
    for entry in fs::read_dir(&kept).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != STDOUT)
    {
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    print!("{stdout}");
    Run { key, took: duration }.log(&beside);
    ExitCode::SUCCESS
}

/// Returns the length of the media that an encode produced. FFmpeg reports the number of a few pictures
/// without a time, and only the time of audio.
fn length(args: &[OsString], stdout: &str) -> Duration {
    let last = |name: &str| {
        stdout.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).next_back()
    };
    let timebase = args.iter().skip_while(|arg| *arg != "-enc_time_base").nth(1);
    let frame = timebase.and_then(|value| {
        let (num, den) = value.to_str()?.split_once(':')?;
        Some(num.parse::<f64>().ok()? / den.parse::<f64>().ok()?)
    });
    Duration::from_secs_f64(match frame {
        Some(seconds) => last("frame=").unwrap() * seconds,
        None => last("out_time_us=").unwrap() / 1e6,
    })
}

/// Returns a hash of all that decides an encode's result: its arguments, with its folder replaced by `.`, and
/// its files.
fn key(args: &[OsString], folder: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    let here = folder.to_string_lossy();
    for arg in args {
        hasher.update(arg.to_string_lossy().replace(&*here, ".").as_bytes()).update(b"\0");
    }
    for name in names(folder) {
        hasher.update(name.as_bytes()).update(&fs::read(folder.join(&name)).unwrap());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

fn names(folder: &Path) -> BTreeSet<OsString> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

/// Runs FFmpeg and keeps its result.
fn encode(ffmpeg: &Path, args: &[OsString], folder: &Path, kept: &Path) -> ExitCode {
    let before = names(folder);
    let output =
        Command::new(ffmpeg).args(args).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    std::io::stdout().write_all(&output.stdout).unwrap();
    if !output.status.success() {
        return ExitCode::FAILURE;
    }
    // Renamed only when complete, since other encodes may look for it meanwhile.
    let mut unfinished = kept.as_os_str().to_owned();
    unfinished.push(format!(".{}", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    fs::create_dir_all(&unfinished).unwrap();
    fs::write(unfinished.join(STDOUT), &output.stdout).unwrap();
    for name in names(folder).difference(&before) {
        fs::copy(folder.join(name), unfinished.join(name)).unwrap();
    }
    if fs::rename(&unfinished, kept).is_err() {
        // A concurrent encode has kept the result already.
        fs::remove_dir_all(&unfinished).unwrap();
    }
    ExitCode::SUCCESS
}
