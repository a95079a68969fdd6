"""The chart, its value sets, and what Helm makes of them."""

import copy
import os
import pathlib
import subprocess

import helm_python
import pytest
import yaml

CHART = pathlib.Path(__file__).parent.parent
VALUES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHART / "tests/values").glob("*.yaml"))}
RELEASE, NAMESPACE = "demo", "video"

_chart = helm_python.Chart.load(CHART)


def merged(values, changes):
    """A copy of values with changes laid over."""
    result = copy.deepcopy(values)
    for key, change in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, change) if isinstance(change, dict) and isinstance(inner, dict) else change
    return result


def texts(values):
    """What Helm renders, by the template's name."""
    return _chart.render(values, name=RELEASE, namespace=NAMESPACE, is_install=True)


class Objects(list):
    """Rendered objects."""

    def of(self, *kinds):
        return [thing for thing in self if thing["kind"] in kinds]

    def one(self, kind, name):
        found = [thing for thing in self.of(kind) if thing["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} of {kind} {name}"
        return found[0]

    def workloads(self):
        return self.of("Deployment", "StatefulSet")

    def role(self, component):
        """The workload of a role, or nothing."""
        labels = "app.kubernetes.io/component"
        return next((thing for thing in self.workloads() if thing["metadata"]["labels"][labels] == component), None)


def render(values):
    found = Objects()
    for name, text in texts(values).items():
        if name.endswith((".yaml", ".yml")):
            found += [thing for thing in yaml.safe_load_all(text) if thing]
    return found


RENDERED = {name: render(values) for name, values in VALUES.items()}


def template(workload):
    """A workload's template of pods."""
    return workload["spec"]["template"]


def container(workload):
    """The only container of a workload's pods."""
    [only] = template(workload)["spec"]["containers"]
    return only


def environment(workload):
    return {entry["name"]: entry for entry in container(workload).get("env", [])}


def flags(workload):
    """The role of a workload, and its flags."""
    role, *rest = container(workload)["args"]
    assert all(argument.startswith("--") and "=" in argument for argument in rest), rest
    return role, dict(argument.split("=", 1) for argument in rest)


def each_workload():
    """Every workload of every set, to parametrize by."""
    named = {f"{name}-{thing['metadata']['name']}": thing for name, objects in RENDERED.items() for thing in objects.workloads()}
    return [pytest.param(workload, id=name) for name, workload in named.items()]


@pytest.fixture(params=RENDERED)
def objects(request):
    return RENDERED[request.param]


@pytest.fixture(scope="session")
def spool():
    """The path of the binary that the image will hold."""
    path = os.environ.get("SPOOL")
    assert path, "SPOOL has to name the spool binary"
    return str(pathlib.Path(path).resolve())


@pytest.fixture(scope="session")
def help_of(spool):
    """What a role says of its flags."""
    known = {}

    def text(role):
        if role not in known:
            known[role] = subprocess.run([spool, role, "--help"], capture_output=True, text=True, check=True).stdout
        return known[role]

    return text
