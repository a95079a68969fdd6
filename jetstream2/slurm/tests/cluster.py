"""A Slurm of two nodes on this machine: munged, slurmctld and two slurmd as processes of their own, in a folder of their own.

It needs root, because slurmd starts jobs, and munged runs as the user munge. Another Slurm on this machine is not used or touched.
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

# How long each thing may take on a machine that is busy with others.
STARTS = 90
ENDS = 60

# Seconds between two looks at a condition.
LOOK = 0.1

NODES = ("n1", "n2")

# States that a job does not leave any more.
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")

# An executor's job and a scheduler's fit on a node together, and two executors do not.
CPUS = 4

CONFIG = """\
ClusterName=spooltest
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits for as long as the credential of the one before holds.
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
PartitionName=low Nodes=n[1-2] Default=YES State=UP PriorityTier=1 PreemptMode=REQUEUE MaxTime=60 DefaultTime=30
PartitionName=high Nodes=n[1-2] State=UP PriorityTier=10 PreemptMode=OFF MaxTime=60 DefaultTime=30
"""


class Late(AssertionError):
    """Something did not happen in time."""


def until(what, condition, seconds):
    """Waits until `condition` gives something that is true, and returns it."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise Late(f"not in {seconds} s: {what}")
        time.sleep(LOOK)


def free_ports(count):
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def processes():
    """The environment of each process that can be read, by its pid. Zombies have none."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = (entry / "environ").read_bytes()
    return found


def command_line(pid):
    """What a process was started with; nothing where it is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def opened(pid):
    """The files that a process has open."""
    with contextlib.suppress(OSError):
        return [os.readlink(file) for file in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
    return []


class Slurm:
    """The cluster. Enter it to start it; what it started is gone when it is left."""

    # Seconds between a job's SIGTERM and its SIGKILL.
    kill_wait = 20

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="spool-slurm-"))
        self.config = self.folder / "slurm.conf"
        self.daemons = {}
        # Another Slurm's settings have no say here.
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SPOOL"))}
        self.env["SLURM_CONF"] = str(self.config)
        self.env["PATH"] += ":/usr/sbin:/sbin"
        # Where jobs have their scratch space.
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
                    until("all jobs are gone", lambda: not self.queue(), ENDS)
            for name in reversed(list(self.daemons)):
                self.end(name)
            self.kill(self.left)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        if os.geteuid() != 0:
            raise RuntimeError("a Slurm of its own needs root: slurmd starts the jobs")
        for program in ("slurmctld", "slurmd", "munged", "sbatch"):
            if not shutil.which(program, path=self.env["PATH"]):
                raise RuntimeError(f"{program} is missing: run jetstream2/slurm/tests/setup first")
        # munged goes through it.
        self.folder.chmod(0o711)
        self.munge()
        ctld_port, *node_ports = free_ports(1 + len(NODES))
        nodes = "\n".join(
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory=4000"
            for name, port in zip(NODES, node_ports)
        )
        (self.folder / "state").mkdir()
        self.config.write_text(CONFIG.format(folder=self.folder, ctld_port=ctld_port, kill_wait=self.kill_wait, nodes=nodes))
        self.daemon("slurmctld", ["slurmctld", "-D", "-c"])
        for node in NODES:
            self.start_node(node)
        until("both nodes are idle", lambda: all(self.node_state(node) == "IDLE" for node in NODES), STARTS)

    def munge(self):
        folder = self.folder / "munge"
        folder.mkdir(mode=0o755)
        shutil.chown(folder, "munge", "munge")
        as_munge = ["--reuid=munge", "--regid=munge", "--clear-groups"]
        self.run("setpriv", *as_munge, "mungekey", "-c", f"--keyfile={folder}/key")
        files = [f"--{name}-file={folder}/{name}" for name in ("key", "log", "pid", "seed")]
        self.daemon("munged", [*as_munge, "munged", "--foreground", f"--socket={folder}/socket", *files])
        until("munged listens", (folder / "socket").exists, STARTS)

    def daemon(self, name, command):
        """Starts what is ended by `end`, or else with this process."""
        command = ["setpriv", "--pdeathsig=TERM", *command]
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def end(self, name):
        process = self.daemons.pop(name)
        process.terminate()
        try:
            process.wait(ENDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(ENDS)

    def start_node(self, node):
        self.daemon(f"slurmd-{node}", ["slurmd", "-D", "-N", node])

    def kill_node(self, node):
        """What the death of a node takes: its daemon, and all that runs there."""
        daemon = self.daemons.pop(f"slurmd-{node}")
        daemon.kill()
        daemon.wait(ENDS)
        self.kill(lambda: self.watchers(node) + self.on_node(node))

    def watchers(self, node):
        """The processes by which Slurm watches jobs on a node."""
        log = f"{self.folder}/slurmd-{node}.log"
        return [pid for pid in processes() if command_line(pid).startswith("slurmstepd") and log in opened(pid)]

    def on_node(self, node):
        """What jobs run on a node. FFmpeg, which gets no environment, ends with the executor that started it."""
        name = f"SLURMD_NODENAME={node}\0".encode()
        return [pid for pid in self.left() if name in processes().get(pid, b"")]

    def left(self):
        """All processes of this cluster but its daemons: their environment names its folder, if only as scratch space."""
        folder = bytes(self.folder)
        daemons = {process.pid for process in self.daemons.values()}
        found = [pid for pid, env in processes().items() if folder in env and pid not in daemons]
        # A part of slurmctld.
        return [pid for pid in found if "slurmscriptd" not in command_line(pid)]

    @staticmethod
    def kill(find):
        """Ends what `find` finds, until it finds nothing more."""

        def gone():
            found = find()
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not found

        until("what was killed is gone", gone, ENDS)

    def run(self, *command, seconds=ENDS):
        """What a command says on stdout. Where it fails, this fails with what it said."""
        words = [str(word) for word in command]
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=seconds, check=False)
        if done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def node_state(self, node):
        """`IDLE`, `ALLOCATED`, `DOWN` and so on."""
        return re.search(r"State=([A-Z]+)", self.run("scontrol", "--oneliner", "show", "node", node))[1]

    def job(self, job):
        """What Slurm knows of a job, or a task of an array (`12_1`): `JobState`, `ExitCode`, `Restarts` and more."""
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
