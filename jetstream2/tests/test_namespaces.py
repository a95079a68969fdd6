"""The units' very commands, in network namespaces, are a cluster that transcodes to S3: as plain processes, and by systemd."""

import json
import os
import re
import subprocess
import sys
from hashlib import file_digest
from pathlib import Path

import pytest
from conftest import FOLDER, until
from machines import NETWORK, Network, Processes, Systemd
from render import ACCESS, SECRET, render

FOOTAGE = FOLDER.parent / ".cache" / "footage" / "bigbuckbunny.mp4"
S3 = f"http://{NETWORK}.5:5000"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's to make: run the tests as root")


def systemd_can():
    return Path("/sys/fs/cgroup/systemd/cgroup.procs").exists() and os.access("/lib/systemd/systemd", os.X_OK)


class Cluster:
    """A scheduler with its API, executors, and an S3 server with a video."""

    def __init__(self, folder, kind, spool, executors=2, **options):
        self.folder, self.network, self.executors, self.machines = folder, Network(folder), [], []
        try:
            self.make(kind, spool, executors, options)
        except BaseException:
            self.tell()
            self.network.close()
            raise

    def make(self, kind, spool, executors, options):
        network = self.network
        network.join("s3", 5)
        network.start("s3", sys.executable, "-m", "moto.server", "-H", f"{NETWORK}.5", "-p", "5000", log=self.folder / "s3.log")
        until("the S3 server answers", 60, lambda: network.run("s3", "curl", "--silent", "--fail", f"{S3}/moto-api/"))
        self.s3("s3://media", "--request", "PUT")
        self.s3("s3://media/uploads/bunny.mp4", "--upload-file", FOOTAGE)
        options = {"s3_endpoint": S3, "binary_url": "file:///srv/spool", "binary_sha256": sha256(spool), "drain_timeout": 60} | options
        self.scheduler = self.machine(kind, "sched", 10, "scheduler", spool, options)
        self.scheduler.boot()
        until("the scheduler is ready", 60, lambda: self.ready("ok: 0 executors"))
        for number in range(1, executors + 1):
            self.executors.append(self.machine(kind, f"exec{number}", 20 + number, "executor", spool, options))
            self.executors[-1].boot()
        until("the executors have joined", 60, lambda: self.ready(f"ok: {executors} executors"))

    def machine(self, kind, name, number, role, spool, options):
        folder = self.folder / f"{name}-data"
        folder.mkdir()
        self.machines.append(kind(self.network, name, number, render(role, folder, **options), spool))
        return self.machines[-1]

    def ready(self, says):
        return says in self.scheduler.ask(f"http://{NETWORK}.10:50050/readyz")

    def s3(self, uri, *options):
        """Asks the S3 server, with a signature."""
        return self.network.run(
            "s3",
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--aws-sigv4",
            "aws:amz:us-east-1:s3",
            "--user",
            f"{ACCESS}:{SECRET}",
            *options,
            uri.replace("s3://", f"{S3}/"),
        )

    def spool(self, *arguments, **options):
        """spool on the scheduler's machine, as people run it there."""
        return self.scheduler.chroot("/usr/local/bin/spool-here", *arguments, **options)

    def published(self, master):
        """Renditions of a ladder whose objects are all there: of pictures and of sound."""
        base = master.rsplit("/", 1)[0]
        text = self.s3(master)
        pictures = re.findall(r"#EXT-X-STREAM-INF:.*RESOLUTION=(\d+x\d+).*\n(\S+)", text)
        sounds = re.findall(r'#EXT-X-MEDIA:TYPE=AUDIO.*URI="([^"]+)"', text)
        for playlist in {uri for _, uri in pictures} | set(sounds):
            media = self.s3(f"{base}/{playlist}")
            assert "#EXT-X-ENDLIST" in media
            folder = f"{base}/{playlist}".rsplit("/", 1)[0]
            objects = re.findall(r'#EXT-X-MAP:URI="([^"]+)"', media) + re.findall(r"^([^#\s]\S*)$", media, re.M)
            assert len(objects) > 2
            for name in objects:
                self.s3(f"{folder}/{name}", "--head")
        return sorted({size for size, _ in pictures}), len(set(sounds))

    def tell(self):
        """What everybody said, for a test that failed."""
        for machine in self.machines:
            for unit in machine.runcmd[0][2:]:
                print(f"--- {machine.name} {unit}\n{machine.said(unit)[-3000:]}")


def sha256(path):
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


@pytest.fixture(
    params=[
        Processes,
        pytest.param(Systemd, marks=pytest.mark.skipif(not systemd_can(), reason="systemd cannot be started in namespaces here")),
    ],
    ids=["processes", "systemd"],
)
def kind(request):
    return request.param


@pytest.fixture
def make(tmp_path, spool, request):
    assert FOOTAGE.exists(), f"{FOOTAGE} is missing: scripts/footage .cache/footage"
    tmp_path.chmod(0o755)
    made = []

    def make_one(kind, **options):
        made.append(Cluster(tmp_path, kind, spool, **options))
        return made[-1]

    yield make_one
    for cluster in made:
        try:
            cluster.tell()
        finally:
            cluster.network.close()


