"""Does Helm take the chart, and Kubernetes what comes of it?"""

import re

import helm_python
import kubernetes_validate
import promql_parser
import pytest
import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus

from conftest import CHART, RENDERED, VALUES, render, texts

# The oldest that Chart.yaml takes, one in between, and the newest that is known here.
VERSIONS = ["1.30", "1.34", "1.37"]

CUSTOM = {
    "ScaledObject": keda.ScaledObject,
    "ServiceMonitor": prometheus.ServiceMonitor,
    "PodMonitor": prometheus.PodMonitor,
    "PrometheusRule": prometheus.PrometheusRule,
}


def test_there_are_sets_of_values_for_what_the_chart_offers():
    kinds = {thing["kind"] for objects in RENDERED.values() for thing in objects}
    assert len(VALUES) >= 8
    assert kinds == CUSTOM.keys() | {
        "Deployment",
        "HorizontalPodAutoscaler",
        "Ingress",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Secret",
        "Service",
        "ServiceAccount",
        "StatefulSet",
    }


@pytest.mark.parametrize("name", VALUES)
def test_lint(name):
    report = helm_python.lint(CHART, VALUES[name], strict=True, kube_version="v1.30.0")
    # 1 is for information: that there is no icon.
    assert report["errors"] == [] and [m for m in report["messages"] if m["severity"] > 1] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RENDERED)
def test_schema(name, version):
    for thing in RENDERED[name]:
        if thing["kind"] not in CUSTOM:
            assert kubernetes_validate.validate(thing, version, strict=True) == version


def test_the_schema_tells_good_from_bad():
    deployment = render(VALUES["minimal"]).one("Deployment", "demo-spool-api")
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(deployment, "1.34", strict=True)


def check_custom(thing):
    """Raises where the object is not as its definition wants it. Unknown fields are dropped when it is read, so they show."""
    read = CUSTOM[thing["kind"]].model_validate(thing)
    left = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert left["spec"] == thing["spec"]


@pytest.mark.parametrize("name", RENDERED)
def test_custom_objects(name):
    for thing in RENDERED[name].of(*CUSTOM):
        check_custom(thing)


def test_custom_definitions_tell_good_from_bad():
    scaled = render(VALUES["keda"]).one("ScaledObject", "demo-spool-executor")
    check_custom(scaled)
    for change in ({"minReplicas": 1}, {"minReplicaCount": "many"}, {"triggers": None}):
        with pytest.raises((AssertionError, ValueError)):
            check_custom({**scaled, "spec": {**scaled["spec"], **change}})


def test_names_are_unique_and_lie_in_the_namespace(objects):
    names = [(thing["kind"], thing["metadata"]["name"]) for thing in objects]
    assert len(names) == len(set(names))
    assert {thing["metadata"]["namespace"] for thing in objects} == {"video"}
    assert all(len(name) <= 63 for _, name in names)


def test_a_long_release_name_stays_within_what_names_may_be():
    chart = helm_python.Chart.load(CHART)
    for name, text in chart.render(VALUES["monitoring"], name="r" * 53, namespace="video").items():
        for thing in yaml.safe_load_all(text) if name.endswith(".yaml") else []:
            assert not thing or len(thing["metadata"]["name"]) <= 63


def test_the_image():
    def image(**given):
        values = {**VALUES["minimal"], "image": {"repository": "registry.example/spool", **given}}
        return render(values).role("api")["spec"]["template"]["spec"]["containers"][0]["image"]

    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    digest = "sha256:" + "ab" * 32
    assert image() == f"registry.example/spool:{version}"
    assert image(tag="edge") == "registry.example/spool:edge"
    assert image(tag="edge", digest=digest) == f"registry.example/spool@{digest}"


def test_the_version_is_that_of_the_workspace():
    manifest = (CHART.parent / "Cargo.toml").read_text()
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert f'\nversion = "{version}"\n' in manifest


def test_rules_are_promql(objects):
    for rule in objects.of("PrometheusRule"):
        for group in rule["spec"]["groups"]:
            for alert in group["rules"]:
                promql_parser.parse(alert["expr"])


def test_notes_tell_what_to_do_first():
    def notes(name):
        return next(text for template, text in texts(VALUES[name]).items() if template.endswith("NOTES.txt"))

    assert re.search(r"exec deploy/demo-spool-api -- \\\n +spool keys create", notes("minimal"))
    assert "port-forward svc/demo-spool-api 8080:80" in notes("minimal")
    assert "exec statefulset/demo-spool -- " in notes("sqlite") and "spool keys create" in notes("sqlite")
    assert "SPOOL_SERVER=https://video.example.org" in notes("ingress") and "port-forward" not in notes("ingress")
    assert "logs deploy/demo-spool-scheduler" in notes("second-scheduler") and "keys create" not in notes("second-scheduler")
    assert "exec deploy/transcoder-scheduler -- spool doctor" in notes("aws-role")


def test_the_package_holds_no_tests():
    names = [file["name"] for file in helm_python.Chart.load(CHART).files]
    assert "README.md" in names and not [name for name in names if name.startswith("tests/")]
