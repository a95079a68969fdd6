"""Does the binary take what pods give it, and answer what probes, Prometheus, KEDA and alerts ask?"""

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

# How long a process may take to answer, and to end.
ANSWERS_WITHIN = 60
ENDS_WITHIN = 30


@pytest.mark.parametrize("workload", each_workload())
def test_flags_exist(workload, help_of):
    role, given = flags(workload)
    known = set(re.findall(r"^\s+(?:-\w, )?(--[a-z-]+)", help_of(role), re.MULTILINE))
    assert given and given.keys() <= known


@pytest.mark.parametrize("workload", each_workload())
def test_variables_exist(workload, help_of):
    role, _ = flags(workload)
    known = set(re.findall(r"\[env: (SPOOL_[A-Z_]+)", help_of(role)))
    given = {name for name in environment(workload) if name.startswith("SPOOL_")}
    assert given and given <= known


@pytest.mark.parametrize("workload", each_workload())
def test_flags_are_taken(workload, spool):
    """Help is shown only once what stands before it is in order: flags that exist, with values that they take."""
    arguments = container(workload)["args"]
    taken = subprocess.run([spool, *arguments, "--help"], capture_output=True, text=True)
    assert taken.returncode == 0, taken.stderr
    for wrong in ("--no-such-flag", "--log-format=none"):
        assert subprocess.run([spool, *arguments, wrong, "--help"], capture_output=True).returncode == 2


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# A root that is read-only but for a folder, and a user without any privilege; `exec` all the way, so that signals arrive.
CONFINED = """
mount --make-rprivate /
mount --bind "$1" /mnt
touch /mnt/spool
mount --bind "$2" /mnt/spool
mount --options remount,bind,ro /
exec setpriv --reuid "$3" --regid "$3" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all /mnt/spool "${@:4}"
"""


class Node:
    """Where pods run as processes: what they write lies in a folder, and they may do what their security context leaves them.

    Only root can take so much away; for others they run as who they are.
    """

    def __init__(self, spool, folder):
        self.spool, self.folder = spool, folder
        self.confines = os.geteuid() == 0
        self.path = "/mnt" if self.confines else str(folder)

    def start(self, workload, arguments, variables, log):
        # What is not mounted cannot be written.
        variables = {"PATH": os.environ["PATH"], "TMPDIR": "/nowhere", **variables}
        command = [self.spool, *arguments]
        if self.confines:
            user = str(template(workload)["spec"]["securityContext"]["runAsUser"])
            subprocess.run(["chown", "--recursive", f"{user}:{user}", self.folder], check=True)
            command = ["unshare", "--mount", "bash", "-ec", CONFINED, "confined", self.folder, self.spool, user, *arguments]
        return subprocess.Popen(command, env=variables, cwd="/", stdout=log, stderr=log)


