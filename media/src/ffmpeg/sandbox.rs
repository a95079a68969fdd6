//! The sandbox of programs that read untrusted files: they read their input, write their scratch folder, and
//! compute.
//!
//! The binary calls itself under the name of [`COMMAND`], takes from itself all that the program does not
//! need, and becomes the program. So everything holds from its first instruction on: it dies with us, gains
//! no privileges, opens no socket, starts no process and reaches none, opens and changes no file but its own,
//! and takes no more memory and processor time, and makes no larger file, than it was given. What the kernel
//! lacks is left out, and [`check_sandbox`](super::check_sandbox) reports it; what the kernel refuses keeps
//! the program from starting.
//!
//! Why not in the child between `fork` and `exec`: that takes unsafe code, in a process with many threads.
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

/// The first argument that makes the binary a program in a sandbox.
pub const COMMAND: &str = "sandboxed";

/// Folders of libraries. Missing ones are ignored.
const LIBRARIES: [&str; 8] =
    ["/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/nix/store"];

/// What libraries look up, and what encoders ask the system for: how many cores there are, and random
/// numbers.
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

/// The newest rules of Landlock that are asked for: those of Linux 6.12. Older kernels keep to what they know
/// of them.
const LANDLOCK: ABI = ABI::V6;

/// Open files: an input, a dozen outputs, and the libraries while they are loaded.
const OPEN_FILES: u64 = 256;

/// Seconds between the signal at the limit of processor time and the kill.
const GRACE_S: u64 = 5;

/// `CLONE_THREAD`: with it the clone is a thread, and without it a process.
const CLONE_THREAD: u64 = 0x0001_0000;

/// What one run may have.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Sandbox {
    /// The process that it is to die with.
    pub parent: i32,
    /// Is it kept from files, sockets and processes too? Not where the program is a script, which needs them.
    pub confined: bool,
    /// Files or folders that it may read, besides the system's libraries. Names need not be UTF-8.
    pub reads: Vec<OsString>,
    /// Folders with more libraries, or programs to become.
    pub libraries: Vec<OsString>,
    /// The folder that it may write in, and read; without one it writes nothing.
    pub writes: Option<OsString>,
    /// Address space in bytes.
    pub memory_bytes: u64,
    /// Processor time in seconds, of all its threads.
    pub cpu_s: u64,
    /// Bytes of the largest file that it may write.
    pub file_bytes: u64,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The caller is not Spool.
    #[error("\"{COMMAND}\" is what spool calls itself by: {0}")]
    Usage(&'static str),
    /// The parent has ended meanwhile.
    #[error("the parent process is gone")]
    Orphan,
    /// Something that every kernel has was refused.
    #[error("cannot {what}: {source}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// What the binary does whose first argument is [`COMMAND`], with those after it. Returns where it did not
/// become a program.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let first = args.next().unwrap_or_default();
    if first == CHECK {
        println!("{}", serde_json::json!(try_all()));
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", become_program(&first, args));
    ExitCode::from(FAILED)
}

/// The exit code where there was no program to become: as of shells.
pub(super) const FAILED: u8 = 126;

/// The exit code where a library of the program was not found.
pub(super) const NO_LIBRARY: u8 = 127;

/// Becomes a program: of what it may do, as JSON, its path, and its arguments. Returns only where that fails.
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
    // Not by the standard library, which would let through again the signals that are held back.
    let Err(errno) = execvp(&words[0], &words);
    Error::Refused { what: "start the program", source: errno.into() }
}

/// This process's own binary, even where it was replaced or removed since.
pub(super) const OWN: &str = "/proc/self/exe";

/// Is a program a script? These need what a sandbox takes.
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

/// Holds back what asks to end. Batch systems and service managers tell each process of a job that it is to
/// end, and it is ours to say when a program does: Spool finishes the running rows or kills them, and they
/// die with it.
fn hold_back() -> nix::Result<()> {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).thread_block()
}

/// Sets limits. One that was lower before stays.
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

/// Gives up what root may do beyond files of its own, but for reading: a source may belong to another user.
fn drop_capabilities() {
    use caps::{CapSet, Capability};
    for capability in caps::all() {
        if capability != Capability::CAP_DAC_READ_SEARCH {
            // Refused where there are none to begin with.
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    let _ = caps::clear(None, CapSet::Ambient);
    let _ = caps::clear(None, CapSet::Inheritable);
}

/// Lets it open its libraries, its input and what is in its folder. In that it makes plain files and nothing
/// else: a link or a pipe of its making would be opened by us.
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
        // A kernel without it enforces nothing.
        .restrict_self()?;
    Ok(())
}

/// Opens a file that a program wrote: by its own name, and only if it is one.
pub(crate) fn open_written(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Takes the calls that reach other machines, other processes or the kernel's more obscure parts.
fn confine_calls() -> io::Result<()> {
    let other = |error: seccompiler::BackendError| io::Error::other(error.to_string());
    // A processor that the filters are not made for.
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
    // Others, but not itself: it keeps this number.
    forbidden
        .insert(libc::SYS_tgkill, argument(0, SeccompCmpOp::Ne, std::process::id().into()).map_err(other)?);
    forbidden.insert(libc::SYS_prlimit64, argument(0, SeccompCmpOp::Ne, 0).map_err(other)?);
    // Its flags lie where no filter sees them: libraries that find it missing use the older call.
    let mut unseen = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    if cfg!(target_arch = "x86_64") {
        // The same calls by the numbers of x32, and those that it has of its own.
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
            // A kernel without filters.
            Err(seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error))
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {}
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
    }
    Ok(())
}

/// The bit that calls of x32 have.
const X32: i64 = 0x4000_0000;

/// Numbers that x32 has for calls whose arguments differ.
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
    // What Landlock does not see: who owns files, who may use them, and when they changed.
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

/// What [`main`] is to try, in place of becoming a program.
pub(super) const CHECK: &str = "check";

/// Tries what a sandbox should keep from, in one: for each, its name and whether it held.
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

/// Limits that are set here alone.
const LIMITED: [Resource; 3] = [Resource::RLIMIT_AS, Resource::RLIMIT_CPU, Resource::RLIMIT_FSIZE];
