"""Spool under a real Slurm of two nodes: jobs under failures, preemption, time limits and wrong input.

SPOOL names the binary. Run as root:
    SPOOL=target/debug/spool python3 -m unittest discover --start-directory jetstream2/slurm/tests --verbose
"""

import atexit
import contextlib
import http.client
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True

from cluster import NODES, Slurm, command_line, until  # noqa: E402
from fill import DEFAULTS, TEMPLATES, fill  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
FOOTAGE = ROOT / ".cache/footage/bigbuckbunny.mp4"

# Timeouts in seconds, for a busy host.
JOB_START_TIMEOUT = 90
JOB_END_TIMEOUT = 90
JOB_REQUEUE_TIMEOUT = 150
TRANSCODE_TIMEOUT = 400

FPS = 25
SECONDS = 90
LADDER = ["--ladder", "180p,90p:300k", "--segment", "4"]
RUNGS = ("180p", "90p")
# Video rows.
ROWS = 23

# An FFmpeg that reads video at a limited multiple of its speed, so that rows take time on any host, and give
# equal bytes.
SLOW = """\
#!/bin/sh
case "$*" in
    *libx264*) exec {ffmpeg} -readrate {speed} "$@" ;;
    *) exec {ffmpeg} "$@" ;;
esac
"""


