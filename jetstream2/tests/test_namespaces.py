"""The units' commands form a cluster in network namespaces that transcodes to S3, also under systemd."""

import json
import os
import re
import subprocess
import sys
from hashlib import file_digest
from pathlib import Path

import pytest
from conftest import FOLDER, until
from hosts import NETWORK, Network, ProcessHost, SystemdHost
from render import ACCESS, SECRET, render

FOOTAGE = FOLDER.parent / ".cache" / "footage" / "bigbuckbunny.mp4"
S3 = f"http://{NETWORK}.5:5000"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="creating network namespaces needs root")


def can_boot_systemd():
    return Path("/sys/fs/cgroup/systemd/cgroup.procs").exists() and os.access("/lib/systemd/systemd", os.X_OK)


class Cluster:
    """A scheduler with its API, executors, and an S3 server with a video."""

    def __init__(self, folder, kind, spool, executors=2, **options):
        self.folder, self.network, self.executors, self.hosts = folder, Network(folder), [], []
        try:
            self.create(kind, spool, executors, options)
        except BaseException:
            self.print_logs()
            self.network.close()
            raise

    def create(self, kind, spool, executors, options):
        network = self.network
        network.join("s3", 5)
        network.start(
            "s3",
            sys.executable,
            "-m",
            "moto.server",
            "-H",
            f"{NETWORK}.5",
            "-p",
            "5000",
            log=self.folder / "s3.log",
        )
        until(
            "the S3 server responds",
            60,
            lambda: network.run("s3", "curl", "--silent", "--fail", f"{S3}/moto-api/"),
        )
        self.s3("s3://media", "--request", "PUT")
        self.s3("s3://media/uploads/bunny.mp4", "--upload-file", FOOTAGE)
        options = {
            "s3_endpoint": S3,
            "binary_url": "file:///srv/spool",
            "binary_sha256": sha256(spool),
            "drain_timeout": 60,
        } | options
        self.scheduler = self.add_host(kind, "sched", 10, "scheduler", spool, options)
        self.scheduler.boot()
        until("the scheduler is ready", 60, lambda: self.ready("ok: 0 executors"))
        for number in range(1, executors + 1):
            self.executors.append(
                self.add_host(kind, f"exec{number}", 20 + number, "executor", spool, options)
            )
            self.executors[-1].boot()
        until("the executors have joined", 60, lambda: self.ready(f"ok: {executors} executors"))

    def add_host(self, kind, name, number, role, spool, options):
        folder = self.folder / f"{name}-data"
        folder.mkdir()
        self.hosts.append(kind(self.network, name, number, render(role, folder, **options), spool))
        return self.hosts[-1]

    def ready(self, text):
        return text in self.scheduler.get(f"http://{NETWORK}.10:50050/readyz")

    def s3(self, uri, *options):
        """Sends a signed request to the S3 server."""
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
        """Runs spool-here on the scheduler's host."""
        return self.scheduler.chroot("/usr/local/bin/spool-here", *arguments, **options)

    def published(self, master):
        """Checks that a ladder's objects exist. Returns its picture sizes and number of audio playlists."""
        base = master.rsplit("/", 1)[0]
        text = self.s3(master)
        videos = re.findall(r"#EXT-X-STREAM-INF:.*RESOLUTION=(\d+x\d+).*\n(\S+)", text)
        audios = re.findall(r'#EXT-X-MEDIA:TYPE=AUDIO.*URI="([^"]+)"', text)
        for playlist in {uri for _, uri in videos} | set(audios):
            media = self.s3(f"{base}/{playlist}")
            assert "#EXT-X-ENDLIST" in media
            folder = f"{base}/{playlist}".rsplit("/", 1)[0]
            objects = re.findall(r'#EXT-X-MAP:URI="([^"]+)"', media) + re.findall(
                r"^([^#\s]\S*)$", media, re.M
            )
            assert len(objects) > 2
            for name in objects:
                self.s3(f"{folder}/{name}", "--head")
        return sorted({size for size, _ in videos}), len(set(audios))

    def print_logs(self):
        """Prints the logs of all units, which pytest shows if a test fails."""
        for host in self.hosts:
            for unit in host.runcmd[0][2:]:
                print(f"--- {host.name} {unit}\n{host.output(unit)[-3000:]}")


def sha256(path):
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


@pytest.fixture(
    params=[
        ProcessHost,
        pytest.param(
            SystemdHost,
            marks=pytest.mark.skipif(
                not can_boot_systemd(), reason="systemd cannot be booted in namespaces here"
            ),
        ),
    ],
    ids=["processes", "systemd"],
)
def kind(request):
    return request.param


@pytest.fixture
def make(tmp_path, spool, request):
    assert FOOTAGE.exists(), f"{FOOTAGE} is missing: scripts/footage .cache/footage"
    tmp_path.chmod(0o755)
    created = []

    def make_one(kind, **options):
        created.append(Cluster(tmp_path, kind, spool, **options))
        return created[-1]

    yield make_one
    for cluster in created:
        try:
            cluster.print_logs()
        finally:
            cluster.network.close()


