//! Who else encodes? One FFmpeg that does everything, Spool's own FFmpeg commands without Spool, and the same under Spark.

use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use spool_tests::{
    ffmpeg_wrapper::{which, write_program},
    run::binary,
};

use crate::command::{self, Timed, words};

/// Who encodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// One FFmpeg: one decode, every rung, its own HLS muxer, with the settings that were the fastest.
    Ffmpeg,
    /// Spool, in one process.
    Spool,
    /// The same, playable while it encodes.
    SpoolLive,
    /// One FFmpeg on one thread for the first media segment alone: what being playable is measured by.
    First,
    /// The FFmpeg commands that Spool runs, over the windows that it made, as many at a time as there are cores. They publish nothing.
    Pieces,
    /// The same commands, as a map of Spark's over their list.
    Spark,
    /// As Spark is used today: the file split by copying into pieces of two minutes, which are encoded and joined.
    SparkSplit,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ffmpeg => "one FFmpeg",
            Self::Spool => "Spool",
            Self::SpoolLive => "Spool, --live",
            Self::First => "one FFmpeg on one thread, first media segment alone",
            Self::Pieces => "Spool's FFmpeg commands alone",
            Self::Spark => "the same commands under Spark",
            Self::SparkSplit => "Spark, split by copying",
        })
    }
}

impl Peer {
    /// Does it leave a ladder?
    pub(super) fn publishes(self) -> bool {
        matches!(self, Self::Ffmpeg | Self::Spool | Self::SpoolLive | Self::SparkSplit)
    }
}

/// The rungs of Spool's preset `web`: height, x264's level, and the peak in kb/s, which fills the buffer in two seconds.
const RUNGS: [(u32, &str, u32); 3] = [(1080, "4.0", 5000), (720, "3.1", 2800), (480, "3.0", 1400)];

/// What one FFmpeg may be told of its threads: a name, options before its input, and options of its outputs.
type Threads = (&'static str, &'static [&'static str], &'static [&'static str]);

/// What is tried for the one FFmpeg.
const THREADS: [Threads; 5] = [
    ("the threads that it chooses", &[], &[]),
    ("2 threads an encoder", &[], &["-threads:v", "2"]),
    ("4 threads an encoder", &[], &["-threads:v", "4"]),
    ("1 thread of filters", &["-filter_complex_threads", "1"], &[]),
    ("1 thread of the decoder", &["-threads", "1"], &[]),
];

/// How much of a source they are tried on, in seconds, and how often.
const TRIED: &str = "8";
const TRIES: usize = 3;

/// What is the same in all turns.
pub(super) struct Setting {
    source: PathBuf,
    /// The commands that Spool ran, one to a file, each with its window.
    pieces: PathBuf,
    slots: usize,
    /// What all FFmpegs are run by.
    pub(super) timed: Timed,
    /// The fastest of [`THREADS`].
    threads: Threads,
}

impl Setting {
    /// Tries what the one FFmpeg may be told and, where somebody is to run the commands that Spool runs, has it run them.
    pub(super) fn prepare(folder: &Path, source: &Path, peers: &[Peer]) -> Self {
        let pieces = folder.join("pieces");
        fs::create_dir_all(&pieces).unwrap();
        let slots = std::thread::available_parallelism().unwrap().get();
        let timed = Timed::in_folder(&folder.join("timed"));
        let mut setting = Self { source: source.to_owned(), pieces, slots, timed, threads: THREADS[0] };
        setting.threads = setting.fastest(folder);
        if peers.iter().any(|peer| matches!(peer, Peer::Pieces | Peer::Spark)) {
            setting.keep_pieces(folder);
        }
        setting
    }

    /// Has Spool encode the source once, and keeps the commands that it runs.
    fn keep_pieces(&self, folder: &Path) {
        let wrapper = folder.join("ffmpeg");
        // Called in a row's own folder, which is gone afterwards: its window is kept, and the command as it is over that window.
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

    /// What the one FFmpeg is told of its threads.
    pub(super) fn threads(&self) -> &'static str {
        self.threads.0
    }

    /// The fastest of what one FFmpeg may be told: in turns, over the begin of the source, by the best of each.
    fn fastest(&self, folder: &Path) -> Threads {
        let mut took = [Duration::MAX; THREADS.len()];
        for _ in 0..TRIES {
            for ((_, before, after), took) in THREADS.iter().zip(&mut took) {
                let out = tempfile::tempdir_in(folder).unwrap();
                let before: Vec<&str> = before.iter().chain(&["-t", TRIED]).copied().collect();
                let args = self.one_ffmpeg(out.path(), &before, after);
                *took = command::run(folder, &args, &self.timed, || false).wall.min(*took);
            }
        }
        for ((name, ..), took) in THREADS.iter().zip(took) {
            eprintln!("one FFmpeg, {name}: {:.2} s for {TRIED} s", took.as_secs_f64());
        }
        let best = (0..THREADS.len()).min_by_key(|number| took[*number]);
        THREADS[best.unwrap_or(0)]
    }

    /// What a peer is told to put a ladder, if it leaves one, into `out`.
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
            Peer::SpoolLive => self.spool(out, &["--live"]),
            Peer::Pieces => self.shell(),
            Peer::Spark => self.spark(&["pieces".into(), self.pieces.clone().into()]),
            Peer::SparkSplit => self.spark(&["split".into(), self.source.clone().into(), out.into()]),
        });
        args
    }

    /// Is there something to play of every rung, once a peer has begun?
    pub(super) fn is_playable(&self, peer: Peer, out: &Path) -> bool {
        match peer {
            Peer::SpoolLive => out.join("live.m3u8").exists(),
            Peer::Spool | Peer::SparkSplit => out.join("master.m3u8").exists(),
            // FFmpeg writes its playlists at the end; a media segment is whole when the next one is there.
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
        // Sound last: it is the smallest command.
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
