//! What if an encode took as long as it is told to, and no processor? This runs in FFmpeg's place: an encode that was run before is
//! answered after a while with what it gave then; one that was not, and whatever else is asked, FFmpeg itself runs.
//!
//! It is started with hardly any environment, so it reads its settings from the file `settings` beside itself, and keeps there what
//! encodes gave (`kept/`) and when they ran (`log`).
#![expect(clippy::unwrap_used, reason = "a simulation that fails must say so and stop")]
#![expect(clippy::disallowed_methods, reason = "it stands in for FFmpeg and has to start it")]

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

/// How often it says how far it is.
const REPORT: Duration = Duration::from_millis(500);

/// The name under which what FFmpeg said is kept.
const SAID: &str = "stdout";

fn main() -> ExitCode {
    let begun = Instant::now();
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let settings = Settings::read(&beside);
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Every encode of Spool's is timed by the source's own clock; nothing else that it asks of FFmpeg is.
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
    let said = fs::read_to_string(kept.join(SAID)).unwrap();
    let media = length(&args, &said);
    let takes = settings.takes(media, &key);
    loop {
        let so_far = begun.elapsed();
        let Some(left) = takes.checked_sub(so_far) else { break };
        let done_us = (media.as_micros() as f64 * so_far.as_secs_f64() / takes.as_secs_f64()) as u64;
        print!("out_time_us={done_us}\nprogress=continue\n");
        std::io::stdout().flush().unwrap();
        sleep(left.min(REPORT));
    }
    for entry in fs::read_dir(&kept).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != SAID) {
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    print!("{said}");
    Run { key, takes }.log(&beside);
    ExitCode::SUCCESS
}

/// How much media an encode gave. Of a few pictures FFmpeg tells their number and no time; of sound it tells the time alone.
fn length(args: &[OsString], said: &str) -> Duration {
    let last = |name: &str| {
        said.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).next_back()
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

/// What decides what an encode gives: its arguments, wherever its folder lies, and the files in it.
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

/// Runs FFmpeg, and keeps what it gives.
fn encode(ffmpeg: &Path, args: &[OsString], folder: &Path, kept: &Path) -> ExitCode {
    let before = names(folder);
    let output =
        Command::new(ffmpeg).args(args).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    std::io::stdout().write_all(&output.stdout).unwrap();
    if !output.status.success() {
        return ExitCode::FAILURE;
    }
    // Under its name only when it is whole: others may look at the same time.
    let mut unfinished = kept.as_os_str().to_owned();
    unfinished.push(format!(".{}", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    fs::create_dir_all(&unfinished).unwrap();
    fs::write(unfinished.join(SAID), &output.stdout).unwrap();
    for name in names(folder).difference(&before) {
        fs::copy(folder.join(name), unfinished.join(name)).unwrap();
    }
    if fs::rename(&unfinished, kept).is_err() {
        // Another was as fast, and kept the same.
        fs::remove_dir_all(&unfinished).unwrap();
    }
    ExitCode::SUCCESS
}
