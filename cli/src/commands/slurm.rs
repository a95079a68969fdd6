//! `spool slurm`: writes jobs for Slurm, and submits them.

use std::{
    ffi::CString,
    fs::{self, DirBuilder},
    io::{ErrorKind, Seek, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use nix::unistd::{dup2_stdin, execvp};

use crate::{
    args::{Batch, Common, Slurm, SlurmExecutors, SlurmJob, SlurmScheduler},
    exit::CliError,
    local, output,
    slurm::{Place, Template, Value, Values, check, quoted, script, seconds},
};

/// The program that takes jobs.
const SBATCH: &str = "sbatch";

/// SIGTERM may come so many seconds early.
const EARLY: u64 = 60;

/// Slurm rounds time limits up to so many seconds.
const MINUTE: u64 = 60;

/// More seconds before the limit than this are a mistake.
const MOST_LEAD: u64 = 3600;

pub fn run(command: Slurm) -> Result<(), CliError> {
    match command {
        Slurm::Script(job) => {
            let (template, values) = filled(job)?;
            output::print(script(template, &values).map_err(CliError::Usage)?.trim_end())
        }
        Slurm::Submit(job) => {
            let (template, values) = filled(job)?;
            let script = script(template, &values).map_err(CliError::Usage)?;
            make_folders(&values)?;
            submit(&script)
        }
    }
}

/// What differs between the kinds of jobs, where nobody says otherwise.
struct Defaults {
    name: &'static str,
    lead: u64,
    /// What its processes need to end one after the other, and rows ten seconds of it.
    least_lead: u64,
    requeues: u32,
}

fn filled(job: SlurmJob) -> Result<(Template, Values), CliError> {
    Ok(match job {
        SlurmJob::Batch(args) => (Template::Batch, batch(args)?),
        SlurmJob::Scheduler(args) => (Template::Scheduler, scheduler(args)?),
        SlurmJob::Executors(args) => (Template::Executors, executors(args)?),
    })
}

fn batch(args: Batch) -> Result<Values, CliError> {
    let Batch { nodes, cpus_per_task, time, threads, interface, common, work } = args;
    fits(cpus_per_task, threads)?;
    let mut values =
        shared(common, &time, &Defaults { name: "spool-batch", lead: 120, least_lead: 40, requeues: 10 })?;
    values.insert("NODES", Value::Plain(nodes.to_string()));
    values.insert("CPUS", Value::Plain(cpus_per_task.to_string()));
    values.insert("THREADS", Value::Word(threads.to_string()));
    values.insert("INTERFACE", Value::Word(interface.unwrap_or_default()));
    values.insert("WORK", Value::Words(work));
    Ok(values)
}

fn scheduler(args: SlurmScheduler) -> Result<Values, CliError> {
    let SlurmScheduler { folder, time, port, interface, common } = args;
    let mut values =
        shared(common, &time, &Defaults { name: "spool-scheduler", lead: 60, least_lead: 20, requeues: 0 })?;
    values.insert("FOLDER", folder_of(&folder)?);
    values.insert("PORT", Value::Word(port.to_string()));
    values.insert("INTERFACE", Value::Word(interface.unwrap_or_default()));
    Ok(values)
}

fn executors(args: SlurmExecutors) -> Result<Values, CliError> {
    let SlurmExecutors { folder, executors, cpus_per_task, time, threads, leave_idle, scheduler, common } =
        args;
    fits(cpus_per_task, threads)?;
    let mut values = shared(
        common,
        &time,
        &Defaults { name: "spool-executors", lead: 120, least_lead: 20, requeues: 10 },
    )?;
    values.insert("FOLDER", folder_of(&folder)?);
    values.insert("EXECUTORS", Value::Plain(executors.to_string()));
    values.insert("CPUS", Value::Plain(cpus_per_task.to_string()));
    values.insert("THREADS", Value::Word(threads.to_string()));
    values.insert("IDLE_TIMEOUT", Value::Word(leave_idle.to_string()));
    values.insert("SCHEDULER", Value::Word(scheduler.unwrap_or_default()));
    Ok(values)
}

fn shared(common: Common, time: &str, defaults: &Defaults) -> Result<Values, CliError> {
    let Common {
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
    } = common;
    let lead = lead.unwrap_or(defaults.lead);
    let least = defaults.least_lead;
    if !(least..=MOST_LEAD).contains(&lead) {
        return Err(CliError::Usage(format!(
            "--lead {lead}: what runs here needs {least} s to end in: give it {least} to {MOST_LEAD}"
        )));
    }
    runs_long_enough(time, lead)?;
    let name = name.unwrap_or_else(|| defaults.name.to_owned());
    check("--name", &name, Place::Name).map_err(CliError::Usage)?;
    let logs = path_of("--logs", &logs)?;
    check("--logs", &logs, Place::Path).map_err(CliError::Usage)?;
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
        check(option, &value, Place::Bare).map_err(CliError::Usage)?;
        lines.push(format!("{option}={value}"));
    }
    for line in sbatch {
        check("--sbatch", &line, Place::Line).map_err(CliError::Usage)?;
        lines.push(line);
    }
    for line in &setup {
        check("--setup", line, Place::Bash).map_err(CliError::Usage)?;
    }
    Ok(Values::from([
        ("NAME", Value::Plain(name)),
        ("TIME", Value::Plain(time.to_owned())),
        ("LEAD", Value::Plain(lead.to_string())),
        ("REQUEUES", Value::Word(requeues.unwrap_or(defaults.requeues).to_string())),
        ("WAIT", Value::Word(wait.to_string())),
        ("LOGS", Value::Plain(logs)),
        ("SPOOL", Value::Word(program(spool)?)),
        ("SBATCH", Value::Lines(lines)),
        ("SETUP", Value::Lines(setup)),
    ]))
}

/// Is anything left of the time limit before SIGTERM?
fn runs_long_enough(time: &str, lead: u64) -> Result<(), CliError> {
    let wrong = || {
        CliError::Usage(format!("--time {time:?}: give it as sbatch has it, such as 4:00:00 or 1-12:00:00"))
    };
    let runs = seconds(time).ok_or_else(wrong)?.div_ceil(MINUTE).saturating_mul(MINUTE);
    if runs > lead + EARLY {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "--time {time}: Slurm lets the job run for {runs} s, and SIGTERM may come {} s before that: give it more, or less --lead",
        lead + EARLY
    )))
}

