"""A Slurm cluster of two nodes on this host: munged, slurmctld and two slurmd, with a folder of their own.

It needs root, because slurmd starts jobs and munged runs as the user munge. It leaves an installed Slurm alone.
"""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

# Timeouts in seconds, for a busy host.
START_TIMEOUT = 90
EXIT_TIMEOUT = 60

# Seconds between two polls of a condition.
POLL_INTERVAL = 0.1

NODES = ("n1", "n2")

# Final states of a job.
ENDED = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "OUT_OF_MEMORY",
    "DEADLINE",
    "BOOT_FAIL",
)

# One executor's job and a scheduler's fit on a node together, but not two executors.
CPUS = 4

CONFIG = """\
ClusterName=spooltest
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its previous credential expires.
AuthInfo=socket={folder}/munge/socket,cred_expire=20
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait={kill_wait}
SlurmctldTimeout=30
SlurmdTimeout=8
MinJobAge=1200
SchedulerParameters=bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
{nodes}
PartitionName=low Nodes=n[1-2] Default=YES State=UP PriorityTier=1 PreemptMode=REQUEUE \\
 MaxTime=60 DefaultTime=30
PartitionName=high Nodes=n[1-2] State=UP PriorityTier=10 PreemptMode=OFF MaxTime=60 DefaultTime=30
"""


class TimedOut(AssertionError):
    """A condition did not become true in time."""


def until(what, condition, seconds):
    """Polls until `condition` returns a true value, and returns that value."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise TimedOut(f"not within {seconds} s: {what}")
        time.sleep(POLL_INTERVAL)


def free_ports(count):
    """Returns free ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def processes():
    """Returns the environments of all processes by PID, as far as they are readable. Zombies have none."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = (entry / "environ").read_bytes()
    return found


def command_line(pid):
    """Returns a process's command line, or an empty string if the process is gone."""
    try:
        return (
            pathlib.Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode(errors="replace")
            .strip()
        )
    except OSError:
        return ""


