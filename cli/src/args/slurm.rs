//! Flags of jobs for Slurm.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Slurm {
    /// Print the script of a job, to be read, changed and given to sbatch.
    #[command(subcommand)]
    Script(SlurmJob),
    /// Submit a job, and print its number.
    #[command(subcommand)]
    Submit(SlurmJob),
}

#[derive(Debug, Subcommand)]
pub enum SlurmJob {
    /// One command on the nodes of a job: a scheduler, an executor on each node, and the command, whose exit code is the job's.
    Batch(Batch),
    /// A scheduler, for executors and commands in other jobs.
    Scheduler(SlurmScheduler),
    /// Executors, as an array of jobs that find their scheduler through a folder.
    Executors(SlurmExecutors),
}

/// What every job takes.
#[derive(Debug, Args)]
pub struct Common {
    /// The job's name.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Seconds between SIGTERM and the time limit, in which rows in hand are finished: 20 to 3600, and 40 at least for a batch.
    #[arg(long, value_name = "SECONDS")]
    pub lead: Option<u64>,
    /// How often a job puts itself back into the queue at its time limit.
    #[arg(long, value_name = "N")]
    pub requeues: Option<u32>,
    /// How long a scheduler is waited for.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub wait: u64,
    /// Folder for the logs of jobs; submit makes it where it is missing.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub logs: String,
    /// The partition.
    #[arg(long, value_name = "PARTITION")]
    pub partition: Option<String>,
    /// The account that pays.
    #[arg(long, value_name = "ACCOUNT")]
    pub account: Option<String>,
    /// The quality of service.
    #[arg(long, value_name = "QOS")]
    pub qos: Option<String>,
    /// What nodes must have, such as 'rome|milan'.
    #[arg(long, value_name = "FEATURES")]
    pub constraint: Option<String>,
    /// Memory for each CPU, such as 2G.
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub mem_per_cpu: Option<String>,
    /// Another option of sbatch, such as --hint=nomultithread.
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub sbatch: Vec<String>,
    /// A line of bash for the beginning, such as 'module load ffmpeg'.
    #[arg(long, value_name = "LINE")]
    pub setup: Vec<String>,
    /// The program, at the same place on all nodes; this one unless given. A name without a slash is looked up there.
    #[arg(long, value_name = "FILE")]
    pub spool: Option<String>,
}

#[derive(Debug, Args)]
pub struct Batch {
    /// Nodes, each with an executor.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes: u32,
    /// CPUs of each node: as many encodes at a time, divided by their threads.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub cpus_per_task: u32,
    /// How long the job may run, as sbatch has it.
    #[arg(long, value_name = "TIME", default_value = "4:00:00")]
    pub time: String,
    /// Threads of each encode.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// The network between the nodes, such as ib0; the one that Slurm uses unless given.
    #[arg(long, value_name = "INTERFACE")]
    pub interface: Option<String>,
    #[command(flatten)]
    pub common: Common,
    /// The command: `transcode …` or `sql …`.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub work: Vec<String>,
}

#[derive(Debug, Args)]
pub struct SlurmScheduler {
    /// Folder that all nodes see and nobody else reads or writes: the scheduler's address and token are kept there. Submit makes it
    /// where it is missing.
    #[arg(long, value_name = "FOLDER")]
    pub folder: PathBuf,
    /// How long the job may run, as sbatch has it.
    #[arg(long, value_name = "TIME", default_value = "1-00:00:00")]
    pub time: String,
    /// Port to listen on; any that is free unless given.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
    /// The network between the nodes, such as ib0; the one that Slurm uses unless given.
    #[arg(long, value_name = "INTERFACE")]
    pub interface: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct SlurmExecutors {
    /// Folder that the scheduler's job writes its address and token into. Submit makes it where it is missing.
    #[arg(long, value_name = "FOLDER")]
    pub folder: PathBuf,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub executors: u32,
    /// CPUs of each: as many encodes at a time, divided by their threads.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub cpus_per_task: u32,
    /// How long each may run, as sbatch has it.
    #[arg(long, value_name = "TIME", default_value = "4:00:00")]
    pub time: String,
    /// Threads of each encode, as statements ask for.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// Seconds without a row after which an executor leaves.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub leave_idle: u64,
    /// A scheduler that does not write its address into the folder; only its token is read there.
    #[arg(long, value_name = "HOST:PORT", value_parser = super::host_port)]
    pub scheduler: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

/// Memory as sbatch has it: megabytes, unless a unit follows.
///
/// Source: sbatch(1), `--mem-per-cpu`.
fn memory(text: &str) -> Result<String, String> {
    let number = text.strip_suffix(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']).unwrap_or(text);
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(
            "give a whole number of megabytes, or one with K, M, G or T, such as 1500M or 2G".to_owned()
        );
    }
    Ok(text.to_owned())
}
