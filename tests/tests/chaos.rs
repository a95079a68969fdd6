//! No fault of a cluster changes a byte. Each round runs a job, injects one fault into the cluster at a
//! random moment, and expects the bytes of an undisturbed job, no finished row encoded again, and nothing
//! left behind.
//!
//! `make chaos N=50` runs more rounds; SPOOL_CHAOS_SEED repeats a round that failed.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use nix::sys::signal::Signal;
use spool_tests::{
    cluster::{Cluster, Network},
    ffmpeg_wrapper::FfmpegWrapper,
    folder, footage, privilege,
    random::Random,
    run::Spool,
};

/// Rounds of `make test`.
const ROUNDS: u64 = 3;

/// The clip: rows of 2 s, so one of sound and six of pictures.
const SECONDS: u32 = 12;

/// Least time of an encode, in seconds: so a job on three executors takes about three.
const ENCODE_S: f64 = 0.8;

/// The fault is injected within this time of the job's start.
const INJECTED_WITHIN: Duration = Duration::from_millis(3500);

/// Length of a fault that passes: longer than the silence after which an executor counts as lost.
const FAULT_LENGTH: Duration = Duration::from_secs(5);

/// A row that is looked up a moment before its record is there may be encoded again.
const RECORD_DELAY: Duration = Duration::from_secs(1);

/// Scratch space of an executor: enough for its windows and encodes.
const SCRATCH_BYTES: u64 = 8 << 20;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Terminate,
    Freeze,
    Disconnect,
    FillScratch,
    RestartScheduler,
    Join,
}

const FAULTS: [Fault; 7] = [
    Fault::Kill,
    Fault::Terminate,
    Fault::Freeze,
    Fault::Disconnect,
    Fault::FillScratch,
    Fault::RestartScheduler,
    Fault::Join,
];

#[test]
fn no_fault_of_a_cluster_changes_a_byte() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let folder = tempfile::tempdir().unwrap();
    let source = footage::bunny(folder.path(), "bunny.mp4", SECONDS, 90);
    let alone = folder.path().join("alone");
    Spool::new(transcode(&source, &alone)).ok();
    let expected = folder::media(&alone);
    let seeds: Vec<u64> = match number("SPOOL_CHAOS_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() << 16;
            (first..first + number("SPOOL_CHAOS_ROUNDS").unwrap_or(ROUNDS)).collect()
        }
    };
    for (round, seed) in seeds.iter().enumerate() {
        let out = folder.path().join(format!("out-{round}"));
        run(*seed, &source, &out, &expected);
    }
}

fn transcode(source: &Path, out: &Path) -> Vec<String> {
    let (source, out) = (source.to_str().unwrap(), out.to_str().unwrap());
    let args = [
        "transcode",
        source,
        "-o",
        out,
        "--ladder",
        "90p,60p",
        "--segment",
        "2",
        "--media-segment",
        "1",
        "--output",
        "json",
    ];
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn run(seed: u64, source: &Path, out: &Path, expected: &BTreeMap<String, Vec<u8>>) {
    let mut random = Random::of(seed);
    // In turn, so that a few rounds have several.
    let mut fault = FAULTS[(seed % FAULTS.len() as u64) as usize];
    let network = privilege::require(Network::new());
    // Mounting needs the same privilege as network namespaces.
    let scratch = network.is_some().then_some(SCRATCH_BYTES);
    if network.is_none() && matches!(fault, Fault::Disconnect | Fault::FillScratch) {
        fault = Fault::Freeze;
    }
    let moment = Duration::from_millis(random.below(INJECTED_WITHIN.as_millis() as u64));
    let victim = random.below(3) as usize;
    let ffmpeg = FfmpegWrapper::new();
    ffmpeg.before_each(&format!("sleep {ENCODE_S}"));
    let mut cluster = Cluster::start_in(network, scratch, 3, &ffmpeg.path(), &["--executor-timeout", "3"]);
    println!("seed {seed}: {fault:?} of executor {victim} after {} ms", moment.as_millis());
    let started = Instant::now();
    let args = transcode(source, out);
    let running = cluster.spool(&args.iter().map(String::as_str).collect::<Vec<_>>()).start();
    // The moment is what is random here: there is no condition to wait for.
    std::thread::sleep(moment);
    let undo = inject(&mut cluster, fault, victim);
    if let Some(undo) = undo {
        std::thread::sleep(FAULT_LENGTH);
        undo(&mut cluster);
    }
    let ran = running.wait();
    println!(
        "seed {seed}: done after {} ms, {} encodes",
        started.elapsed().as_millis(),
        ffmpeg.encodes().len()
    );
    assert_eq!(ran.code, Some(0), "seed {seed}: {}", ran.stderr);
    assert!(folder::media(out) == *expected, "seed {seed}: bytes differ");
    let again = encoded_again(&ffmpeg, out);
    assert!(again.is_empty(), "seed {seed}: finished rows were encoded again: {again:#?}");
    cluster.stop();
}

/// Ends a fault that passes.
type Undo = Box<dyn FnOnce(&mut Cluster)>;

fn inject(cluster: &mut Cluster, fault: Fault, victim: usize) -> Option<Undo> {
    match fault {
        Fault::Kill => cluster.kill_executor(victim),
        Fault::Terminate => {
            assert_eq!(cluster.drain_executor(victim, Duration::from_secs(60)), Some(0))
        }
        Fault::RestartScheduler => {
            cluster.kill_scheduler();
            cluster.start_scheduler();
        }
        Fault::Join => {
            cluster.add_executor(&[]);
        }
        Fault::Freeze => {
            cluster.executor(victim).signal(Signal::SIGSTOP);
            return Some(Box::new(move |cluster| cluster.executor(victim).signal(Signal::SIGCONT)));
        }
        Fault::Disconnect => {
            cluster.network().disconnect(victim);
            return Some(Box::new(move |cluster| cluster.network().reconnect(victim)));
        }
        Fault::FillScratch => {
            let filler = cluster.executor(victim).fill_scratch();
            return Some(Box::new(move |_| std::fs::remove_file(filler).unwrap()));
        }
    }
    None
}

/// Returns the encodes that began when every rung of their row had its record already.
fn encoded_again(ffmpeg: &FfmpegWrapper, out: &Path) -> Vec<String> {
    let mut done: BTreeMap<Option<u64>, SystemTime> = BTreeMap::new();
    for (name, record) in folder::records(out) {
        let row = (record["segment"]["track"] == "video")
            .then(|| record["segment"]["first_frame"].as_u64().unwrap());
        let written = out.join(name).metadata().unwrap().modified().unwrap();
        let last = done.entry(row).or_insert(written);
        *last = written.max(*last);
    }
    let row = |line: &str| {
        line.split("trim=start_pts=").nth(1).and_then(|rest| rest.split(':').next()?.parse().ok())
    };
    let started = ffmpeg.encodes_with_times().into_iter();
    started
        .filter(|(at, line)| done.get(&row(line)).is_some_and(|done| *at > *done + RECORD_DELAY))
        .map(|(_, line)| line)
        .collect()
}
