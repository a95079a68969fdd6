//! `spool slurm`: writes Slurm job scripts, and submits them.

use std::{
    ffi::CString,
    fs::{self, DirBuilder},
    io::{ErrorKind, Seek, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use nix::unistd::{dup2_stdin, execvp};

use crate::{
    args::{SlurmBatchArgs, SlurmCommand, SlurmExecutorsArgs, SlurmJob, SlurmJobArgs, SlurmSchedulerArgs},
    error::CliError,
    output, paths,
    slurm_script::{Context, Template, Value, Values, parse_time_limit, render, shell_quoted, validate},
};

/// Program that submits jobs.
const SBATCH: &str = "sbatch";

/// Seconds by which Slurm may send SIGTERM too early.
const SIGNAL_EARLY_MAX: u64 = 60;

/// Seconds to a multiple of which Slurm rounds time limits up.
const TIME_LIMIT_STEP: u64 = 60;

/// Most seconds between SIGTERM and the time limit; more is a mistake.
const LEAD_MAX: u64 = 3600;

pub fn run(command: SlurmCommand) -> Result<(), CliError> {
    match command {
        SlurmCommand::Script(job) => {
            let (template, values) = template_of(job)?;
            output::print(render(template, &values).map_err(CliError::Usage)?.trim_end())
        }
        SlurmCommand::Submit(job) => {
            let (template, values) = template_of(job)?;
            let script = render(template, &values).map_err(CliError::Usage)?;
            create_folders(&values)?;
            submit(&script)
        }
    }
}

/// Defaults of one kind of job.
struct Defaults {
    name: &'static str,
    lead: u64,
    /// Time that the processes need to end one after the other, including ten seconds for rows.
    lead_min: u64,
    requeues: u32,
}

/// Returns the template of a job, and its values.
fn template_of(job: SlurmJob) -> Result<(Template, Values), CliError> {
    Ok(match job {
        SlurmJob::Batch(args) => (Template::Batch, batch(args)?),
        SlurmJob::Scheduler(args) => (Template::Scheduler, scheduler(args)?),
        SlurmJob::Executors(args) => (Template::Executors, executors(args)?),
    })
}

fn batch(args: SlurmBatchArgs) -> Result<Values, CliError> {
    let SlurmBatchArgs { nodes, cpus_per_task, time, threads, interface, job, work } = args;
    check_threads(cpus_per_task, threads)?;
    let mut values =
        job_values(job, &time, &Defaults { name: "spool-batch", lead: 120, lead_min: 40, requeues: 10 })?;
    values.insert("NODES", Value::Text(nodes.to_string()));
    values.insert("CPUS", Value::Text(cpus_per_task.to_string()));
    values.insert("THREADS", Value::Word(threads.to_string()));
    values.insert("INTERFACE", Value::Word(interface.unwrap_or_default()));
    values.insert("WORK", Value::Words(work));
    Ok(values)
}

fn scheduler(args: SlurmSchedulerArgs) -> Result<Values, CliError> {
    let SlurmSchedulerArgs { folder, time, port, interface, job } = args;
    let mut values =
        job_values(job, &time, &Defaults { name: "spool-scheduler", lead: 60, lead_min: 20, requeues: 0 })?;
    values.insert("FOLDER", shared_folder(&folder)?);
    values.insert("PORT", Value::Word(port.to_string()));
    values.insert("INTERFACE", Value::Word(interface.unwrap_or_default()));
    Ok(values)
}

fn executors(args: SlurmExecutorsArgs) -> Result<Values, CliError> {
    let SlurmExecutorsArgs { folder, executors, cpus_per_task, time, threads, idle_timeout, scheduler, job } =
        args;
    check_threads(cpus_per_task, threads)?;
    let mut values =
        job_values(job, &time, &Defaults { name: "spool-executors", lead: 120, lead_min: 20, requeues: 10 })?;
    values.insert("FOLDER", shared_folder(&folder)?);
    values.insert("EXECUTORS", Value::Text(executors.to_string()));
    values.insert("CPUS", Value::Text(cpus_per_task.to_string()));
    values.insert("THREADS", Value::Word(threads.to_string()));
    values.insert("IDLE_TIMEOUT", Value::Word(idle_timeout.to_string()));
    values.insert("SCHEDULER", Value::Word(scheduler.unwrap_or_default()));
    Ok(values)
}

/// Returns the values that all kinds of jobs have.
fn job_values(args: SlurmJobArgs, time: &str, defaults: &Defaults) -> Result<Values, CliError> {
    let SlurmJobArgs {
        name,
        lead,
        requeues,
        wait,
        logs,
        partition,
        account,
        qos,
        constraint,
        mem_per_cpu,
        sbatch,
        setup,
        spool,
    } = args;
    let lead = lead.unwrap_or(defaults.lead);
    let lead_min = defaults.lead_min;
    if !(lead_min..=LEAD_MAX).contains(&lead) {
        return Err(CliError::Usage(format!(
            "--lead {lead}: the processes of this job need {lead_min} s to end: give {lead_min} to {LEAD_MAX}"
        )));
    }
    check_time_limit(time, lead)?;
    let name = name.unwrap_or_else(|| defaults.name.to_owned());
    validate("--name", &name, Context::Name).map_err(CliError::Usage)?;
    let logs = path_on_nodes("--logs", &logs)?;
    validate("--logs", &logs, Context::Path).map_err(CliError::Usage)?;
    let options = [
        ("--partition", partition),
        ("--account", account),
        ("--qos", qos),
        ("--constraint", constraint),
        ("--mem-per-cpu", mem_per_cpu),
    ];
    let mut lines = Vec::new();
    for (option, value) in options {
        let Some(value) = value else { continue };
        validate(option, &value, Context::Bare).map_err(CliError::Usage)?;
        lines.push(format!("{option}={value}"));
    }
    for line in sbatch {
        validate("--sbatch", &line, Context::Line).map_err(CliError::Usage)?;
        lines.push(line);
    }
    for line in &setup {
        validate("--setup", line, Context::Bash).map_err(CliError::Usage)?;
    }
    Ok(Values::from([
        ("NAME", Value::Text(name)),
        ("TIME", Value::Text(time.to_owned())),
        ("LEAD", Value::Text(lead.to_string())),
        ("REQUEUES", Value::Word(requeues.unwrap_or(defaults.requeues).to_string())),
        ("WAIT", Value::Word(wait.to_string())),
        ("LOGS", Value::Text(logs)),
        ("SPOOL", Value::Word(program(spool)?)),
        ("SBATCH", Value::Lines(lines)),
        ("SETUP", Value::Lines(setup)),
    ]))
}

/// Checks that the job runs for some time before SIGTERM.
fn check_time_limit(time: &str, lead: u64) -> Result<(), CliError> {
    let wrong = || {
        CliError::Usage(format!(
            "--time {time:?} is not a time limit of sbatch: give one such as 4:00:00 or 1-12:00:00"
        ))
    };
    let runs =
        parse_time_limit(time).ok_or_else(wrong)?.div_ceil(TIME_LIMIT_STEP).saturating_mul(TIME_LIMIT_STEP);
    if runs > lead + SIGNAL_EARLY_MAX {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "--time {time}: Slurm lets the job run for {runs} s, and SIGTERM may come {} s before that: increase --time, or decrease --lead",
        lead + SIGNAL_EARLY_MAX
    )))
}