class Pod:
    """A pod's command as a process of a node, with its ports on loopback and nothing in its environment but its own."""

    def __init__(self, node, workload, secrets, ports, arguments=None):
        self.workload, self.name = workload, workload["metadata"]["name"]
        only = container(workload)
        mounts = [mount["mountPath"] for mount in only.get("volumeMounts", [])]
        for path in mounts:
            (node.folder / self.name / path.lstrip("/")).mkdir(parents=True, exist_ok=True)

        def here(text):
            for host, port, there in ports:
                text = text.replace(f"{host}:{port}", f"127.0.0.1:{there}")
            for path in mounts:
                text = re.sub(rf"(^|=){path}(?=/|$)", rf"\g<1>{node.path}/{self.name}{path}", text)
            return text

        variables = {
            name: here(entry["value"]) if "value" in entry else secrets[name] for name, entry in environment(workload).items()
        }
        self.log = node.folder / f"{self.name}.log"
        with self.log.open("w") as log:
            self.process = node.start(workload, arguments or list(map(here, only["args"])), variables, log)
        local = {port: there for _, port, there in ports}
        self.ports = {port["name"]: local[port["containerPort"]] for port in only["ports"] if port["containerPort"] in local}

    def ask(self, port, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()
        except OSError as away:
            return 0, str(away)

    def wait_for(self, probe):
        asked = container(self.workload)[probe]["httpGet"]
        deadline = time.monotonic() + ANSWERS_WITHIN
        while (answer := self.ask(asked["port"], asked["path"]))[0] != 200:
            assert self.process.poll() is None and time.monotonic() < deadline, f"{self.name}: {answer}\n{self.log.read_text()}"
            time.sleep(0.1)

    def metrics(self):
        [port] = self.ports
        status, text = self.ask(port, "/metrics")
        assert status == 200, text
        return set(re.findall(r"^(\w+)(?:\{| )", text, re.MULTILINE))

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(ENDS_WITHIN) == 0, self.log.read_text()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def cluster(spool, tmp_path_factory):
    """Pods of the set `monitoring` as processes, with a file in the database's place, by role."""
    folder = tmp_path_factory.mktemp("cluster")
    objects = RENDERED["monitoring"]
    scheduler_address, _ = flags(objects.role("executor"))[1]["--scheduler"].split(":")
    scheduler = free_port()
    ports = [("0.0.0.0", 50050, scheduler), (scheduler_address, 50050, scheduler)]
    ports += [("0.0.0.0", 9090, free_port()), ("0.0.0.0", 8080, free_port())]
    node = Node(spool, folder)
    secrets = {"SPOOL_TOKEN": "shown-by-executors", "SPOOL_DATABASE": f"{node.path}/jobs.db"}
    with contextlib.ExitStack() as stack:
        pods = {}
        for role in ("scheduler", "executor", "api"):
            pods[role] = Pod(node, objects.role(role), secrets, ports)
            stack.callback(pods[role].kill)
        for pod in pods.values():
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                pod.wait_for(probe)
        yield pods


def test_pods_answer_their_probes_and_prometheus(cluster):
    for pod in cluster.values():
        assert pod.process.poll() is None and pod.metrics()


def test_alerts_ask_for_metrics_that_there_are(cluster):
    [rule] = RENDERED["monitoring"].of("PrometheusRule")
    asked = {}

    def note(expression):
        if isinstance(expression, promql_parser.VectorSelector):
            [job] = [m.value for m in expression.matchers.matchers if m.name == "job"]
            asked.setdefault(job, set()).add(expression.name)
        return True

    for alert in rule["spec"]["groups"][0]["rules"]:
        promql_parser.walk(promql_parser.parse(alert["expr"]), note)
    assert asked.keys() == {"demo-spool-scheduler", f"{NAMESPACE}/demo-spool-executor"}
    for job, names in asked.items():
        assert names <= cluster[job.rpartition("-")[2]].metrics()


def text_field(number, text):
    """A field of text in a message of protocol buffers."""
    data = text.encode()
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def ask_scaler(cluster, method, metadata):
    """What the scheduler answers to KEDA about a scaled object with this metadata (field 3, a map), in bytes."""
    [port] = cluster["scheduler"].ports.values()
    entries = [text_field(1, key) + text_field(2, value) for key, value in metadata.items()]
    message = b"".join(bytes([3 << 3 | 2, len(entry)]) + entry for entry in entries)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return channel.unary_unary(f"/externalscaler.ExternalScaler/{method}")(message, timeout=10)


def test_keda_is_answered_by_the_metadata_that_it_is_given(cluster):
    [scaled] = RENDERED["keda"].of("ScaledObject")
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["type"] == "external-push"
    # The metric's name, and a target size (field 2) of as many rows.
    answer = ask_scaler(cluster, "GetMetricSpec", trigger["metadata"])
    assert b"rows" in answer and bytes([2 << 3, int(trigger["metadata"]["rowsPerExecutor"])]) in answer
    with pytest.raises(grpc.RpcError) as refused:
        ask_scaler(cluster, "GetMetricSpec", {**trigger["metadata"], "rowsPerExecutor": "none"})
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert ask_scaler(cluster, "IsActive", trigger["metadata"]) == b"", "there is nothing to do"


def test_pods_end_when_they_are_told_to(cluster):
    """The last of these tests: whoever drains has nothing in hand here."""
    for role in ("executor", "api", "scheduler"):
        cluster[role].end()


def test_the_one_pod_of_sqlite_answers_its_probes(spool, tmp_path):
    pod = Pod(Node(spool, tmp_path), RENDERED["sqlite"].role("all-in-one"), {}, [("0.0.0.0", 8080, free_port())])
    try:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            pod.wait_for(probe)
        assert (tmp_path / pod.name / "data/jobs.db").exists()
        pod.end()
    finally:
        pod.kill()


def test_ffmpegs_sandbox_needs_no_privilege(spool, tmp_path):
    pod = Pod(Node(spool, tmp_path), RENDERED["minimal"].role("executor"), {"SPOOL_TOKEN": "any"}, [], ["doctor"])
    assert pod.process.wait(ANSWERS_WITHIN) == 0 and "ok    sandbox" in pod.log.read_text(), pod.log.read_text()