/// The program as the nodes have it.
fn program(spool: Option<String>) -> Result<String, CliError> {
    match spool {
        // A module may bring it.
        Some(name) if !name.is_empty() && !name.contains('/') => Ok(name),
        Some(path) => path_of("--spool", &path),
        None => {
            let own = std::env::current_exe()
                .map_err(|source| CliError::Read { path: "spool".to_owned(), source })?;
            Ok(own.to_string_lossy().into_owned())
        }
    }
}

/// A path as the nodes have it; whether something is there is another question.
fn path_of(flag: &str, path: &str) -> Result<String, CliError> {
    check(flag, path, Place::Word).map_err(CliError::Usage)?;
    let place = local::absolute(path)?;
    // Shells leave a ~ after = as it is.
    if !place.starts_with('/') || path.starts_with("~/") {
        return Err(CliError::Usage(format!(
            "{flag} {path}: give a path in a file system that all nodes see, such as /scratch/spool"
        )));
    }
    Ok(place)
}

/// Does an encode fit at all?
fn fits(cpus: u32, threads: u32) -> Result<(), CliError> {
    if threads <= cpus {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "an encode with {threads} threads does not fit into {cpus} CPUs: give --cpus-per-task more"
    )))
}

/// The folder that a cluster is known by. A script may be written before it is there, or for another machine.
fn folder_of(folder: &Path) -> Result<Value, CliError> {
    let Some(path) = folder.to_str() else {
        return Err(CliError::Usage(format!(
            "--folder {}: its name is not UTF-8: give another one",
            folder.display()
        )));
    };
    Ok(Value::Word(path_of("--folder", path)?))
}