/// Returns the program's path or name on the nodes.
fn program(spool: Option<String>) -> Result<String, CliError> {
    match spool {
        // A module may put it into PATH.
        Some(name) if !name.is_empty() && !name.contains('/') => Ok(name),
        Some(path) => path_on_nodes("--spool", &path),
        None => {
            let own = std::env::current_exe()
                .map_err(|source| CliError::Read { path: "spool".to_owned(), source })?;
            Ok(own.to_string_lossy().into_owned())
        }
    }
}

/// Returns a path as the nodes open it. The file need not exist yet.
fn path_on_nodes(flag: &str, path: &str) -> Result<String, CliError> {
    validate(flag, path, Context::Word).map_err(CliError::Usage)?;
    let place = paths::absolute(path)?;
    // Shells do not expand a ~ after =.
    if !place.starts_with('/') || path.starts_with("~/") {
        return Err(CliError::Usage(format!(
            "{flag} {path}: give a path in a file system that all nodes see, such as /scratch/spool"
        )));
    }
    Ok(place)
}

/// Checks that an encode with these threads fits into the CPUs of a node.
fn check_threads(cpus: u32, threads: u32) -> Result<(), CliError> {
    if threads <= cpus {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "an encode with {threads} threads does not fit into {cpus} CPUs: increase --cpus-per-task"
    )))
}

