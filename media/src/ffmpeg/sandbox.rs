//! The sandbox of programs that read untrusted files: they read their input, write their scratch folder, and
//! compute.
//!
//! The binary runs itself with [`COMMAND`], drops every right that the program does not need, and replaces
//! itself with the program. So the restrictions hold from the program's first instruction on: it dies with
//! this process, gains no privileges, opens no socket, neither starts nor reaches a process, opens and
//! changes no file but its own, and stays within its limits of memory, processor time and file size. Features
//! that the kernel lacks are left out, and [`check_sandbox`](super::check_sandbox) reports them; if the
//! kernel refuses one, the program does not start.
//!
//! Not in the child between `fork` and `exec`: that needs unsafe code, in a process with many threads.
//!
//! Source: landlock(7), seccomp(2), prctl(2), setrlimit(2), capabilities(7).

use std::{
    collections::BTreeMap,
    env,
    ffi::{CString, OsStr, OsString},
    fs::{self, File, Permissions},
    io::{self, Read},
    iter,
    net::UdpSocket,
    os::unix::{
        ffi::OsStringExt,
        fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope, path_beneath_rules,
};
use nix::{
    sys::{
        prctl,
        resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
        signal::{SigSet, Signal},
    },
    unistd::{Pid, execvp},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// First argument that makes the binary enter a sandbox and become a program.
pub const COMMAND: &str = "sandboxed";

/// Folders of libraries. Missing ones are ignored.
const LIBRARIES: [&str; 8] =
    ["/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/nix/store"];

/// Files that libraries look up, and that encoders read: the number of cores, and random numbers.
const LOOKED_UP: [&str; 9] = [
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
    "/usr/share",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
    "/proc/cpuinfo",
    "/sys/devices/system",
];

/// Newest Landlock rules that are requested: those of Linux 6.12. Older kernels enforce the rules that they
/// know.
const LANDLOCK: ABI = ABI::V6;

/// Limit of open files: an input, a dozen outputs, and the libraries while they are loaded.
const OPEN_FILES: u64 = 256;

/// Seconds between the signal at the limit of processor time and the kill.
const GRACE_S: u64 = 5;

/// `CLONE_THREAD`: with it a clone is a thread, without it a process.
const CLONE_THREAD: u64 = 0x0001_0000;

/// Rights and limits of one run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Sandbox {
    /// Process id of the parent with which the program dies.
    pub parent: i32,
    /// Whether files, sockets and processes are denied too. Not for a script, which needs them.
    pub confined: bool,
    /// Files or folders that the program may read, besides the system's libraries. Names need not be UTF-8.
    pub reads: Vec<OsString>,
    /// Folders with more libraries or executables.
    pub libraries: Vec<OsString>,
    /// Folder that the program may read and write; `None` to write nothing.
    pub writes: Option<OsString>,
    /// Address space in bytes.
    pub memory_bytes: u64,
    /// Processor time in seconds, over all threads.
    pub cpu_s: u64,
    /// Bytes of the largest file that the program may write.
    pub file_bytes: u64,
}

/// Reason why no program was started.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The caller is not Spool.
    #[error("\"{COMMAND}\" is what spool calls itself by: {0}")]
    Usage(&'static str),
    /// The parent process has ended meanwhile.
    #[error("the parent process is gone")]
    Orphan,
    /// The kernel refused a feature that every kernel has.
    #[error("cannot {what}: {source}")]
    Refused {
        /// The action.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// Entry point of the binary if its first argument is [`COMMAND`]; `args` are those after it. Returns only if
/// it did not become a program.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let first = args.next().unwrap_or_default();
    if first == CHECK {
        println!("{}", serde_json::json!(try_all()));
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", become_program(&first, args));
    ExitCode::from(FAILED)
}

/// Exit code if the program could not be started, as of shells.
pub(super) const FAILED: u8 = 126;

/// Exit code if a library of the program was not found.
pub(super) const NO_LIBRARY: u8 = 127;

/// Enters the sandbox, given as JSON, and becomes the program whose path and arguments follow. Returns only
/// if that fails.
fn become_program(sandbox: &OsStr, mut args: impl Iterator<Item = OsString>) -> Error {
    let Some(sandbox) = sandbox.to_str().and_then(|json| serde_json::from_str::<Sandbox>(json).ok()) else {
        return Error::Usage("the permissions of the program are missing");
    };
    let Some(program) = args.next() else { return Error::Usage("the program is missing") };
    let words: Result<Vec<CString>, _> =
        iter::once(program.clone()).chain(args).map(|word| CString::new(word.into_vec())).collect();
    let Ok(words) = words else { return Error::Usage("an argument holds a NUL") };
    if let Err(error) = enter(&sandbox, Path::new(&program)) {
        return error;
    }
    // Not by the standard library, which would unblock the signals.
    let Err(errno) = execvp(&words[0], &words);
    Error::Refused { what: "start the program", source: errno.into() }
}

/// This process's own binary, even if it was replaced or removed since.
pub(super) const OWN: &str = "/proc/self/exe";

/// Returns whether a program is a script. Scripts need rights that a sandbox denies.
pub fn is_script(program: &Path) -> bool {
    let mut first = [0; 2];
    File::open(program).and_then(|mut file| file.read_exact(&mut first)).is_ok_and(|()| first == *b"#!")
}

fn enter(sandbox: &Sandbox, program: &Path) -> Result<(), Error> {
    let refused = |what| move |errno: nix::Error| Error::Refused { what, source: errno.into() };
    hold_back().map_err(refused("hold signals back"))?;
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(refused("die with the parent"))?;
    // A parent that died before this call sent no signal.
    if Pid::parent().as_raw() != sandbox.parent {
        return Err(Error::Orphan);
    }
    prctl::set_no_new_privs().map_err(refused("renounce privileges"))?;
    limit(sandbox).map_err(refused("set limits"))?;
    if sandbox.confined {
        drop_capabilities();
        let refused = |what| move |source| Error::Refused { what, source };
        confine_files(sandbox, program)
            .map_err(|error| io::Error::other(error.to_string()))
            .map_err(refused("confine files"))?;
        confine_calls().map_err(refused("confine calls"))?;
    }
    Ok(())
}

/// Blocks the signals that ask a process to end. Batch systems and service managers send them to each process
/// of a job, but Spool decides when a program ends: it finishes the running rows or kills them, and they die
/// with it.
fn hold_back() -> nix::Result<()> {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).thread_block()
}

/// Sets the resource limits. A lower limit that exists stays.
fn limit(sandbox: &Sandbox) -> nix::Result<()> {
    let limits = [
        (Resource::RLIMIT_CORE, 0, 0),
        (Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
        (Resource::RLIMIT_AS, sandbox.memory_bytes, sandbox.memory_bytes),
        (Resource::RLIMIT_CPU, sandbox.cpu_s, sandbox.cpu_s.saturating_add(GRACE_S)),
        (Resource::RLIMIT_FSIZE, sandbox.file_bytes, sandbox.file_bytes),
    ];
    for (resource, soft, hard) in limits {
        let (soft_now, hard_now) = getrlimit(resource)?;
        setrlimit(resource, soft.min(soft_now), hard.min(hard_now))?;
    }
    Ok(())
}

/// Drops all capabilities but `CAP_DAC_READ_SEARCH`: a source may belong to another user.
fn drop_capabilities() {
    use caps::{CapSet, Capability};
    for capability in caps::all() {
        if capability != Capability::CAP_DAC_READ_SEARCH {
            // Refused if there are none to begin with.
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    let _ = caps::clear(None, CapSet::Ambient);
    let _ = caps::clear(None, CapSet::Inheritable);
}

/// Allows the program to open its libraries, its input and the files in its folder. There it can create
/// regular files and folders only: this process would open a link or a pipe that it created.
fn confine_files(sandbox: &Sandbox, program: &Path) -> Result<(), landlock::RulesetError> {
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
        | AccessFs::MakeDir
        | AccessFs::RemoveDir;
    let program = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    // Programs installed beside the system have their libraries beside them.
    let beside =
        program.parent().filter(|folder| folder.ends_with("bin")).map(|folder| folder.join("../lib"));
    let libraries = LIBRARIES.iter().map(PathBuf::from).chain(sandbox.libraries.iter().map(PathBuf::from));
    Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rules(path_beneath_rules(libraries.chain([program]).chain(beside), reading | AccessFs::Execute))?
        .add_rules(path_beneath_rules(LOOKED_UP, reading))?
        .add_rules(path_beneath_rules(["/dev/null"], AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(&sandbox.reads, reading))?
        .add_rules(path_beneath_rules(&sandbox.writes, reading | writing))?
        // A kernel without Landlock enforces nothing.
        .restrict_self()?;
    Ok(())
}

/// Opens a file that a program wrote. Refuses symbolic links, and everything but regular files.
pub(crate) fn open_written(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Denies the system calls that reach other hosts, other processes or the kernel's more obscure parts.
fn confine_calls() -> io::Result<()> {
    let other = |error: seccompiler::BackendError| io::Error::other(error.to_string());
    // A processor without support in the filter compiler.
    let Ok(arch) = TargetArch::try_from(env::consts::ARCH) else { return Ok(()) };
    let argument = |argument, operator, value| -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        Ok(vec![SeccompRule::new(vec![SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            operator,
            value,
        )?])?])
    };
    let mut forbidden: BTreeMap<i64, Vec<SeccompRule>> =
        FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    // Processes, but not threads.
    forbidden.insert(libc::SYS_clone, argument(0, SeccompCmpOp::MaskedEq(CLONE_THREAD), 0).map_err(other)?);
    // Other processes, but not itself: the program keeps this process id.
    forbidden
        .insert(libc::SYS_tgkill, argument(0, SeccompCmpOp::Ne, std::process::id().into()).map_err(other)?);
    forbidden.insert(libc::SYS_prlimit64, argument(0, SeccompCmpOp::Ne, 0).map_err(other)?);
    // `clone3` takes its flags by pointer, where no filter sees them. Libraries use the older call if it is
    // missing.
    let mut unseen = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    if cfg!(target_arch = "x86_64") {
        // The same calls by their x32 numbers, and the calls that only x32 has.
        for rules in [&mut forbidden, &mut unseen] {
            let more: Vec<_> = rules.iter().map(|(call, rules)| (call | X32, rules.clone())).collect();
            rules.extend(more);
        }
        forbidden.extend(X32_OWN.map(|call| (call | X32, Vec::new())));
    }
    for (rules, errno) in [(forbidden, libc::EPERM), (unseen, libc::ENOSYS)] {
        let filter =
            SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()), arch)
                .map_err(other)?;
        let program: BpfProgram = filter.try_into().map_err(other)?;
        match seccompiler::apply_filter(&program) {
            Ok(()) => {}
            // A kernel without seccomp filters.
            Err(seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error))
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {}
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
    }
    Ok(())
}

/// Bit that is set in the numbers of x32 calls.
const X32: i64 = 0x4000_0000;

/// Numbers of the x32 calls whose arguments differ.
const X32_OWN: std::ops::RangeInclusive<i64> = 512..=547;

/// Calls that no decoder or encoder needs.
const FORBIDDEN: &[i64] = &[
    // Sockets, and the ways around them.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Other processes.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // Attributes of files that Landlock does not cover: owners, permissions and times.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
    libc::SYS_utimensat,
    libc::SYS_inotify_init1,
    libc::SYS_fanotify_init,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // Namespaces, mounts, keys and the kernel itself.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    FCHMODAT2,
    SETXATTRAT,
    REMOVEXATTRAT,
];

/// Newer calls, whose numbers are the same on all processors.
const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;

/// Argument with which [`main`] runs the self-test instead of a program.
pub(super) const CHECK: &str = "check";

/// Tries, inside a sandbox, the actions that it should deny. Returns the name of each, and whether it was
/// denied.
fn try_all() -> Vec<(&'static str, bool)> {
    #[expect(clippy::disallowed_methods, reason = "it is seen to fail")]
    let mut child = Command::new(OWN);
    let own = Path::new("check");
    let limited = |resource| getrlimit(resource).is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    let usable = fs::write(own, "").is_ok();
    let may_change = fs::set_permissions(own, Permissions::from_mode(0o600));
    vec![
        ("other files cannot be read (Landlock)", is_denied(fs::read_dir("/"))),
        (
            "nothing is written elsewhere (Landlock)",
            is_denied(File::options().write(true).open("/proc/self/comm")),
        ),
        ("no sockets (seccomp)", is_denied(UdpSocket::bind("127.0.0.1:0"))),
        ("no processes (seccomp)", is_denied(child.spawn())),
        ("owners and permissions stay (seccomp)", is_denied(may_change)),
        ("memory, processor time and file sizes are limited", LIMITED.into_iter().all(limited)),
        ("its own folder can be used", usable && fs::remove_file(own).is_ok()),
    ]
}

fn is_denied<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Limits that only the sandbox sets.
const LIMITED: [Resource; 3] = [Resource::RLIMIT_AS, Resource::RLIMIT_CPU, Resource::RLIMIT_FSIZE];
