//! Peers of the comparison: one FFmpeg that does everything, Spool, and Spool's FFmpeg commands under a shell
//! and under Spark.

use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use spool_media::package::early_playback::EARLY_MASTER;
use spool_tests::{
    ffmpeg_wrapper::{which, write_program},
    run::binary,
};

use crate::command::{self, TimedFfmpeg, words};

/// Peer that encodes a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// One FFmpeg: one decode, every rung, its HLS muxer, with the fastest of several thread settings.
    Ffmpeg,
    /// Spool, in one process.
    Spool,
    /// Spool in one process, with early playback.
    SpoolEarlyPlayback,
    /// One FFmpeg on one thread for the first media segment alone: the yardstick of early playback.
    First,
    /// The FFmpeg commands that Spool runs, over its windows, one per core at once. Publishes nothing.
    Pieces,
    /// The FFmpeg commands that Spool runs, as a Spark map over their list.
    Spark,
    /// Common use of Spark: the file split by stream copy into pieces of two minutes, which are encoded and
    /// joined.
    SparkSplit,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ffmpeg => "one FFmpeg",
            Self::Spool => "Spool",
            Self::SpoolEarlyPlayback => "Spool, --early-playback",
            Self::First => "one FFmpeg on one thread, first media segment alone",
            Self::Pieces => "Spool's FFmpeg commands alone",
            Self::Spark => "Spool's FFmpeg commands under Spark",
            Self::SparkSplit => "Spark, split by copying",
        })
    }
}

impl Peer {
    /// Returns whether the peer publishes a ladder.
    pub(super) fn publishes(self) -> bool {
        matches!(self, Self::Ffmpeg | Self::Spool | Self::SpoolEarlyPlayback | Self::SparkSplit)
    }
}

/// The rungs of Spool's preset `web`: height, x264's level, and the peak in kb/s, half of the buffer's size.
const RUNGS: [(u32, &str, u32); 3] = [(1080, "4.0", 5000), (720, "3.1", 2800), (480, "3.0", 1400)];

/// Thread setting of one FFmpeg: a name, options before its input, and options of its outputs.
type Threads = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Thread settings that are tried for the one FFmpeg.
const THREADS: [Threads; 5] = [
    ("its default threads", &[], &[]),
    ("2 threads per encoder", &[], &["-threads:v", "2"]),
    ("4 threads per encoder", &[], &["-threads:v", "4"]),
    ("1 filter thread", &["-filter_complex_threads", "1"], &[]),
    ("1 decoder thread", &["-threads", "1"], &[]),
];

/// Seconds of the source that each setting is tried on, and the number of tries.
const TRY_SECONDS: &str = "8";
const TRIES: usize = 3;

/// Setting that all runs share.
pub(super) struct Setting {
    source: PathBuf,
    /// Folder with the commands that Spool ran, one per subfolder, each with its window.
    pieces: PathBuf,
    slots: usize,
    /// FFmpeg of all peers.
    pub(super) timed: TimedFfmpeg,
    /// The fastest of [`THREADS`].
    threads: Threads,
}

impl Setting {
    /// Finds the fastest thread setting, and records the commands of Spool if a peer runs them.
    pub(super) fn prepare(folder: &Path, source: &Path, peers: &[Peer]) -> Self {
        let pieces = folder.join("pieces");
        fs::create_dir_all(&pieces).unwrap();
        let slots = std::thread::available_parallelism().unwrap().get();
        let timed = TimedFfmpeg::in_folder(&folder.join("timed"));
        let mut setting = Self { source: source.to_owned(), pieces, slots, timed, threads: THREADS[0] };
        setting.threads = setting.fastest(folder);
        if peers.iter().any(|peer| matches!(peer, Peer::Pieces | Peer::Spark)) {
            setting.keep_pieces(folder);
        }
        setting
    }

    /// Transcodes the source with Spool once, and keeps the commands that it runs.
    fn keep_pieces(&self, folder: &Path) {
        let wrapper = folder.join("ffmpeg");
        // Runs in the row's folder, which is deleted afterwards: the window is copied, and the command
        // rewritten to the copy.
        let script = format!(
            "#!/bin/bash\n\
             case \" $* \" in *' -copyts '*) ;; *) exec {real} \"$@\" ;; esac\n\
             keep={pieces}/$$ && mkdir $keep && cp window.mp4 $keep/\n\
             {{ printf '%q ' nice -n 0 ffmpeg; for word in \"$@\"; do printf '%q ' \"${{word//$PWD/$keep}}\"; done; }} > $keep/command\n\
             exec {real} \"$@\"\n",
            real = which("ffmpeg").display(),
            pieces = self.pieces.display(),
        );
        write_program(&wrapper, &script);
        let mut args: Vec<OsString> = words(&["env"]);
        args.push(format!("SPOOL_FFMPEG={}", wrapper.display()).into());
        args.extend(self.spool(&folder.join("first"), &[]));
        command::run(folder, &args, &self.timed, || false);
    }