/// Returns the folder through which the jobs of a cluster find each other. It may be missing when a script is
/// written.
fn shared_folder(folder: &Path) -> Result<Value, CliError> {
    let Some(path) = folder.to_str() else {
        return Err(CliError::Usage(format!(
            "--folder {} is not UTF-8: give another folder",
            folder.display()
        )));
    };
    Ok(Value::Word(path_on_nodes("--folder", path)?))
}

/// Creates the missing folders of a job. Slurm silently drops the output of a job whose log has no folder.
fn create_folders(values: &Values) -> Result<(), CliError> {
    if let Some(Value::Word(folder)) = values.get("FOLDER") {
        create_private(folder)?;
    }
    if let Some(Value::Text(logs)) = values.get("LOGS") {
        fs::create_dir_all(logs).map_err(|source| CliError::Write { path: logs.clone(), source })?;
    }
    Ok(())
}

/// Creates a folder for a token. An existing folder must be closed to other users, too.
fn create_private(folder: &str) -> Result<(), CliError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        // Parents are not created: a missing parent is usually a misspelled name.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(CliError::Usage(format!(
                "--folder {folder}: its parent folder is missing: create it where all nodes see it, or name another folder"
            )));
        }
        Err(source) => return Err(CliError::Write { path: folder.to_owned(), source }),
    }
    let found = fs::metadata(folder).map_err(|source| CliError::Read { path: folder.to_owned(), source })?;
    if !found.is_dir() {
        return Err(CliError::Usage(format!("--folder {folder} is a file: name a folder")));
    }
    if found.permissions().mode() & 0o066 != 0 {
        return Err(CliError::Usage(format!(
            "other users may read or write --folder {folder}, which holds the token: chmod 700 {}",
            shell_quoted(folder)
        )));
    }
    Ok(())
}