def spool():
    """Returns the path of the binary: SPOOL, or cargo's debug build."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    found = pathlib.Path(os.environ.get("SPOOL", target / "debug/spool")).resolve()
    if not found.is_file():
        raise RuntimeError(f"{found} is missing: build it, or set SPOOL")
    return found


def setUpModule():
    global SPOOL, WORLD
    SPOOL = spool()
    if not FOOTAGE.is_file():
        raise RuntimeError(f"{FOOTAGE} is missing: run `make setup` first")
    # The cluster is also closed on an interrupt or SIGTERM.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    WORLD = World()
    atexit.register(WORLD.close)
    unittest.addModuleCleanup(WORLD.close)
    WORLD.open()


class World:
    """The cluster, a source, and the reference ladder."""

    def __init__(self):
        self.stack = contextlib.ExitStack()

    def open(self):
        self.slurm = self.stack.enter_context(Slurm())
        self.media = pathlib.Path(
            self.stack.enter_context(tempfile.TemporaryDirectory(prefix="spool-slurm-media-"))
        )
        self.source = self.media / "bunny.mp4"
        ffmpeg(
            "-stream_loop", "-1", "-i", FOOTAGE, "-t", SECONDS, "-vf", f"fps={FPS},scale=-2:270",
            "-c:v", "libx264", "-preset", "ultrafast", "-g", FPS * 2, "-c:a", "aac", "-ac", 2, self.source,
        )  # fmt: skip
        self.reference = self.media / "reference"
        self.slurm.run(
            SPOOL, "transcode", self.source, "-o", self.reference, *LADDER, seconds=TRANSCODE_TIMEOUT
        )

    def close(self):
        self.stack.close()

    def slow_ffmpeg(self, speed):
        """Returns a setup line that makes a job use an FFmpeg of this speed."""
        path = self.media / f"ffmpeg-{speed}"
        path.write_text(SLOW.format(ffmpeg=shutil.which("ffmpeg"), speed=speed))
        path.chmod(0o755)
        return f"export SPOOL_FFMPEG={path}"


def ffmpeg(*args):
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-y", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TRANSCODE_TIMEOUT, check=False)
    if done.returncode or done.stderr:
        raise AssertionError(f"{command} exited with {done.returncode}: {done.stderr}")


def frames(playlist):
    """Returns the number of frames when all of a playlist is decoded."""
    command = [
        "ffprobe",
        "-v",
        "error",
        "-allowed_extensions",
        "ALL",
        "-count_frames",
        "-select_streams",
        "v:0",
    ]
    command += ["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", str(playlist)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TRANSCODE_TIMEOUT, check=True)
    return int(done.stdout.strip().strip(",").splitlines()[0])


def objects(ladder):
    """Returns the published objects' bytes by name; empty for part records, which contain times and hosts.

    Files that start with `.spool-` are not objects, but locks and incomplete writes of killed processes.
    """
    files = {
        path.relative_to(ladder): path
        for path in ladder.rglob("*")
        if path.is_file() and not path.name.startswith(".spool-")
    }
    return {str(name): b"" if name.parts[0] == "parts" else path.read_bytes() for name, path in files.items()}


class Case(unittest.TestCase):
    """A test with its own folder. Its jobs are canceled afterwards, and its logs are printed if it fails."""

    def setUp(self):
        self.slurm = WORLD.slurm
        # The name has a space, as users' folders may have.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="jobs ", dir=WORLD.media))
        self.shared = self.folder / "shared"
        self.shared.mkdir(mode=0o700)
        self.addCleanup(self.all_gone)

    def run(self, result=None):
        result = result if result is not None else self.defaultTestResult()
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            for log in sorted(self.folder.glob("*.log")) + [WORLD.slurm.folder / "slurmctld.log"]:
                lines = log.read_text(errors="replace").splitlines()[-80:]
                print(f"--- {log.name}", *lines, sep="\n", file=sys.stderr)
        return result

    def all_gone(self):
        for node in NODES:
            if f"slurmd-{node}" not in self.slurm.daemons:
                self.slurm.start_node(node)
        self.slurm.run("scancel", "--user=root")
        until("all jobs are gone", lambda: not self.slurm.queue(), JOB_END_TIMEOUT)
        try:
            self.nothing_left()
        finally:
            # The next test starts with empty scratch space.
            for left in self.slurm.scratch.iterdir():
                shutil.rmtree(left, ignore_errors=True)
        until(
            "both nodes are idle",
            lambda: all(self.slurm.node_state(node) == "IDLE" for node in NODES),
            JOB_END_TIMEOUT,
        )

    def nothing_left(self):
        """Checks that no process of a job and no scratch space is left."""
        until("all processes of jobs are gone", lambda: not self.slurm.left(), JOB_END_TIMEOUT)
        until("all scratch space is gone", lambda: not list(self.slurm.scratch.iterdir()), JOB_END_TIMEOUT)

    def script(self, template, **values):
        values = {"spool": SPOOL, "logs": self.folder, "time": 30, "wait": 120} | values
        if template != "batch":
            values.setdefault("folder", self.shared)
        return fill(template, **values)

    def submit(self, template, *options, **values):
        """Writes a job's script, submits it, and returns its number."""
        path = self.folder / f"{template}-{len(list(self.folder.iterdir()))}.sbatch"
        path.write_text(self.script(template, **values))
        return self.slurm.run("sbatch", "--parsable", *options, path).strip()

    def log(self, job, name):
        path = self.folder / f"spool-{name}-{job}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start_scheduler(self, *options, **values):
        job = self.submit("scheduler", *options, **values)
        until("the scheduler writes its address", (self.shared / "scheduler").exists, JOB_START_TIMEOUT)
        return job

    def cluster(self):
        """Returns a client's environment, read as README.md describes."""
        return {
            "SPOOL_CLUSTER": (self.shared / "scheduler").read_text().splitlines()[0],
            "SPOOL_TOKEN": (self.shared / "token").read_text(),
        }

    def get(self, path):
        cluster = self.cluster()
        connection = http.client.HTTPConnection(cluster["SPOOL_CLUSTER"], timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Authorization": f"Bearer {cluster['SPOOL_TOKEN']}"})
            response = connection.getresponse()
            self.assertEqual(response.status, 200)
            return response.read().decode()

    def executors(self):
        return json.loads(self.get("/executors"))

    def transcode(self, destination, *args):
        """Starts a client, and returns its process."""
        log = (self.folder / f"client-{destination.name}.log").open("w")
        self.addCleanup(log.close)
        command = [SPOOL, "transcode", WORLD.source, "-o", destination, *LADDER, "--progress", "plain", *args]
        env = self.slurm.env | self.cluster() | {"SPOOL_SCRATCH": str(self.folder)}
        process = subprocess.Popen(
            list(map(str, command)), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        self.addCleanup(process.wait, JOB_END_TIMEOUT)
        self.addCleanup(process.terminate)
        return process

    def check_ladder(self, ladder):
        """Checks that a ladder equals that of a single host byte by byte, and that every frame decodes."""
        found, expected = objects(ladder), objects(WORLD.reference)
        self.assertEqual(sorted(found), sorted(expected))
        self.assertEqual([name for name in expected if found[name] != expected[name]], [])
        for rung in RUNGS:
            (playlist,) = (ladder / rung).glob("*.m3u8")
            self.assertEqual(frames(playlist), SECONDS * FPS, rung)
        ffmpeg(
            "-xerror",
            "-allowed_extensions",
            "ALL",
            "-i",
            ladder / "master.m3u8",
            "-map",
            "0",
            "-f",
            "null",
            "-",
        )


def parts(ladder):
    """Returns the number of finished parts."""
    return len(list((ladder / "parts").glob("*.json")))


class Array(Case):
    """A scheduler's job, and executors in an array that find it through a folder."""

    def test_the_ladder_is_correct_after_a_node_failure_and_a_preemption(self):
        slurm = self.slurm
        scheduler = self.start_scheduler("--partition=high", "--nodelist=n2")
        self.assertEqual((self.shared / "token").stat().st_mode & 0o777, 0o600)
        # One executor per node: more do not fit.
        array = self.submit(
            "executors",
            f"--dependency=after:{scheduler}",
            executors=2,
            cpus=3,
            idle_timeout=30,
            setup=[WORLD.slow_ffmpeg(1)],
        )
        until("both executors are connected", lambda: len(self.executors()) == 2, JOB_START_TIMEOUT)
        self.assertEqual([executor["slots"] for executor in self.executors()], [3, 3])
        self.assertIn(f"{slurm.scratch}/spool-", self.log(f"{array}_1", "executors"))
        tasks = {slurm.job(f"{array}_{task}")["NodeList"]: f"{array}_{task}" for task in (1, 2)}
        self.assertEqual(sorted(tasks), list(NODES))

        ladder = self.folder / "ladder"
        client = self.transcode(ladder)

        def all_busy(count):
            return [executor["rows"] > 0 for executor in self.executors()] == [True] * count

        until(
            "rows are done, and both executors have running rows",
            lambda: parts(ladder) >= 2 and all_busy(2),
            TRANSCODE_TIMEOUT,
        )
        slurm.kill_node("n1")
        until("the executor there counts as lost", lambda: len(self.executors()) == 1, JOB_END_TIMEOUT)
        before = parts(ladder)
        log = self.folder / f"spool-executors-{tasks['n2']}.log"

        def rows_are_half_done():
            # A row takes four seconds, and none has started within the last 0.7 s.
            return parts(ladder) > before and all_busy(1) and time.time() - log.stat().st_mtime > 0.7

        until("rows are done, and some are half done", rows_are_half_done, TRANSCODE_TIMEOUT)

        release = self.folder / "release"
        urgent = self.folder / "urgent.sbatch"
        urgent.write_text(f"#!/bin/sh\nuntil [ -e '{release}' ]; do sleep 1; done\n")
        options = [
            "--partition=high",
            "--nodelist=n2",
            "--cpus-per-task=3",
            f"--output={self.folder}/urgent-%j.log",
        ]
        urgent = slurm.run("sbatch", "--parsable", *options, urgent).strip()
        until("the urgent job runs", lambda: slurm.state(urgent) == "RUNNING", JOB_REQUEUE_TIMEOUT)
        until("no executor is left", lambda: not self.executors(), JOB_END_TIMEOUT)
        log = self.log(tasks["n2"], "executors")
        self.assertIn("DUE TO PREEMPTION", log)
        self.assertIn("row encoded", log.split("draining", 1)[1], "running rows could finish")
        self.assertIsNone(client.poll(), "the client must wait")
        self.assertFalse((ladder / "master.m3u8").exists())
        until("Slurm reports the node as down", lambda: slurm.node_state("n1") == "DOWN", JOB_END_TIMEOUT)
        until(
            "both tasks are requeued",
            lambda: {slurm.state(task) for task in tasks.values()} == {"PENDING"},
            JOB_END_TIMEOUT,
        )

        slurm.start_node("n1")
        until("one executor is connected again", lambda: len(self.executors()) == 1, JOB_REQUEUE_TIMEOUT)
        release.touch()
        until("both executors are connected again", lambda: len(self.executors()) == 2, JOB_REQUEUE_TIMEOUT)
        self.assertEqual(slurm.ended(urgent, JOB_END_TIMEOUT), ("COMPLETED", 0))
        self.assertEqual(client.wait(TRANSCODE_TIMEOUT), 0)
        self.check_ladder(ladder)

        for task in tasks.values():
            self.assertEqual(slurm.job(task)["Restarts"], "1")
            self.assertEqual(
                slurm.ended(task, JOB_END_TIMEOUT), ("COMPLETED", 0), "idle executors must exit by themselves"
            )
            self.assertEqual(
                self.log(task, "executors").count("starting an executor for the scheduler at"), 2
            )
        slurm.run("scancel", scheduler)
        slurm.ended(scheduler, JOB_END_TIMEOUT)
        self.assertFalse((self.shared / "scheduler").exists(), "the scheduler removes its address")
        self.nothing_left()

    def test_an_executor_drains_before_its_time_limit_and_is_requeued(self):
        self.start_scheduler("--partition=high")
        # Each row takes eight seconds, and two run at once: all rows take longer than the time limit.
        # Slurm sends the signal up to 30 s earlier than it should: after 45 to 75 s of 120.
        slow = [WORLD.slow_ffmpeg(0.5)]
        array = self.submit("executors", executors=1, cpus=2, time=2, lead=45, idle_timeout=60, setup=slow)
        task = f"{array}_1"
        until("the executor is connected", lambda: self.executors(), JOB_START_TIMEOUT)
        ladder = self.folder / "ladder"
        client = self.transcode(ladder)
        until("the executor drains", lambda: "draining: running rows" in self.log(task, "executors"), 150)
        until(
            "the task is requeued",
            lambda: "the job is requeued (1 of at most 10" in self.log(task, "executors"),
            JOB_END_TIMEOUT,
        )
        log = self.log(task, "executors")
        self.assertRegex(log, r"running rows finish first drain_timeout_s=35 running=[12]\b")
        self.assertNotIn("canceling running rows", log)
        self.assertNotIn("is killed", log)
        until("the executor is connected again", lambda: self.executors(), JOB_REQUEUE_TIMEOUT)
        self.assertEqual(self.slurm.job(task)["Restarts"], "1")
        self.assertEqual(client.wait(TRANSCODE_TIMEOUT), 0)
        self.check_ladder(ladder)
        encoded = re.findall(r"ffmpeg started segment=(\d+) rungs=2", self.log(task, "executors"))
        self.assertEqual(
            sorted(map(int, encoded)), list(range(ROWS)), "running rows must finish, and not be encoded again"
        )

    def test_executors_follow_a_requeued_scheduler_to_its_new_address(self):
        scheduler = self.start_scheduler()
        address = self.cluster()["SPOOL_CLUSTER"]
        array = self.submit("executors", executors=1, cpus=1, idle_timeout=150)
        until("the executor is connected", lambda: self.executors(), JOB_START_TIMEOUT)
        self.slurm.run("scontrol", "requeue", scheduler)
        until(
            "the scheduler removes its address",
            lambda: not (self.shared / "scheduler").exists(),
            JOB_END_TIMEOUT,
        )
        until("the scheduler writes its new address", (self.shared / "scheduler").exists, JOB_REQUEUE_TIMEOUT)
        self.assertNotEqual(self.cluster()["SPOOL_CLUSTER"], address)
        until("the executor is connected to it", lambda: self.executors(), JOB_REQUEUE_TIMEOUT)
        self.assertEqual(self.slurm.job(f"{array}_1")["Restarts"], "0")


class Batch(Case):
    """A command on all nodes of a job."""

    def test_the_jobs_exit_code_is_the_commands(self):
        ladder = self.folder / "out/ladder"
        good = self.submit("batch", nodes=2, cpus=2, work=["transcode", WORLD.source, "-o", ladder, *LADDER])
        self.assertEqual(self.slurm.ended(good, TRANSCODE_TIMEOUT), ("COMPLETED", 0))
        self.check_ladder(ladder)
        hosts = self.log(good, "batch").count("slots, scratch in")
        self.assertEqual(hosts, 2, "an executor on each node")
        self.nothing_left()

        missing = self.submit(
            "batch",
            nodes=2,
            cpus=1,
            work=["transcode", self.folder / "missing.mp4", "-o", self.folder / "none"],
        )
        statement = self.submit(
            "batch", nodes=1, cpus=1, work=["sql", "-c", "SELECT 6 * 7 AS answer", "--output", "json"]
        )
        wrong = self.submit("batch", nodes=1, cpus=1, work=["sql", "-c", "SELEKT"])
        self.assertEqual(self.slurm.ended(missing, JOB_END_TIMEOUT), ("FAILED", 3))
        self.assertIn("missing.mp4", self.log(missing, "batch"))
        self.assertEqual(self.slurm.ended(statement, JOB_END_TIMEOUT), ("COMPLETED", 0))
        self.assertRegex(self.log(statement, "batch"), r'"answer": ?42')
        self.assertEqual(self.slurm.ended(wrong, JOB_END_TIMEOUT), ("FAILED", 2))
        self.nothing_left()

    def test_a_canceled_batch_leaves_no_process_and_no_scratch_space(self):
        ladder = self.folder / "ladder"
        job = self.submit(
            "batch",
            nodes=2,
            cpus=2,
            work=["transcode", WORLD.source, "-o", ladder, *LADDER],
            setup=[WORLD.slow_ffmpeg(1)],
        )
        until("rows are done", lambda: parts(ladder), TRANSCODE_TIMEOUT)
        running = [command_line(pid) for pid in self.slurm.left()]
        for role in ("scheduler", "executor", "transcode"):
            self.assertTrue(any(f"spool {role}" in line for line in running), running)
        self.slurm.run("scancel", job)
        self.assertEqual(self.slurm.ended(job, JOB_END_TIMEOUT)[0], "CANCELLED")
        self.nothing_left()

    def test_a_batch_continues_after_its_time_limit(self):
        ladder = self.folder / "ladder"
        # Each row takes four seconds, and one runs at once: all rows take longer than the time limit.
        work = ["transcode", WORLD.source, "-o", ladder, *LADDER]
        job = self.submit(
            "batch", nodes=1, cpus=1, time=2, lead=45, work=work, requeues=3, setup=[WORLD.slow_ffmpeg(1)]
        )
        until("the batch drains", lambda: "draining: running rows" in self.log(job, "batch"), 150)
        until("the job is requeued", lambda: self.slurm.state(job) == "PENDING", JOB_END_TIMEOUT)
        done = parts(ladder)
        self.assertGreater(done, 2)
        self.assertFalse((ladder / "master.m3u8").exists())
        self.assertEqual(self.slurm.ended(job, TRANSCODE_TIMEOUT), ("COMPLETED", 0))
        self.assertNotEqual(self.slurm.job(job)["Restarts"], "0")
        self.assertRegex(self.log(job, "batch"), r"reused [1-9]")
        self.check_ladder(ladder)


class WrongInput(Case):
    """Errors are reported in the job's log and by its exit code."""

    def test_jobs_report_why_they_cannot_run(self):
        open_folder = self.folder / "open"
        open_folder.mkdir()
        open_folder.chmod(0o777)
        open_token = self.folder / "open-token"
        open_token.mkdir(mode=0o700)
        (open_token / "token").write_text("secret")
        (open_token / "token").chmod(0o644)
        stale = self.folder / "stale"
        stale.mkdir(mode=0o700)
        (stale / "scheduler").write_text("127.0.0.1:9\njob 7 on n9 since 2026-01-01 00:00:00\n")
        (stale / "token").touch(mode=0o600)
        (stale / "token").write_text("secret")
        no_ffmpeg = f"PATH={self.programs_without_ffmpeg()}"
        gone = self.folder / "gone"
        one = {"executors": 1, "cpus": 1}
        work = ["sql", "-c", "SELECT 1"]
        cases = [
            ("executors", one | {"folder": gone}, 3, f"folder {gone} not found on this node"),
            ("scheduler", {"folder": gone}, 3, f"folder {gone} not found on this node"),
            ("executors", one | {"folder": open_folder}, 4, f"other users can write into {open_folder}"),
            (
                "executors",
                one | {"folder": open_token, "scheduler": "127.0.0.1:9"},
                4,
                f"other users can read {open_token}/token",
            ),
            ("executors", one | {"spool": "/opt/none/spool"}, 3, "/opt/none/spool not found on this node"),
            (
                "batch",
                {"cpus": 1, "work": work, "spool": "/opt/none/spool"},
                3,
                "/opt/none/spool not found on this node",
            ),
            (
                "batch",
                {"cpus": 1, "work": work, "spool": "/etc/passwd"},
                3,
                "/etc/passwd not found on this node",
            ),
            ("executors", one | {"setup": [no_ffmpeg]}, 1, "ffmpeg not found"),
            ("batch", {"cpus": 1, "work": work, "setup": [no_ffmpeg]}, 1, "ffmpeg not found"),
            ("executors", one | {"time": 2, "lead": 60}, 2, "SIGTERM may come 120 s before that"),
            (
                "batch",
                {"cpus": 1, "work": work, "time": 1, "lead": 30},
                2,
                "SIGTERM may come 90 s before that",
            ),
            (
                "executors",
                one | {"wait": 5},
                5,
                f"no scheduler within 5 s: {self.shared}/scheduler not found",
            ),
            (
                "executors",
                one | {"wait": 5, "folder": stale},
                5,
                "no response from 127.0.0.1:9, where a scheduler was started",
            ),
            (
                "executors",
                one | {"wait": 5, "folder": stale, "scheduler": "127.0.0.1:7"},
                5,
                "no response from 127.0.0.1:7",
            ),
            (
                "executors",
                one | {"threads": 4},
                2,
                "an encode with 4 threads needs more CPUs than the task has (1)",
            ),
            ("batch", {"cpus": 1, "threads": 4, "work": work}, 2, "an encode with 4 threads needs more CPUs"),
            # An invalid address for the executors' probes.
            (
                "batch",
                {"cpus": 1, "work": work, "setup": ["export SPOOL_HTTP=none"]},
                5,
                "all executors exited before the command was done",
            ),
            ("scheduler", {"interface": "none0"}, 2, "no interface none0"),
        ]
        jobs = [
            (self.submit(template, **values), template, code, message)
            for template, values, code, message in cases
        ]
        for number, template, code, message in jobs:
            with self.subTest(template=template, message=message):
                job = f"{number}_1" if template == "executors" else number
                self.assertEqual(self.slurm.ended(job, 180), ("FAILED", code))
                self.assertIn(message, self.log(job, template))

    def programs_without_ffmpeg(self):
        """Returns a folder with the system's programs except FFmpeg."""
        folder = self.folder / "programs"
        folder.mkdir()
        for place in ("/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"):
            for program in pathlib.Path(place).glob("*"):
                if not program.name.startswith("ff") and not (folder / program.name).exists():
                    (folder / program.name).symlink_to(program)
        return shlex.quote(str(folder))

    def test_slurm_refuses_an_unknown_partition(self):
        path = self.folder / "job.sbatch"
        path.write_text(self.script("executors", sbatch=["--partition=nowhere"]))
        done = subprocess.run(
            ["sbatch", path],
            env=self.slurm.env,
            capture_output=True,
            text=True,
            timeout=JOB_END_TIMEOUT,
            check=False,
        )
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("invalid partition", done.stderr)

    def test_a_stale_address_is_replaced_and_a_second_scheduler_is_refused(self):
        (self.shared / "scheduler").write_text("127.0.0.1:9\njob 7 on n9 since 2026-01-01 00:00:00\n")
        first = self.submit("scheduler")
        until(
            "the scheduler writes its address",
            lambda: f"job {first} on" in (self.shared / "scheduler").read_text(),
            JOB_START_TIMEOUT,
        )
        self.assertIn("is stale", self.log(first, "scheduler"))
        self.assertIn("no response from 127.0.0.1:9", self.log(first, "scheduler"))
        address = self.cluster()["SPOOL_CLUSTER"]
        second = self.submit("scheduler")
        self.assertEqual(self.slurm.ended(second, JOB_END_TIMEOUT), ("FAILED", 2))
        self.assertIn(
            f"a scheduler for {self.shared} runs already, at {address}", self.log(second, "scheduler")
        )
        self.assertEqual(self.cluster()["SPOOL_CLUSTER"], address)

        # With the right address, but a wrong token.
        other = self.folder / "other"
        other.mkdir(mode=0o700)
        (other / "token").touch(mode=0o600)
        (other / "token").write_text("wrong")
        refused = self.submit("executors", executors=1, cpus=1, wait=5, folder=other, scheduler=address)
        self.assertEqual(self.slurm.ended(f"{refused}_1", JOB_END_TIMEOUT), ("FAILED", 5))
        self.assertIn(
            f"the scheduler at {address} refuses the token in {other}/token",
            self.log(f"{refused}_1", "executors"),
        )


class Commands(Case):
    """`spool slurm submit` creates folders, submits jobs, and refuses wrong values."""

    def scheduler(self, *flags):
        command = [
            SPOOL,
            "slurm",
            "submit",
            "scheduler",
            "--folder",
            self.folder / "new folder",
            "--time",
            "30",
        ]
        return self.slurm.run(
            *command, "--logs", self.folder / "logs/of today", "--name", "a #1 name", *flags
        ).strip()

    def test_submit_creates_folders_and_the_job_runs(self):
        folder = self.folder / "new folder"
        job = self.scheduler("--partition", "low", "--mem-per-cpu", "100M", "--lead", "20")
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        until("the scheduler writes its address", (folder / "scheduler").exists, JOB_START_TIMEOUT)
        self.assertTrue((self.folder / f"logs/of today/a #1 name-{job}.log").exists())
        self.assertEqual(self.slurm.job(job)["Partition"], "low")

    def test_submit_refuses_wrong_values(self):
        for flags, message in [
            (["--partition", "nowhere"], "invalid partition"),
            (["--constraint", "nothing"], "[Ii]nvalid feature"),
            (["--qos", "a b"], "does not take literally"),
            (["--mem-per-cpu", "1.5G"], "such as 1500M or 2G"),
            (["--lead", "19"], "give 20 to 3600"),
        ]:
            with self.subTest(flags=flags), self.assertRaisesRegex(AssertionError, message):
                self.scheduler(*flags)
        (self.folder / "new folder").chmod(0o755)
        with self.assertRaisesRegex(AssertionError, "chmod 700 '"):
            self.scheduler()


class Scripts(unittest.TestCase):
    """The filled scripts, without running them."""

    values = {
        "scheduler": {"folder": "/shared/my spool"},
        "executors": {
            "folder": "/shared/my spool",
            "setup": ["module load ffmpeg"],
            "sbatch": ["--partition=low", "--mem-per-cpu=2G"],
        },
        "batch": {"work": ["transcode", "it's a talk.mp4", "-o", "s3://media/talk/"]},
    }

    def test_shellcheck_finds_no_problem(self):
        for template, values in self.values.items():
            done = subprocess.run(
                # shellcheck takes functions that only a trap calls for unreachable.
                ["shellcheck", "--shell=bash", "--exclude=SC2317", "-"],
                input=fill(template, **values),
                capture_output=True, text=True, timeout=JOB_END_TIMEOUT, check=False,
            )  # fmt: skip
            self.assertEqual(done.stdout, "", template)

    def test_every_placeholder_is_filled(self):
        for template, values in self.values.items():
            self.assertNotRegex(fill(template, **values), "@[A-Z_]+@")
        self.assertEqual(sorted(path.stem for path in TEMPLATES.glob("*.sbatch")), sorted(DEFAULTS))
        filled = fill("executors", **self.values["executors"])
        self.assertIn("\n#SBATCH --partition=low\n#SBATCH --mem-per-cpu=2G\n", filled)
        self.assertIn('\n#SBATCH --job-name="spool-executors"\n', filled)
        self.assertIn("\nfolder='/shared/my spool'\n", filled)
        self.assertIn(
            """work=(transcode 'it'"'"'s a talk.mp4' -o s3://media/talk/)""",
            fill("batch", **self.values["batch"]),
        )


if __name__ == "__main__":
    unittest.main()
