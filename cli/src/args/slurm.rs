//! Flags of `spool slurm`: jobs that run Spool under Slurm.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::host_port;

#[derive(Debug, Subcommand)]
pub enum SlurmCommand {
    /// Print a job script, to read, change and pass to sbatch.
    #[command(subcommand)]
    Script(SlurmJob),
    /// Submit a job and print its number.
    #[command(subcommand)]
    Submit(SlurmJob),
}

#[derive(Debug, Subcommand)]
pub enum SlurmJob {
    /// Job that runs one command on a cluster of its own: a scheduler, an executor on each node, and the
    /// command, whose exit code is the job's.
    Batch(SlurmBatchArgs),
    /// Job that runs a scheduler, for executors and commands of other jobs.
    Scheduler(SlurmSchedulerArgs),
    /// Array of jobs that run executors, which find their scheduler through a shared folder.
    Executors(SlurmExecutorsArgs),
}

/// Flags of every Slurm job.
#[derive(Debug, Args)]
pub struct SlurmJobArgs {
    /// Name of the job. Default: spool-batch, spool-scheduler or spool-executors.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Seconds between SIGTERM and the time limit, in which running rows finish: 20 to 3600, and at least 40
    /// for a batch. Default: 60 for a scheduler, else 120.
    #[arg(long, value_name = "SECONDS")]
    pub lead: Option<u64>,
    /// Times that the job requeues itself at its time limit. Default: 0 for a scheduler, else 10.
    #[arg(long, value_name = "N")]
    pub requeues: Option<u32>,
    /// Seconds to wait for the scheduler.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub wait: u64,
    /// Folder for job logs; `submit` creates it if missing.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub logs: String,
    /// Partition. Default: Slurm's.
    #[arg(long, value_name = "PARTITION")]
    pub partition: Option<String>,
    /// Account to charge. Default: Slurm's.
    #[arg(long, value_name = "ACCOUNT")]
    pub account: Option<String>,
    /// Quality of service. Default: Slurm's.
    #[arg(long, value_name = "QOS")]
    pub qos: Option<String>,
    /// Features that nodes must have, such as 'rome|milan'.
    #[arg(long, value_name = "FEATURES")]
    pub constraint: Option<String>,
    /// Memory for each CPU: megabytes, or a number with K, M, G or T, such as 2G. Default: Slurm's.
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub mem_per_cpu: Option<String>,
    /// Another option of sbatch, such as --hint=nomultithread. May be repeated.
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub sbatch: Vec<String>,
    /// Line of bash to run first, such as 'module load ffmpeg'. May be repeated.
    #[arg(long, value_name = "LINE")]
    pub setup: Vec<String>,
    /// Spool program on the nodes: a path, or a name to look up in PATH there. Default: the path of this
    /// program.
    #[arg(long, value_name = "FILE")]
    pub spool: Option<String>,
}

#[derive(Debug, Args)]
pub struct SlurmBatchArgs {
    /// Nodes, each with one executor.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub nodes: u32,
    /// CPUs of each node. An executor has as many slots as CPUs, divided by --threads.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub cpus_per_task: u32,
    /// Time limit in the format of sbatch.
    #[arg(long, value_name = "TIME", default_value = "4:00:00")]
    pub time: String,
    /// Threads of each encode. Changes the output bytes.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=64)
    )]
    pub threads: u32,
    /// Network interface between the nodes, such as ib0. Default: the interface that Slurm uses.
    #[arg(long, value_name = "INTERFACE")]
    pub interface: Option<String>,
    #[command(flatten)]
    pub job: SlurmJobArgs,
    /// Command to run: `transcode …` or `sql …`.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub work: Vec<String>,
}

#[derive(Debug, Args)]
pub struct SlurmSchedulerArgs {
    /// Folder for the scheduler's address and token. Must be visible to all nodes and closed to other users;
    /// `submit` creates it if missing.
    #[arg(long, value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Time limit in the format of sbatch.
    #[arg(long, value_name = "TIME", default_value = "1-00:00:00")]
    pub time: String,
    /// Port to listen on; 0 chooses a free port.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
    /// Network interface between the nodes, such as ib0. Default: the interface that Slurm uses.
    #[arg(long, value_name = "INTERFACE")]
    pub interface: Option<String>,
    #[command(flatten)]
    pub job: SlurmJobArgs,
}

#[derive(Debug, Args)]
pub struct SlurmExecutorsArgs {
    /// Folder with the scheduler's address and token, as given to `spool slurm submit scheduler`; `submit`
    /// creates it if missing.
    #[arg(long, value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Executors in the array.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub executors: u32,
    /// CPUs of each executor. An executor has as many slots as CPUs, divided by --threads.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub cpus_per_task: u32,
    /// Time limit of each executor in the format of sbatch.
    #[arg(long, value_name = "TIME", default_value = "4:00:00")]
    pub time: String,
    /// Threads of each encode that statements will request.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=64)
    )]
    pub threads: u32,
    /// Seconds without a row after which an executor exits.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub idle_timeout: u64,
    /// Scheduler that does not write its address into the folder. Its token is still read from there.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    pub scheduler: Option<String>,
    #[command(flatten)]
    pub job: SlurmJobArgs,
}

/// Checks an amount of memory as sbatch takes it: megabytes, unless a unit follows.
///
/// Source: sbatch(1), `--mem-per-cpu`.
fn memory(text: &str) -> Result<String, String> {
    let number = text.strip_suffix(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']).unwrap_or(text);
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(
            "expected a whole number of megabytes, or one with K, M, G or T, such as 1500M or 2G".to_owned()
        );
    }
    Ok(text.to_owned())
}