/// Replaces this process by sbatch, which reads the script and prints the job's number or an error. No
/// process is started.
fn submit(script: &str) -> Result<(), CliError> {
    let failed = |source| CliError::Write { path: SBATCH.to_owned(), source };
    let mut file = tempfile::tempfile().map_err(failed)?;
    file.write_all(script.as_bytes()).and_then(|()| file.rewind()).map_err(failed)?;
    dup2_stdin(&file).map_err(|errno| failed(errno.into()))?;
    let [program, parsable] = [SBATCH, "--parsable"].map(|word| CString::new(word).unwrap_or_default());
    let Err(errno) = execvp(&program, &[&program, &parsable]);
    Err(match errno {
        nix::errno::Errno::ENOENT => CliError::Usage(
            "sbatch not found: submit from a login node of the cluster, or write the script with `spool slurm script`"
                .to_owned(),
        ),
        errno => failed(errno.into()),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        slurm: SlurmCommand,
    }

    /// Returns the script that `slurm script …` prints, or its error.
    fn written(words: &[&str]) -> Result<String, String> {
        let words = ["slurm", "script"].iter().chain(words);
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let SlurmCommand::Script(job) = line.slurm else { unreachable!("parsed from slurm script") };
        let (template, values) = template_of(job).map_err(|error| error.to_string())?;
        render(template, &values)
    }

    #[test]
    fn flags_become_sbatch_lines_with_absolute_paths() {
        let script = written(&[
            "executors",
            "--folder",
            "none here",
            "--logs",
            "some logs",
            "--spool",
            "bin/spool",
            "--qos",
            "high",
            "--constraint",
            "rome|milan",
            "--mem-per-cpu",
            "2G",
            "--partition",
            "long",
            "--sbatch",
            "--hint=nomultithread",
        ])
        .unwrap();
        let here = std::env::current_dir().unwrap();
        let here = here.to_str().unwrap();
        let lines = "--partition=long\n#SBATCH --qos=high\n#SBATCH --constraint=rome|milan\n#SBATCH --mem-per-cpu=2G\n\
                     #SBATCH --hint=nomultithread\n";
        assert!(script.contains(lines), "{script}");
        assert!(
            script.contains(&format!("#SBATCH --output=\"{here}/some logs/%x-%A_%a.log\"\n")),
            "{script}"
        );
        assert!(
            script.contains(&format!("\nfolder={}\n", shell_quoted(&format!("{here}/none here")))),
            "{script}"
        );
        assert!(
            script.contains(&format!("\nspool={}\n", shell_quoted(&format!("{here}/bin/spool")))),
            "{script}"
        );
        // A module puts it into PATH.
        assert!(
            written(&["scheduler", "--folder", "/f", "--spool", "spool"])
                .unwrap()
                .contains("\nspool=spool\n")
        );
    }

    #[test]
    fn impossible_jobs_are_refused_before_submission() {
        let batch = |words: &[&str]| written(&[&["batch"][..], words, &["--", "sql"]].concat());
        let scheduler = |words: &[&str]| written(&[&["scheduler", "--folder", "/f"], words].concat());
        assert!(batch(&["--lead", "40"]).is_ok() && scheduler(&["--lead", "20"]).is_ok());
        // Slurm rounds it up to three minutes.
        assert!(batch(&["--time", "2:30", "--lead", "100"]).is_ok());
        for (refused, parts) in [
            (batch(&["--lead", "39"]), ["--lead 39", "give 40 to 3600"]),
            (scheduler(&["--lead", "19"]), ["--lead 19", "give 20 to 3600"]),
            (batch(&["--lead", "3601"]), ["--lead 3601", "give 40 to 3600"]),
            (batch(&["--time", "2:00", "--lead", "60"]), ["run for 120 s", "SIGTERM may come 120 s before"]),
            (batch(&["--mem-per-cpu", "1.5G"]), ["--mem-per-cpu", "such as 1500M"]),
            (batch(&["--mem-per-cpu", "G"]), ["--mem-per-cpu", "such as 1500M"]),
            (batch(&["--logs", "50%"]), ["--logs", "'%'"]),
            (batch(&["--logs", "s3://logs"]), ["--logs s3://logs", "all nodes see"]),
            (batch(&["--logs=~/logs"]), ["--logs ~/logs", "such as /scratch/spool"]),
            (batch(&["--name", "a/b"]), ["--name", "'/'"]),
            (batch(&["--qos", "very high"]), ["--qos", "' '"]),
            (batch(&["--sbatch", "a\nb"]), ["--sbatch", "more than one line"]),
            (batch(&["--spool", ""]), ["--spool", "empty"]),
            (written(&["scheduler", "--folder", "a\nb"]), ["--folder", "more than one line"]),
        ] {
            let refused = refused.unwrap_err();
            assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
        }
    }

    #[test]
    fn folders_are_created_and_open_token_folders_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        let (folder, logs) = (path("shared folder"), path("logs/of today"));
        let values =
            Values::from([("FOLDER", Value::Word(folder.clone())), ("LOGS", Value::Text(logs.clone()))]);
        for _ in 0..2 {
            create_folders(&values).unwrap();
        }
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o077, 0);
        assert!(Path::new(&logs).is_dir());
        for mode in [0o750, 0o720, 0o704, 0o702] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            let refused = create_private(&folder).unwrap_err().to_string();
            assert!(refused.ends_with(&format!("chmod 700 '{folder}'")), "{mode:o}: {refused}");
        }
        fs::write(path("file"), "").unwrap();
        assert!(create_private(&path("file")).unwrap_err().to_string().contains("is a file"));
        assert!(
            create_private(&path("none/folder"))
                .unwrap_err()
                .to_string()
                .contains("parent folder is missing")
        );
    }
}