/// Makes the folders of a job where they are missing. Slurm drops the output of a job whose log has no folder, and says nothing.
fn make_folders(values: &Values) -> Result<(), CliError> {
    if let Some(Value::Word(folder)) = values.get("FOLDER") {
        make_private(folder)?;
    }
    if let Some(Value::Plain(logs)) = values.get("LOGS") {
        fs::create_dir_all(logs).map_err(|source| CliError::Write { path: logs.clone(), source })?;
    }
    Ok(())
}

/// Makes a folder for a token. One that is there already has to keep others out, too.
fn make_private(folder: &str) -> Result<(), CliError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        // Not made with all above it: that is most often another name for a folder that is there.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(CliError::Usage(format!(
                "--folder {folder}: the folder above it is missing: make that where all nodes see it, or name another one"
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
            "others may read --folder {folder} or write into it, and the token is kept there: chmod 700 {}",
            quoted(folder)
        )));
    }
    Ok(())
}

/// Becomes sbatch, which reads the script and prints the job's number, or what is wrong: nothing is started here.
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        slurm: Slurm,
    }

    /// The script of `slurm script …`, or why there is none.
    fn written(words: &[&str]) -> Result<String, String> {
        let words = ["slurm", "script"].iter().chain(words);
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let Slurm::Script(job) = line.slurm else { unreachable!("the words say so") };
        let (template, values) = filled(job).map_err(|error| error.to_string())?;
        script(template, &values)
    }

    #[test]
    fn flags_become_lines_of_sbatch_and_paths_those_of_the_nodes() {
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
        assert!(script.contains(&format!("\nfolder={}\n", quoted(&format!("{here}/none here")))), "{script}");
        assert!(script.contains(&format!("\nspool={}\n", quoted(&format!("{here}/bin/spool")))), "{script}");
        // As a module has it.
        assert!(
            written(&["scheduler", "--folder", "/f", "--spool", "spool"])
                .unwrap()
                .contains("\nspool=spool\n")
        );
    }

    #[test]
    fn what_cannot_work_is_refused_before_slurm_sees_it() {
        let batch = |words: &[&str]| written(&[&["batch"][..], words, &["--", "sql"]].concat());
        let scheduler = |words: &[&str]| written(&[&["scheduler", "--folder", "/f"], words].concat());
        assert!(batch(&["--lead", "40"]).is_ok() && scheduler(&["--lead", "20"]).is_ok());
        // Slurm makes three minutes of it.
        assert!(batch(&["--time", "2:30", "--lead", "100"]).is_ok());
        for (refused, parts) in [
            (batch(&["--lead", "39"]), ["--lead 39", "give it 40 to 3600"]),
            (scheduler(&["--lead", "19"]), ["--lead 19", "give it 20 to 3600"]),
            (batch(&["--lead", "3601"]), ["--lead 3601", "give it 40 to 3600"]),
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
    fn folders_are_made_and_those_with_a_token_keep_others_out() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        let (folder, logs) = (path("shared folder"), path("logs/of today"));
        let values =
            Values::from([("FOLDER", Value::Word(folder.clone())), ("LOGS", Value::Plain(logs.clone()))]);
        for _ in 0..2 {
            make_folders(&values).unwrap();
        }
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o077, 0);
        assert!(Path::new(&logs).is_dir());
        for mode in [0o750, 0o720, 0o704, 0o702] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            let refused = make_private(&folder).unwrap_err().to_string();
            assert!(refused.ends_with(&format!("chmod 700 '{folder}'")), "{mode:o}: {refused}");
        }
        fs::write(path("file"), "").unwrap();
        assert!(make_private(&path("file")).unwrap_err().to_string().contains("is a file"));
        assert!(make_private(&path("none/folder")).unwrap_err().to_string().contains("above it is missing"));
    }
}