def test_a_cluster_transcodes_to_s3_while_an_executor_drains(make, kind):
    cluster = make(kind)

    # With the API, which only the scheduler's host reaches.
    job = cluster.spool(
        "jobs", "submit", "s3://media/uploads/bunny.mp4", "--ladder", "180p,90p:200k"
    ).split()[0]
    cluster.spool("jobs", "watch", job, timeout=300)
    master = re.search(
        r"ladder published master=(\S+)",
        "".join(executor.output("spool-executor") for executor in cluster.executors),
    ).group(1)
    assert master.startswith("s3://media/media/")
    assert cluster.published(master) == (["160x90", "320x180"], 2)
    outside = cluster.network.run(
        "exec1", "curl", "--silent", "--max-time", "5", f"http://{NETWORK}.10:8080/v1/jobs", check=False
    )
    assert outside == "", "the API is reachable from another host"

    # With the command line, while an executor drains.
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
    draining = cluster.executors[0]
    until("the executor to drain has a row", 120, lambda: rows_of(cluster, draining) > 0)
    exit_code = draining.stop("spool-executor")
    assert exit_code() == 0, draining.output("spool-executor")
    assert running.wait(300) == 0, (cluster.folder / "transcode.log").read_text()
    assert cluster.ready("ok: 1 executors")
    assert cluster.published("s3://media/talk/master.m3u8") == (["320x180", "640x360"], 2)


def test_an_open_api_requires_keys(make):
    cluster = make(ProcessHost, executors=0, api=f"{NETWORK}.0/24")
    api = f"http://{NETWORK}.10:8080/v1/jobs"
    until(
        "the API responds",
        30,
        lambda: (
            "401"
            in cluster.network.run(
                "s3", "curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", api
            )
        ),
    )
    key = re.search(r"\bspool_\S+", cluster.spool("keys", "create", "--tenant", "tester")).group()
    assert "jobs" in cluster.network.run(
        "s3", "curl", "--silent", "--fail", "--header", f"Authorization: Bearer {key}", api
    )


def rows_of(cluster, host):
    """Returns the number of rows that an executor runs."""
    token = re.search("SPOOL_TOKEN=(.*)", host.text).group(1)
    executors = json.loads(
        cluster.scheduler.get(
            f"http://{NETWORK}.10:50050/executors", "--header", f"Authorization: Bearer {token}"
        )
    )
    name = re.search(r'joined executor="([^"]+)"', host.output("spool-executor")).group(1)
    return next(executor["rows"] for executor in executors if executor["id"] == name)


def test_requests_without_the_token_are_refused(make):
    cluster = make(ProcessHost, executors=1)
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
    output = cluster.executors[0].chroot(
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
    assert "token" in output.lower(), output


@pytest.mark.skipif(not can_boot_systemd(), reason="systemd cannot be booted in namespaces here")
def test_an_idle_executor_shuts_its_host_off(make):
    cluster = make(SystemdHost, executors=1, idle_timeout=4)
    until("the host is off", 60, cluster.executors[0].is_off)
    until("the scheduler notices", 30, lambda: cluster.ready("ok: 0 executors"))
    cluster.hosts.pop()


@pytest.mark.skipif(not can_boot_systemd(), reason="systemd cannot be booted in namespaces here")
def test_the_units_restrictions_leave_the_ffmpeg_sandbox_working(make):
    """Runs `spool doctor`, which tests FFmpeg's sandbox, with the restrictions of the executor's unit."""
    cluster = make(SystemdHost, executors=1)
    executor = cluster.executors[0]
    units = executor.root / "etc" / "systemd" / "system"
    unit = (units / "spool-executor.service").read_text()
    (units / "doctor.service").write_text(
        unit.replace("spool executor", "spool doctor").replace("Restart=on-failure", "Type=oneshot")
    )
    # A command that tries what the unit forbids.
    (units / "restrictions.service").write_text(
        unit.replace(
            "/usr/local/bin/spool executor",
            "/bin/sh -c 'touch /etc/x || echo no-etc; touch /scratch/x && echo yes-scratch; "
            "ls /root || echo no-root; unshare --user true || echo no-namespaces; "
            "cat /etc/spool/executor.env || echo no-secrets'",
        ).replace("Restart=on-failure", "Type=oneshot")
    )
    for name in ("doctor", "restrictions"):
        executor.inside("systemctl", "start", name)
    output = executor.output("doctor")
    assert (
        "ok    sandbox: FFmpeg opens its input and its folder, and reaches nothing else" in output
        and "ok    encoders: libx264" in output
    )
    assert "Finished doctor.service" in output
    output = executor.output("restrictions")
    for words in ("no-etc", "yes-scratch", "no-root", "no-namespaces", "no-secrets"):
        assert words in output, output


@pytest.mark.skipif(not can_boot_systemd(), reason="systemd cannot be booted in namespaces here")
def test_a_requested_stop_leaves_the_host_on(make):
    cluster = make(SystemdHost, executors=1, idle_timeout=600)
    executor = cluster.executors[0]
    assert executor.stop("spool-executor")() == 0
    assert "inactive" in executor.inside("systemctl", "is-active", "spool-executor", check=False)
    executor.inside("systemctl", "start", "spool-executor")
    until("it is connected again", 30, lambda: cluster.ready("ok: 1 executors"))
    executor.inside("systemctl", "restart", "spool-executor")
    until("it is connected after a restart", 30, lambda: cluster.ready("ok: 1 executors"))
