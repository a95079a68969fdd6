"""The binary accepts the pods' flags and variables, and answers probes, Prometheus, KEDA and alerts."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import grpc
import promql_parser
import pytest

from conftest import NAMESPACE, RENDERED, container, each_workload, environment, flags, template

# Seconds in which a process must answer, and must exit.
TOKEN = "token-of-executors"
ANSWER_TIMEOUT = 60
EXIT_TIMEOUT = 30


@pytest.mark.parametrize("workload", each_workload())
def test_pods_use_only_known_flags(workload, help_of):
    role, given = flags(workload)
    known = set(re.findall(r"^\s+(?:-\w, )?(--[a-z-]+)", help_of(role), re.MULTILINE))
    assert given and given.keys() <= known


@pytest.mark.parametrize("workload", each_workload())
def test_pods_use_only_known_variables(workload, help_of):
    role, _ = flags(workload)
    known = set(re.findall(r"\[env: (SPOOL_[A-Z_]+)", help_of(role)))
    given = {name for name in environment(workload) if name.startswith("SPOOL_")}
    assert given and given <= known


@pytest.mark.parametrize("workload", each_workload())
def test_flag_values_are_accepted(workload, spool):
    """`--help` succeeds only after all flags before it were parsed, with their values."""
    arguments = container(workload)["args"]
    accepted = subprocess.run([spool, *arguments, "--help"], capture_output=True, text=True)
    assert accepted.returncode == 0, accepted.stderr
    for wrong in ("--no-such-flag", "--log-format=none"):
        assert subprocess.run([spool, *arguments, wrong, "--help"], capture_output=True).returncode == 2


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# Runs a command on a root that is read-only except for one folder, as a user without any privilege. Every
# step uses `exec`, so that signals reach the command.
CONFINED = """
mount --make-rprivate /
mount --bind "$1" /mnt
touch /mnt/spool
mount --bind "$2" /mnt/spool
mount --options remount,bind,ro /
exec setpriv --reuid "$3" --regid "$3" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \\
    /mnt/spool "${@:4}"
