"""Fixtures: the chart, its value sets, and the objects that Helm renders from them."""

import copy
import os
import pathlib
import subprocess

import helm_python
import pytest
import yaml

CHART = pathlib.Path(__file__).parent.parent
VALUES = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHART / "tests/values").glob("*.yaml"))
}
RELEASE, NAMESPACE = "demo", "video"

_chart = helm_python.Chart.load(CHART)


def merged(values, changes):
    """Returns a copy of values with changes merged in."""
    result = copy.deepcopy(values)
    for key, change in changes.items():
        inner = result.get(key)
        result[key] = (
            merged(inner, change) if isinstance(change, dict) and isinstance(inner, dict) else change
        )
    return result


def texts(values):
    """Returns the rendered texts by template name."""
    return _chart.render(values, name=RELEASE, namespace=NAMESPACE, is_install=True)


class Objects(list):
    """Rendered Kubernetes objects."""

    def of(self, *kinds):
        return [obj for obj in self if obj["kind"] in kinds]

    def one(self, kind, name):
        found = [obj for obj in self.of(kind) if obj["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} of {kind} {name}"
        return found[0]

    def workloads(self):
        return self.of("Deployment", "StatefulSet")

    def role(self, component):
        """Returns the workload of a role, or None."""
        label = "app.kubernetes.io/component"
        return next((w for w in self.workloads() if w["metadata"]["labels"][label] == component), None)


def render(values):
    found = Objects()
    for name, text in texts(values).items():
        if name.endswith((".yaml", ".yml")):
            found += [obj for obj in yaml.safe_load_all(text) if obj]
    return found


RENDERED = {name: render(values) for name, values in VALUES.items()}


def template(workload):
    """Returns a workload's pod template."""
    return workload["spec"]["template"]


def container(workload):
    """Returns the only container of a workload's pods."""
    [only] = template(workload)["spec"]["containers"]
    return only


def environment(workload):
    return {entry["name"]: entry for entry in container(workload).get("env", [])}


def flags(workload):
    """Returns the role of a workload, and its flags."""
    role, *rest = container(workload)["args"]
    assert all(argument.startswith("--") and "=" in argument for argument in rest), rest
    return role, dict(argument.split("=", 1) for argument in rest)


def each_workload():
    """Returns every workload of every value set, as pytest parameters."""
    return [
        pytest.param(workload, id=f"{name}-{workload['metadata']['name']}")
        for name, objects in RENDERED.items()
        for workload in objects.workloads()
    ]


@pytest.fixture(params=RENDERED)
def objects(request):
    return RENDERED[request.param]


@pytest.fixture(scope="session")
def spool():
    """Returns the path of the binary that the image would contain."""
    path = os.environ.get("SPOOL")
    assert path, "SPOOL must name the spool binary"
    return str(pathlib.Path(path).resolve())


@pytest.fixture(scope="session")
def help_of(spool):
    """Returns a function that returns a role's help text."""
    known = {}

    def text(role):
        if role not in known:
            done = subprocess.run([spool, role, "--help"], capture_output=True, text=True, check=True)
            known[role] = done.stdout
        return known[role]

    return text