def test_a_cluster_transcodes_to_s3_and_shrinks(make, kind):
    cluster = make(kind)

    # By the API, on the scheduler's machine: nobody else reaches it.
    job = cluster.spool("jobs", "submit", "s3://media/uploads/bunny.mp4", "--ladder", "180p,90p:200k").split()[0]
    cluster.spool("jobs", "watch", job, timeout=300)
    master = re.search(
        r"ladder published master=(\S+)", "".join(executor.said("spool-executor") for executor in cluster.executors)
    ).group(1)
    assert master.startswith("s3://media/media/")
    assert cluster.published(master) == (["160x90", "320x180"], 2)
    outside = cluster.network.run("exec1", "curl", "--silent", "--max-time", "5", f"http://{NETWORK}.10:8080/v1/jobs", check=False)
    assert outside == "", "the API is the machine's own"

    # By the command line, and shrunk meanwhile.
    command = [
        "ip",
        "netns",
        "exec",
        cluster.network.full("sched"),
        "chroot",
        str(cluster.scheduler.root),
        "/usr/local/bin/spool-here",
        "transcode",
        "s3://media/uploads/bunny.mp4",
        "-o",
        "s3://media/talk/",
        "--ladder",
        "360p,180p",
        "--segment",
        "1",
        "--media-segment",
        "1",
        "--output",
        "json",
        "--progress",
        "json",
    ]
    with open(cluster.folder / "transcode.log", "wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    leaving = cluster.executors[0]
    until("the executor that is to leave has a row", 120, lambda: rows_of(cluster, leaving) > 0)
    gone = leaving.stop("spool-executor")
    assert gone() == 0, leaving.said("spool-executor")
    assert running.wait(300) == 0, (cluster.folder / "transcode.log").read_text()
    assert cluster.ready("ok: 1 executors")
    assert cluster.published("s3://media/talk/master.m3u8") == (["320x180", "640x360"], 2)


def test_an_open_api_wants_keys(make):
    cluster = make(Processes, executors=0, api=f"{NETWORK}.0/24")
    api = f"http://{NETWORK}.10:8080/v1/jobs"
    until(
        "the API answers",
        30,
        lambda: "401" in cluster.network.run("s3", "curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", api),
    )
    key = re.search(r"\bspool_\S+", cluster.spool("keys", "create", "--tenant", "somebody")).group()
    assert "jobs" in cluster.network.run("s3", "curl", "--silent", "--fail", "--header", f"Authorization: Bearer {key}", api)


def rows_of(cluster, machine):
    """Rows that an executor has in hand."""
    token = re.search("SPOOL_TOKEN=(.*)", machine.text).group(1)
    members = json.loads(
        cluster.scheduler.ask(f"http://{NETWORK}.10:50050/executors", "--header", f"Authorization: Bearer {token}")
    )
    name = re.search(r'joined executor="([^"]+)"', machine.said("spool-executor")).group(1)
    return next(member["rows"] for member in members if member["id"] == name)


def test_others_are_not_let_in(make):
    cluster = make(Processes, executors=1)
    without = cluster.network.run(
        "exec1",
        "curl",
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        f"http://{NETWORK}.10:50050/executors",
        check=False,
    )
    assert without == "401"
    said = cluster.executors[0].chroot(
        "setpriv",
        "--reuid=spool",
        "--regid=spool",
        "--init-groups",
        "env",
        f"SPOOL_CLUSTER={NETWORK}.10:50050",
        "SPOOL_TOKEN=wrong",
        "/usr/local/bin/spool",
        "sql",
        "-c",
        "SELECT 1",
        check=False,
    )
    assert "token" in said.lower(), said


@pytest.mark.skipif(not systemd_can(), reason="systemd cannot be started in namespaces here")
def test_an_executor_without_work_turns_its_machine_off(make):
    cluster = make(Systemd, executors=1, idle_timeout=4)
    until("the machine is off", 60, cluster.executors[0].is_off)
    until("the scheduler knows", 30, lambda: cluster.ready("ok: 0 executors"))
    cluster.machines.pop()


@pytest.mark.skipif(not systemd_can(), reason="systemd cannot be started in namespaces here")
def test_what_units_are_kept_from_leaves_ffmpeg_its_sandbox(make):
    """FFmpeg is confined by spool itself: within the unit's walls that still works, and `spool doctor` tries it."""
    cluster = make(Systemd, executors=1)
    executor = cluster.executors[0]
    units = executor.root / "etc" / "systemd" / "system"
    unit = (units / "spool-executor.service").read_text()
    (units / "doctor.service").write_text(
        unit.replace("spool executor", "spool doctor").replace("Restart=on-failure", "Type=oneshot")
    )
    # And what the walls keep out, as a part of the same unit.
    (units / "walls.service").write_text(
        unit.replace(
            "/usr/local/bin/spool executor",
            "/bin/sh -c 'touch /etc/x || echo no-etc; touch /scratch/x && echo yes-scratch; "
            "ls /root || echo no-root; unshare --user true || echo no-namespaces; cat /etc/spool/executor.env || echo no-secrets'",
        ).replace("Restart=on-failure", "Type=oneshot")
    )
    for name in ("doctor", "walls"):
        executor.inside("systemctl", "start", name)
    said = executor.said("doctor")
    assert (
        "ok    sandbox: FFmpeg opens its input and its folder, and reaches nothing else" in said
        and "ok    encoders: libx264" in said
    )
    assert "Finished doctor.service" in said
    said = executor.said("walls")
    for words in ("no-etc", "yes-scratch", "no-root", "no-namespaces", "no-secrets"):
        assert words in said, said


@pytest.mark.skipif(not systemd_can(), reason="systemd cannot be started in namespaces here")
def test_a_stop_that_was_asked_for_leaves_the_machine_on(make):
    cluster = make(Systemd, executors=1, idle_timeout=600)
    executor = cluster.executors[0]
    assert executor.stop("spool-executor")() == 0
    assert "inactive" in executor.inside("systemctl", "is-active", "spool-executor", check=False)
    executor.inside("systemctl", "start", "spool-executor")
    until("it works again", 30, lambda: cluster.ready("ok: 1 executors"))
    executor.inside("systemctl", "restart", "spool-executor")
    until("and again", 30, lambda: cluster.ready("ok: 1 executors"))
