//! `spool slurm`: writes jobs for Slurm, and submits them.

use std::{
    ffi::CString,
    io::{Seek, Write},
    path::Path,
};

use nix::unistd::{dup2_stdin, execvp};

use crate::{
    args::{Batch, Common, Slurm, SlurmExecutors, SlurmJob, SlurmScheduler},
    exit::CliError,
    local, output,
    slurm::{Template, Value, Values, script, seconds},
};

/// The program that takes jobs.
const SBATCH: &str = "sbatch";

/// SIGTERM may come so many seconds early.
const EARLY: u64 = 60;

pub fn run(command: Slurm) -> Result<(), CliError> {
    match command {
        Slurm::Script(job) => output::print(written(job)?.trim_end()),
        Slurm::Submit(job) => submit(&written(job)?),
    }
}

/// What differs between the kinds of jobs, where nobody says otherwise.
struct Defaults {
    name: &'static str,
    lead: u64,
    requeues: u32,
}

fn written(job: SlurmJob) -> Result<String, CliError> {
    let (template, values) = match job {
        SlurmJob::Batch(args) => (Template::Batch, batch(args)?),
        SlurmJob::Scheduler(args) => (Template::Scheduler, scheduler(args)?),
        SlurmJob::Executors(args) => (Template::Executors, executors(args)?),
    };
    script(template, &values).map_err(CliError::Usage)
}

fn batch(args: Batch) -> Result<Values, CliError> {
    let Batch { nodes, cpus_per_task, time, threads, interface, common, work } = args;
    fits(cpus_per_task, threads)?;
    let mut values = shared(common, &time, &Defaults { name: "spool-batch", lead: 120, requeues: 10 })?;
    values.insert("NODES", Value::Plain(nodes.to_string()));
    values.insert("CPUS", Value::Plain(cpus_per_task.to_string()));
    values.insert("THREADS", Value::Word(threads.to_string()));
    values.insert("INTERFACE", Value::Word(interface.unwrap_or_default()));
    values.insert("WORK", Value::Words(work));
    Ok(values)
}

fn scheduler(args: SlurmScheduler) -> Result<Values, CliError> {
    let SlurmScheduler { folder, time, port, interface, common } = args;
    let mut values = shared(common, &time, &Defaults { name: "spool-scheduler", lead: 60, requeues: 0 })?;
    values.insert("FOLDER", folder_of(&folder)?);
    values.insert("PORT", Value::Word(port.to_string()));
    values.insert("INTERFACE", Value::Word(interface.unwrap_or_default()));
    Ok(values)
}

fn executors(args: SlurmExecutors) -> Result<Values, CliError> {
    let SlurmExecutors { folder, executors, cpus_per_task, time, threads, leave_idle, scheduler, common } = args;
    fits(cpus_per_task, threads)?;
    let mut values = shared(common, &time, &Defaults { name: "spool-executors", lead: 120, requeues: 10 })?;
    values.insert("FOLDER", folder_of(&folder)?);
    values.insert("EXECUTORS", Value::Plain(executors.to_string()));
    values.insert("CPUS", Value::Plain(cpus_per_task.to_string()));
    values.insert("THREADS", Value::Word(threads.to_string()));
    values.insert("LEAVE_IDLE", Value::Word(leave_idle.to_string()));
    values.insert("SCHEDULER", Value::Word(scheduler.unwrap_or_default()));
    Ok(values)
}

fn shared(common: Common, time: &str, defaults: &Defaults) -> Result<Values, CliError> {
    let Common { name, lead, requeues, wait, logs, partition, account, sbatch, setup, spool } = common;
    let lead = lead.unwrap_or(defaults.lead);
    let wrong = || CliError::Usage(format!("--time {time:?}: give it as sbatch has it, such as 4:00:00 or 1-12:00:00"));
    let runs = seconds(time).ok_or_else(wrong)?;
    if runs <= lead + EARLY {
        return Err(CliError::Usage(format!(
            "--time {time}: the job may run for {runs} s, and SIGTERM may come {} s before that: give it more, or less --lead",
            lead + EARLY
        )));
    }
    let spool = match spool {
        Some(spool) => spool,
        None => {
            let own = std::env::current_exe().map_err(|source| CliError::Read { path: "spool".to_owned(), source })?;
            own.to_string_lossy().into_owned()
        }
    };
    let options = [("--partition", partition), ("--account", account)];
    let options = options.into_iter().filter_map(|(option, value)| Some(format!("{option}={}", value?)));
    let sbatch: Vec<String> = options.chain(sbatch).collect();
    if let Some(line) = sbatch.iter().chain(&setup).find(|line| line.contains(['\n', '\r', '\0'])) {
        return Err(CliError::Usage(format!("{line:?} is more than one line: give each by itself")));
    }
    Ok(Values::from([
        ("NAME", Value::Plain(name.unwrap_or_else(|| defaults.name.to_owned()))),
        ("TIME", Value::Plain(time.to_owned())),
        ("LEAD", Value::Plain(lead.to_string())),
        ("REQUEUES", Value::Word(requeues.unwrap_or(defaults.requeues).to_string())),
        ("WAIT", Value::Word(wait.to_string())),
        ("LOGS", Value::Plain(logs)),
        ("SPOOL", Value::Word(spool)),
        ("SBATCH", Value::Lines(sbatch)),
        ("SETUP", Value::Lines(setup)),
    ]))
}

/// Does an encode fit at all?
fn fits(cpus: u32, threads: u32) -> Result<(), CliError> {
    if threads <= cpus {
        return Ok(());
    }
    Err(CliError::Usage(format!("an encode with {threads} threads does not fit into {cpus} CPUs: give --cpus-per-task more")))
}

/// A folder as the nodes have it.
fn folder_of(folder: &Path) -> Result<Value, CliError> {
    let place = local::absolute(&folder.to_string_lossy())?;
    if !folder.is_dir() {
        return Err(CliError::Usage(format!("there is no folder {place}: make it where all nodes see it, mkdir -m 700 {place}")));
    }
    Ok(Value::Word(place))
}

/// Becomes sbatch, which reads the script and prints the job's number: nothing is started here.
fn submit(script: &str) -> Result<(), CliError> {
    let fault = |source| CliError::Write { path: SBATCH.to_owned(), source };
    let mut file = tempfile::tempfile().map_err(fault)?;
    file.write_all(script.as_bytes()).and_then(|()| file.rewind()).map_err(fault)?;
    dup2_stdin(&file).map_err(|errno| fault(errno.into()))?;
    let [program, parsable] = [SBATCH, "--parsable"].map(|word| CString::new(word).unwrap_or_default());
    let Err(errno) = execvp(&program, &[&program, &parsable]);
    Err(match errno {
        nix::errno::Errno::ENOENT => CliError::Usage(
            "there is no sbatch here: submit from a login node of the cluster, or write the script with `spool slurm script`"
                .to_owned(),
        ),
        errno => fault(errno.into()),
    })
}