    /// Returns the name of the fastest thread setting.
    pub(super) fn threads(&self) -> &'static str {
        self.threads.0
    }

    /// Returns the fastest thread setting, by the best of several tries over the start of the source.
    fn fastest(&self, folder: &Path) -> Threads {
        let mut best = [Duration::MAX; THREADS.len()];
        for _ in 0..TRIES {
            for ((_, before, after), best) in THREADS.iter().zip(&mut best) {
                let out = tempfile::tempdir_in(folder).unwrap();
                let before: Vec<&str> = before.iter().chain(&["-t", TRY_SECONDS]).copied().collect();
                let args = self.one_ffmpeg(out.path(), &before, after);
                *best = command::run(folder, &args, &self.timed, || false).wall.min(*best);
            }
        }
        for ((name, ..), best) in THREADS.iter().zip(best) {
            eprintln!("one FFmpeg, {name}: {:.2} s for {TRY_SECONDS} s", best.as_secs_f64());
        }
        let fastest = (0..THREADS.len()).min_by_key(|index| best[*index]);
        THREADS[fastest.unwrap_or(0)]
    }

    /// Returns the command of a peer. A peer that publishes a ladder publishes it to `out`.
    pub(super) fn command(&self, peer: Peer, out: &Path) -> Vec<OsString> {
        let path = std::env::var("PATH").unwrap();
        let state = self.timed.program("state");
        let paths = [
            format!("PATH={}:{path}", self.timed.program("").display()),
            format!("XDG_STATE_HOME={}", state.display()),
        ];
        let mut args = words(&["env", &paths[0], &paths[1]]);
        args.extend(match peer {
            Peer::Ffmpeg => self.one_ffmpeg(out, self.threads.1, self.threads.2),
            Peer::First => self.one_ffmpeg(
                out,
                &["-threads", "1", "-filter_complex_threads", "1"],
                &["-threads", "1", "-t", "4"],
            ),
            Peer::Spool => self.spool(out, &[]),
            Peer::SpoolEarlyPlayback => self.spool(out, &["--early-playback"]),
            Peer::Pieces => self.shell(),
            Peer::Spark => self.spark(&["pieces".into(), self.pieces.clone().into()]),
            Peer::SparkSplit => self.spark(&["split".into(), self.source.clone().into(), out.into()]),
        });
        args
    }

    /// Returns whether every rung can be played from its start by now.
    pub(super) fn is_playable(&self, peer: Peer, out: &Path) -> bool {
        match peer {
            Peer::SpoolEarlyPlayback => out.join(EARLY_MASTER).exists(),
            Peer::Spool | Peer::SparkSplit => out.join("master.m3u8").exists(),
            // FFmpeg writes its playlists at the end. A media segment is complete when the next one exists.
            Peer::Ffmpeg => {
                (0..=RUNGS.len()).all(|number| out.join(number.to_string()).join("index1.m4s").exists())
            }
            Peer::First | Peer::Pieces | Peer::Spark => false,
        }
    }

    fn spool(&self, out: &Path, more: &[&str]) -> Vec<OsString> {
        let mut args =
            vec![binary().into(), "transcode".into(), self.source.clone().into(), "-o".into(), out.into()];
        args.extend(words(&["--progress", "none"]));
        args.extend(words(more));
        args
    }

    fn shell(&self) -> Vec<OsString> {
        // Largest command first; audio is the smallest.
        let script = "ls -S \"$0\"/*/command | xargs -P \"$1\" -n 1 bash -e";
        let mut args = words(&["bash", "-c", script]);
        args.extend([self.pieces.clone().into(), self.slots.to_string().into()]);
        args
    }

    fn spark(&self, more: &[OsString]) -> Vec<OsString> {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
        let packages = bench.join("../.cache/python-bench");
        let mut args = words(&["env", &format!("PYTHONPATH={}", packages.display()), "python3"]);
        args.extend([bench.join("spark.py").into(), self.slots.to_string().into()]);
        args.extend(more.iter().cloned());
        args
    }

    fn one_ffmpeg(&self, out: &Path, before: &[&str], after: &[&str]) -> Vec<OsString> {
        fs::create_dir_all(out).unwrap();
        let split: String = (0..RUNGS.len()).map(|number| format!("[s{number}]")).collect();
        let scaled = RUNGS
            .iter()
            .enumerate()
            .map(|(number, (height, ..))| format!(";[s{number}]scale=-2:{height}[v{number}]"));
        let graph = format!("[0:v:0]split={}{split}{}", RUNGS.len(), scaled.collect::<String>());
        let mut args = words(&["ffmpeg", "-nostdin", "-y", "-loglevel", "error"]);
        args.extend(words(before));
        args.push("-i".into());
        args.push(self.source.clone().into());
        args.extend(words(&["-filter_complex", &graph]));
        for (number, (_, level, kbps)) in RUNGS.iter().enumerate() {
            args.extend(words(&["-map", &format!("[v{number}]")]));
            for (option, value) in [
                ("-c:v", "libx264".to_owned()),
                ("-preset:v", "veryfast".to_owned()),
                ("-profile:v", "high".to_owned()),
                ("-pix_fmt:v", "yuv420p".to_owned()),
                ("-level:v", (*level).to_owned()),
                ("-crf:v", "23".to_owned()),
                ("-maxrate:v", format!("{kbps}k")),
                ("-bufsize:v", format!("{}k", kbps * 2)),
            ] {
                args.extend(words(&[&format!("{option}:{number}"), &value]));
            }
        }
        args.extend(words(&["-force_key_frames:v", "expr:gte(t,n_forced*4)", "-forced-idr:v", "1"]));
        args.extend(words(&[
            "-map",
            "0:a:0?",
            "-c:a",
            "aac",
            "-aac_coder",
            "fast",
            "-b:a",
            "128k",
            "-ac",
            "2",
        ]));
        let variants: Vec<String> =
            (0..RUNGS.len()).map(|number| format!("v:{number},agroup:sound")).collect();
        args.extend(words(after));
        args.extend(words(&[
            "-f",
            "hls",
            "-hls_time",
            "4",
            "-hls_playlist_type",
            "vod",
            "-hls_segment_type",
            "fmp4",
        ]));
        args.extend(words(&["-hls_flags", "independent_segments", "-master_pl_name", "master.m3u8"]));
        args.extend(words(&["-var_stream_map", &format!("{} a:0,agroup:sound", variants.join(" "))]));
        args.push(out.join("%v").join("index.m3u8").into());
        args
    }
}