def opened(pid):
    """Returns the files that a process has open."""
    with contextlib.suppress(OSError):
        return [os.readlink(file) for file in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
    return []


class Slurm:
    """The cluster, as a context manager. Leaving it ends all its processes."""

    # Seconds between a job's SIGTERM and its SIGKILL.
    kill_wait = 20

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="spool-slurm-"))
        self.config = self.folder / "slurm.conf"
        self.daemons = {}
        # Without the settings of an installed Slurm.
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM", "SBATCH", "SPOOL"))
        }
        self.env["SLURM_CONF"] = str(self.config)
        self.env["PATH"] += ":/usr/sbin:/sbin"
        # The jobs' scratch space.
        self.scratch = self.folder / "tmp"
        self.scratch.mkdir()
        self.env["TMPDIR"] = str(self.scratch)

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            if "slurmctld" in self.daemons:
                with contextlib.suppress(subprocess.SubprocessError, AssertionError):
                    self.run("scancel", "--user=root")
                    until("all jobs are gone", lambda: not self.queue(), EXIT_TIMEOUT)
            for name in reversed(list(self.daemons)):
                self.end(name)
            self.kill(self.left)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        if os.geteuid() != 0:
            raise RuntimeError("starting Slurm needs root, because slurmd starts the jobs")
        for program in ("slurmctld", "slurmd", "munged", "sbatch"):
            if not shutil.which(program, path=self.env["PATH"]):
                raise RuntimeError(f"{program} is missing: run jetstream2/slurm/tests/setup first")
        # munged runs as another user and must be able to enter it.
        self.folder.chmod(0o711)
        self.munge()
        ctld_port, *node_ports = free_ports(1 + len(NODES))
        nodes = "\n".join(
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} "
            "RealMemory=4000"
            for name, port in zip(NODES, node_ports)
        )
        (self.folder / "state").mkdir()
        self.config.write_text(
            CONFIG.format(folder=self.folder, ctld_port=ctld_port, kill_wait=self.kill_wait, nodes=nodes)
        )
        self.daemon("slurmctld", ["slurmctld", "-D", "-c"])
        for node in NODES:
            self.start_node(node)
        until(
            "both nodes are idle",
            lambda: all(self.node_state(node) == "IDLE" for node in NODES),
            START_TIMEOUT,
        )

    def munge(self):
        folder = self.folder / "munge"
        folder.mkdir(mode=0o755)
        shutil.chown(folder, "munge", "munge")
        as_munge = ["--reuid=munge", "--regid=munge", "--clear-groups"]
        self.run("setpriv", *as_munge, "mungekey", "-c", f"--keyfile={folder}/key")
        files = [f"--{name}-file={folder}/{name}" for name in ("key", "log", "pid", "seed")]
        self.daemon("munged", [*as_munge, "munged", "--foreground", f"--socket={folder}/socket", *files])
        until("munged listens", (folder / "socket").exists, START_TIMEOUT)

    def daemon(self, name, command):
        """Starts a daemon, which is stopped by `end` or when this process exits."""
        command = ["setpriv", "--pdeathsig=TERM", *command]
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def end(self, name):
        process = self.daemons.pop(name)
        process.terminate()
        try:
            process.wait(EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(EXIT_TIMEOUT)

    def start_node(self, node):
        self.daemon(f"slurmd-{node}", ["slurmd", "-D", "-N", node])

    def kill_node(self, node):
        """Kills a node's daemon and all processes of its jobs."""
        daemon = self.daemons.pop(f"slurmd-{node}")
        daemon.kill()
        daemon.wait(EXIT_TIMEOUT)
        self.kill(lambda: self.step_daemons(node) + self.on_node(node))

    def step_daemons(self, node):
        """Returns the slurmstepd processes of a node."""
        log = f"{self.folder}/slurmd-{node}.log"
        return [
            pid for pid in processes() if command_line(pid).startswith("slurmstepd") and log in opened(pid)
        ]

    def on_node(self, node):
        """Returns the processes of jobs on a node. FFmpeg has no environment, but exits with its executor."""
        name = f"SLURMD_NODENAME={node}\0".encode()
        return [pid for pid in self.left() if name in processes().get(pid, b"")]

    def left(self):
        """Returns all processes of this cluster except its daemons. Their environment contains its folder."""
        folder = bytes(self.folder)
        daemons = {process.pid for process in self.daemons.values()}
        found = [pid for pid, env in processes().items() if folder in env and pid not in daemons]
        # slurmscriptd is a part of slurmctld.
        return [pid for pid in found if "slurmscriptd" not in command_line(pid)]

    @staticmethod
    def kill(find):
        """Kills the processes that `find` returns, until it returns none."""

        def gone():
            found = find()
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not found

        until("the killed processes are gone", gone, EXIT_TIMEOUT)

    def run(self, *command, seconds=EXIT_TIMEOUT):
        """Runs a command and returns its stdout. Fails with its output if the command fails."""
        words = [str(word) for word in command]
        done = subprocess.run(
            words, env=self.env, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode:
            raise AssertionError(f"{command} exited with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def node_state(self, node):
        """Returns a node's state, such as `IDLE`, `ALLOCATED` or `DOWN`."""
        return re.search(r"State=([A-Z]+)", self.run("scontrol", "--oneliner", "show", "node", node))[1]

    def job(self, job):
        """Returns Slurm's fields of a job or array task (`12_1`), such as `JobState` and `ExitCode`."""
        line = self.run("scontrol", "--oneliner", "show", "job", job).splitlines()[0]
        return dict(re.findall(r"(\w+)=(\S*)", line))

    def state(self, job):
        return self.job(job)["JobState"]

    def ended(self, job, seconds):
        """Waits until a job has ended. Returns its state and its exit code."""

        def found():
            job_now = self.job(job)
            return job_now if job_now["JobState"] in ENDED else None

        ended = until(f"job {job} ends", found, seconds)
        code, signaled = ended["ExitCode"].split(":")
        return ended["JobState"], int(code) if signaled == "0" else f"signal {signaled}"

    def queue(self):
        return self.run("squeue", "--noheader", "--format", "%i %P %T %r").splitlines()
