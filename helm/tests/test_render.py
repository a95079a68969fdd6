"""Helm renders the chart, and the objects match the schemas of Kubernetes."""

import re

import helm_python
import kubernetes_validate
import promql_parser
import pytest
import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus

from conftest import CHART, RENDERED, VALUES, render, texts

# The oldest version that Chart.yaml allows, one in between, and the newest whose schema is installed.
VERSIONS = ["1.30", "1.34", "1.37"]

CUSTOM = {
    "ScaledObject": keda.ScaledObject,
    "TriggerAuthentication": keda.TriggerAuthentication,
    "ServiceMonitor": prometheus.ServiceMonitor,
    "PodMonitor": prometheus.PodMonitor,
    "PrometheusRule": prometheus.PrometheusRule,
}


def test_the_value_sets_render_every_kind():
    kinds = {obj["kind"] for objects in RENDERED.values() for obj in objects}
    assert len(VALUES) >= 8
    assert kinds == CUSTOM.keys() | {
        "Certificate",
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
def test_helm_lint_reports_no_problem(name):
    report = helm_python.lint(CHART, VALUES[name], strict=True, kube_version="v1.30.0")
    # Severity 1 is informational: the chart has no icon.
    assert report["errors"] == [] and [m for m in report["messages"] if m["severity"] > 1] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RENDERED)
def test_objects_match_the_kubernetes_schema(name, version):
    for obj in RENDERED[name]:
        # No package here has the schema of cert-manager's resources.
        if obj["kind"] not in CUSTOM and obj["kind"] != "Certificate":
            assert kubernetes_validate.validate(obj, version, strict=True) == version


def test_the_kubernetes_schema_refuses_an_unknown_field():
    deployment = render(VALUES["minimal"]).one("Deployment", "demo-spool-api")
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(deployment, "1.34", strict=True)


def validate_custom(obj):
    """Raises if a custom resource does not match its definition.

    Parsing drops unknown fields, so an unknown field makes the parsed object differ from the original.
    """
    parsed = CUSTOM[obj["kind"]].model_validate(obj)
    kept = parsed.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert kept["spec"] == obj["spec"]


@pytest.mark.parametrize("name", RENDERED)
def test_custom_resources_match_their_definitions(name):
    for obj in RENDERED[name].of(*CUSTOM):
        validate_custom(obj)


def test_custom_definitions_refuse_wrong_fields():
    scaled = render(VALUES["keda"]).one("ScaledObject", "demo-spool-executor")
    validate_custom(scaled)
    for change in ({"minReplicas": 1}, {"minReplicaCount": "many"}, {"triggers": None}):
        with pytest.raises((AssertionError, ValueError)):
            validate_custom({**scaled, "spec": {**scaled["spec"], **change}})


def test_names_are_unique_and_in_the_namespace(objects):
    names = [(obj["kind"], obj["metadata"]["name"]) for obj in objects]
    assert len(names) == len(set(names))
    assert {obj["metadata"]["namespace"] for obj in objects} == {"video"}
    assert all(len(name) <= 63 for _, name in names)


def test_a_long_release_name_keeps_names_within_63_characters():
    chart = helm_python.Chart.load(CHART)
    for name, text in chart.render(VALUES["monitoring"], name="r" * 53, namespace="video").items():
        for obj in yaml.safe_load_all(text) if name.endswith(".yaml") else []:
            assert not obj or len(obj["metadata"]["name"]) <= 63


def test_a_digest_takes_precedence_over_the_tag():
    def image(**given):
        values = {**VALUES["minimal"], "image": {"repository": "registry.example/spool", **given}}
        return render(values).role("api")["spec"]["template"]["spec"]["containers"][0]["image"]

    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    digest = "sha256:" + "ab" * 32
    assert image() == f"registry.example/spool:{version}"
    assert image(tag="edge") == "registry.example/spool:edge"
    assert image(tag="edge", digest=digest) == f"registry.example/spool@{digest}"


def test_the_app_version_is_the_workspace_version():
    manifest = (CHART.parent / "Cargo.toml").read_text()
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert f'\nversion = "{version}"\n' in manifest


def test_alert_expressions_parse_as_promql(objects):
    for rule in objects.of("PrometheusRule"):
        for group in rule["spec"]["groups"]:
            for alert in group["rules"]:
                promql_parser.parse(alert["expr"])


def test_the_notes_show_the_first_commands():
    def notes(name):
        return next(text for template, text in texts(VALUES[name]).items() if template.endswith("NOTES.txt"))

    assert re.search(r"exec deploy/demo-spool-api -- \\\n +spool keys create", notes("minimal"))
    assert "port-forward svc/demo-spool-api 8080:80" in notes("minimal")
    assert "exec statefulset/demo-spool -- " in notes("sqlite") and "spool keys create" in notes("sqlite")
    assert "SPOOL_SERVER=https://video.example.org" in notes("ingress")
    assert "port-forward" not in notes("ingress")
    assert "logs deploy/demo-spool-scheduler" in notes("second-scheduler")
    assert "keys create" not in notes("second-scheduler")
    assert "exec deploy/transcoder-scheduler -- spool doctor" in notes("aws-role")


def test_the_packaged_chart_contains_no_tests():
    names = [file["name"] for file in helm_python.Chart.load(CHART).files]
    assert "README.md" in names and not [name for name in names if name.startswith("tests/")]