"""


class Node:
    """Runs pods as processes that write into one folder, with the privileges of their security context.

    Only root can drop these privileges; without root, processes keep those of the tests' user.
    """

    def __init__(self, spool, folder):
        self.spool, self.folder = spool, folder
        self.drops_privileges = os.geteuid() == 0
        self.path = "/mnt" if self.drops_privileges else str(folder)

    def start(self, workload, arguments, variables, log):
        # TMPDIR must come from the pod: this default does not exist.
        variables = {"PATH": os.environ["PATH"], "TMPDIR": "/nonexistent", **variables}
        command = [self.spool, *arguments]
        if self.drops_privileges:
            user = str(template(workload)["spec"]["securityContext"]["runAsUser"])
            subprocess.run(["chown", "--recursive", f"{user}:{user}", self.folder], check=True)
            script = ["bash", "-ec", CONFINED, "confined"]
            command = ["unshare", "--mount", *script, self.folder, self.spool, user, *arguments]
        return subprocess.Popen(command, env=variables, cwd="/", stdout=log, stderr=log)


class Pod:
    """A pod's command as a process on a node, with its ports on loopback and only the pod's environment."""

    def __init__(self, node, workload, secrets, ports, arguments=None):
        self.workload, self.name = workload, workload["metadata"]["name"]
        only = container(workload)
        mounts = [mount["mountPath"] for mount in only.get("volumeMounts", [])]
        for path in mounts:
            (node.folder / self.name / path.lstrip("/")).mkdir(parents=True, exist_ok=True)

        def localize(text):
            for host, port, mapped in ports:
                text = text.replace(f"{host}:{port}", f"127.0.0.1:{mapped}")
            for path in mounts:
                text = re.sub(rf"(^|=){path}(?=/|$)", rf"\g<1>{node.path}/{self.name}{path}", text)
            return text

        variables = {
            name: localize(entry["value"]) if "value" in entry else secrets[name]
            for name, entry in environment(workload).items()
        }
        self.log = node.folder / f"{self.name}.log"
        with self.log.open("w") as log:
            self.process = node.start(
                workload, arguments or list(map(localize, only["args"])), variables, log
            )
        local = {port: mapped for _, port, mapped in ports}
        named = {port["name"]: port["containerPort"] for port in only["ports"]}
        self.ports = {name: local[port] for name, port in named.items() if port in local}

    def get(self, port, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def wait_for(self, probe):
        target = container(self.workload)[probe]["httpGet"]
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while (response := self.get(target["port"], target["path"]))[0] != 200:
            running = self.process.poll() is None and time.monotonic() < deadline
            assert running, f"{self.name}: {response}\n{self.log.read_text()}"
            time.sleep(0.1)

    def metrics(self):
        status, text = self.get("http", "/metrics")
        assert status == 200, text
        return set(re.findall(r"^(\w+)(?:\{| )", text, re.MULTILINE))

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(EXIT_TIMEOUT) == 0, self.log.read_text()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def cluster(spool, tmp_path_factory):
    """Starts the pods of the value set `monitoring` as processes with a SQLite file; yields them by role."""
    folder = tmp_path_factory.mktemp("cluster")
    objects = RENDERED["monitoring"]
    scheduler_address, _ = flags(objects.role("executor"))[1]["--scheduler"].split(":")
    scheduler = free_port()
    ports = [("0.0.0.0", 50050, scheduler), (scheduler_address, 50050, scheduler)]
    ports += [("0.0.0.0", 8080, free_port())]
    node = Node(spool, folder)
    secrets = {"SPOOL_TOKEN": TOKEN, "SPOOL_DATABASE": f"{node.path}/jobs.db"}
    with contextlib.ExitStack() as stack:
        pods = {}
        for role in ("scheduler", "executor", "api"):
            own = [*ports, ("0.0.0.0", 9090, free_port())]
            pods[role] = Pod(node, objects.role(role), secrets, own)
            stack.callback(pods[role].kill)
        for pod in pods.values():
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                pod.wait_for(probe)
        yield pods


def test_pods_answer_probes_and_prometheus(cluster):
    for pod in cluster.values():
        assert pod.process.poll() is None and pod.metrics()


def test_alerts_use_metrics_that_exist(cluster):
    [rule] = RENDERED["monitoring"].of("PrometheusRule")
    used = {}

    def collect(expression):
        if isinstance(expression, promql_parser.VectorSelector):
            [job] = [m.value for m in expression.matchers.matchers if m.name == "job"]
            used.setdefault(job, set()).add(expression.name)
        return True

    for alert in rule["spec"]["groups"][0]["rules"]:
        promql_parser.walk(promql_parser.parse(alert["expr"]), collect)
    assert used.keys() == {"demo-spool-scheduler", f"{NAMESPACE}/demo-spool-executor"}
    for job, names in used.items():
        assert names <= cluster[job.rpartition("-")[2]].metrics()


def string_field(number, text):
    """Encodes a string field of a protocol buffers message."""
    data = text.encode()
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def call_scaler(cluster, method, metadata):
    """Returns the scheduler's encoded response to KEDA for a scaled object's metadata (field 3, a map)."""
    port = cluster["scheduler"].ports["scheduler"]
    # KEDA sends the value of a variable of the executors.
    metadata = {**metadata, "tokenFromEnv": TOKEN if metadata["tokenFromEnv"] == "SPOOL_TOKEN" else "another"}
    entries = [string_field(1, key) + string_field(2, value) for key, value in metadata.items()]
    message = b"".join(bytes([3 << 3 | 2, len(entry)]) + entry for entry in entries)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return channel.unary_unary(f"/externalscaler.ExternalScaler/{method}")(message, timeout=10)


def test_the_scheduler_answers_keda_by_the_scaled_objects_metadata(cluster):
    [scaled] = RENDERED["keda"].of("ScaledObject")
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["type"] == "external-push"
    # The response holds the metric's name, and the rows per executor as its target size (field 2).
    response = call_scaler(cluster, "GetMetricSpec", trigger["metadata"])
    assert b"rows" in response and bytes([2 << 3, int(trigger["metadata"]["rowsPerExecutor"])]) in response
    with pytest.raises(grpc.RpcError) as refused:
        call_scaler(cluster, "GetMetricSpec", {**trigger["metadata"], "rowsPerExecutor": "none"})
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as refused:
        call_scaler(cluster, "IsActive", {**trigger["metadata"], "tokenFromEnv": "PATH"})
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert call_scaler(cluster, "IsActive", trigger["metadata"]) == b"", "no row waits"


def test_pods_exit_on_sigterm(cluster):
    """Runs last of the tests that use the cluster. No row runs, so draining takes no time."""
    for role in ("executor", "api", "scheduler"):
        cluster[role].terminate()


def test_the_all_in_one_pod_answers_its_probes(spool, tmp_path):
    workload = RENDERED["sqlite"].role("all-in-one")
    pod = Pod(Node(spool, tmp_path), workload, {}, [("0.0.0.0", 8080, free_port())])
    try:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            pod.wait_for(probe)
        assert (tmp_path / pod.name / "data/jobs.db").exists()
        pod.terminate()
    finally:
        pod.kill()


def test_the_ffmpeg_sandbox_works_without_privileges(spool, tmp_path):
    workload = RENDERED["minimal"].role("executor")
    pod = Pod(Node(spool, tmp_path), workload, {"SPOOL_TOKEN": "any"}, [], ["doctor"])
    code, log = pod.process.wait(ANSWER_TIMEOUT), pod.log.read_text()
    assert code == 0 and "ok    sandbox" in log, log
