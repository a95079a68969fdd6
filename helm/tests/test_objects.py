"""Properties of the rendered objects that hold for every value set."""

import base64
import shutil

import helm_python
import pytest
import yaml

from conftest import (
    CHART,
    NAMESPACE,
    RELEASE,
    RENDERED,
    VALUES,
    Objects,
    container,
    each_workload,
    environment,
    flags,
    merged,
)
from conftest import render, template

# Seconds that an executor's exit takes besides its rows: 0.5 to deregister, 5 for tasks, 5 for FFmpeg, 2 for
# scratch space.
EXIT_SECONDS = 12.5
# Seconds that open requests get when an API pod exits.
API_EXIT_SECONDS = 10
# Seconds that a scheduler gets to release its leases.
SCHEDULER_EXIT_SECONDS = 30


def selects(selector, labels):
    return bool(selector) and selector.items() <= labels.items()


def pods(objects, selector):
    """Returns the workloads whose pods a selector matches."""
    return [w for w in objects.workloads() if selects(selector, template(w)["metadata"]["labels"])]


def mebibytes(quantity):
    for unit, factor in {"Mi": 1, "Gi": 1024, "Ti": 1024**2}.items():
        if quantity.endswith(unit):
            return float(quantity.removesuffix(unit)) * factor
    raise AssertionError(f"{quantity} has an unknown unit")


# Timeouts


@pytest.mark.parametrize("name", [name for name, objects in RENDERED.items() if objects.role("executor")])
def test_an_executor_can_finish_the_longest_row(name):
    with helm_python.Chart.load(CHART) as chart:
        rows = chart.merge_values(VALUES[name])["rows"]
    executor = RENDERED[name].role("executor")
    killed_after = template(executor)["spec"]["terminationGracePeriodSeconds"]
    _, given = flags(executor)
    drain = int(given["--drain-timeout"])
    assert rows["limitSeconds"] <= drain < killed_after
    assert killed_after >= drain + rows["marginSeconds"] and rows["marginSeconds"] > EXIT_SECONDS


def test_other_roles_have_time_to_exit(objects):
    if api := objects.role("api"):
        pause = container(api)["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pause > 0
        assert template(api)["spec"]["terminationGracePeriodSeconds"] > pause + API_EXIT_SECONDS
    for role in ("scheduler", "all-in-one"):
        if workload := objects.role(role):
            assert template(workload)["spec"]["terminationGracePeriodSeconds"] > SCHEDULER_EXIT_SECONDS


@pytest.mark.parametrize("workload", each_workload())
def test_spool_receives_signals_directly(workload):
    assert container(workload)["command"] == ["spool"]


def test_an_upgrade_keeps_the_api_available_and_starts_no_second_scheduler(objects):
    if api := objects.role("api"):
        strategy = api["spec"]["strategy"]
        assert strategy["type"] == "RollingUpdate"
        assert strategy["rollingUpdate"]["maxUnavailable"] == 0 and strategy["rollingUpdate"]["maxSurge"] >= 1
    if scheduler := objects.role("scheduler"):
        assert scheduler["spec"]["strategy"] == {"type": "Recreate"} and scheduler["spec"]["replicas"] == 1
    if one := objects.role("all-in-one"):
        assert one["kind"] == "StatefulSet" and one["spec"]["replicas"] == 1


# References between objects


@pytest.mark.parametrize("workload", each_workload())
def test_probes_use_ports_that_exist(workload):
    ports = {port["name"]: port["containerPort"] for port in container(workload)["ports"]}
    _, given = flags(workload)
    listens = given.get("--http") or given["--listen"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        target = container(workload)[probe]["httpGet"]
        assert ports[target["port"]] == int(listens.rpartition(":")[2])
        assert target["path"] == ("/readyz" if probe == "readinessProbe" else "/livez")


def test_selectors_match_only_their_own_pods(objects):
    for workload in objects.workloads():
        assert pods(objects, workload["spec"]["selector"]["matchLabels"]) == [workload]


def test_services_select_pods_that_have_the_port(objects):
    roles = [role for role in ("scheduler", "api", "all-in-one") if objects.role(role)]
    assert len(objects.of("Service")) == len(roles)
    for service in objects.of("Service"):
        [workload] = pods(objects, service["spec"]["selector"])
        names = {port["name"] for port in container(workload)["ports"]}
        assert all(port["targetPort"] in names for port in service["spec"]["ports"])


def test_disruption_budgets_select_pods(objects):
    budgets = objects.of("PodDisruptionBudget")
    found = [pods(objects, budget["spec"]["selector"]["matchLabels"]) for budget in budgets]
    assert all(len(workloads) == 1 for workloads in found)
    named = [workloads[0]["metadata"]["name"] for workloads in found]
    assert [budget["metadata"]["name"] for budget in budgets] == named
    # A budget for the scheduler's only pod would block draining its node, so it is off by default.
    expected = {role for role in ("executor", "api") if objects.role(role)}
    label = "app.kubernetes.io/component"
    assert expected <= {workloads[0]["metadata"]["labels"][label] for workloads in found}


def test_monitors_use_ports_that_exist(objects):
    for monitor in objects.of("ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        [service] = [s for s in objects.of("Service") if selects(selector, s["metadata"]["labels"])]
        assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    for monitor in objects.of("PodMonitor"):
        [workload] = pods(objects, monitor["spec"]["selector"]["matchLabels"])
        names = [port["name"] for port in container(workload)["ports"]]
        assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in names


def test_alerts_select_the_jobs_of_the_monitors():
    objects = RENDERED["monitoring"]
    [rule] = objects.of("PrometheusRule")
    jobs = {monitor["metadata"]["name"] for monitor in objects.of("ServiceMonitor")} & {
        service["metadata"]["name"] for service in objects.of("Service")
    }
    jobs |= {f"{NAMESPACE}/{monitor['metadata']['name']}" for monitor in objects.of("PodMonitor")}
    for alert in rule["spec"]["groups"][0]["rules"]:
        named = [part.split('"')[0] for part in alert["expr"].split('job="')[1:]]
        assert named and set(named) <= jobs


def test_the_ingress_routes_to_a_service(objects):
    for ingress in objects.of("Ingress"):
        [rule] = ingress["spec"]["rules"]
        backend = rule["http"]["paths"][0]["backend"]["service"]
        service = objects.one("Service", backend["name"])
        assert backend["port"]["name"] in [port["name"] for port in service["spec"]["ports"]]
        assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] == "0"


def test_executors_connect_to_the_schedulers_service(objects):
    if executor := objects.role("executor"):
        host, port = flags(executor)[1]["--scheduler"].split(":")
        name, namespace, _ = host.split(".")
        service = objects.one("Service", name)
        assert namespace == service["metadata"]["namespace"]
        assert int(port) in [p["port"] for p in service["spec"]["ports"]]
        assert pods(objects, service["spec"]["selector"]) == [objects.role("scheduler")]
        for scaled in objects.of("ScaledObject"):
            assert scaled["spec"]["triggers"][0]["metadata"]["scalerAddress"] == f"{host}:{port}"


# Scaling


def test_autoscaled_workloads_exist_and_set_no_replicas(objects):
    scalers = objects.of("HorizontalPodAutoscaler", "ScaledObject")
    targets = [scaler["spec"]["scaleTargetRef"] for scaler in scalers]
    scaled = [objects.one(target["kind"], target["name"]) for target in targets]
    names = {workload["metadata"]["name"] for workload in scaled}
    assert len(names) == len(scaled), "a workload has two autoscalers"
    for workload in objects.workloads():
        assert ("replicas" in workload["spec"]) == (workload not in scaled)
    assert all(target["apiVersion"] == workload["apiVersion"] for target, workload in zip(targets, scaled))
    for hpa in objects.of("HorizontalPodAutoscaler"):
        [workload] = [w for w in scaled if w["metadata"]["name"] == hpa["spec"]["scaleTargetRef"]["name"]]
        assert container(workload)["resources"]["requests"]["cpu"], "CPU utilization needs a CPU request"


def test_the_value_sets_cover_every_autoscaler():
    scaled = {
        (obj["kind"], obj["metadata"]["name"])
        for objects in RENDERED.values()
        for obj in objects.of("HorizontalPodAutoscaler", "ScaledObject")
    }
    assert scaled == {
        ("HorizontalPodAutoscaler", "demo-spool-executor"),
        ("HorizontalPodAutoscaler", "demo-spool-api"),
        ("ScaledObject", "demo-spool-executor"),
    }


def test_keda_gets_the_rows_per_executor():
    def rows(name):
        [scaled] = RENDERED[name].of("ScaledObject")
        return scaled["spec"]["triggers"][0]["metadata"]["rowsPerExecutor"]

    assert (rows("keda"), flags(RENDERED["keda"].role("executor"))[1]["--slots"]) == ("8", "8")
    assert rows("restricted") == "4"


# Storage and secrets


@pytest.mark.parametrize("workload", each_workload())
def test_writes_go_to_scratch_space_of_limited_size(workload):
    spec, only = template(workload)["spec"], container(workload)
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in only.get("volumeMounts", [])}
    assert len(mounts) == len(volumes)
    limits, requests = only["resources"]["limits"], only["resources"]["requests"]
    assert limits["memory"] and requests["memory"] and requests["cpu"] and requests["ephemeral-storage"]
    if flags(workload)[0] == "api":
        assert mounts == {}
        return
    names = environment(workload)
    assert names["SPOOL_SCRATCH"]["value"] == names["TMPDIR"]["value"] == "/scratch"
    size = mebibytes(mounts["/scratch"]["emptyDir"]["sizeLimit"])
    assert size < mebibytes(requests["ephemeral-storage"]) <= mebibytes(limits["ephemeral-storage"])


@pytest.mark.parametrize("workload", each_workload())
def test_paths_are_on_volumes(workload):
    mounts = tuple(mount["mountPath"] + "/" for mount in container(workload).get("volumeMounts", []))
    values = [
        *flags(workload)[1].values(),
        *(entry.get("value", "") for entry in environment(workload).values()),
    ]
    ours = [value for value in values if value.startswith("/") and not value.startswith("/var/run/secrets/")]
    assert all((path + "/").startswith(mounts) for path in ours), ours


def test_the_volume_survives_an_uninstall():
    claim = RENDERED["sqlite"].one("PersistentVolumeClaim", "demo-spool-data")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    for name, expected in (("sqlite", "demo-spool-data"), ("sqlite-bucket", "spool-jobs")):
        volumes = template(RENDERED[name].role("all-in-one"))["spec"]["volumes"]
        [data] = [volume for volume in volumes if volume["name"] == "data"]
        assert data["persistentVolumeClaim"]["claimName"] == expected
    assert not RENDERED["sqlite-bucket"].of("PersistentVolumeClaim")


@pytest.mark.parametrize("name", RENDERED)
def test_secrets_exist_and_their_values_are_nowhere_else(name):
    objects = RENDERED[name]
    secrets = {secret["metadata"]["name"]: secret["data"] for secret in objects.of("Secret")}
    given = VALUES[name]
    for workload in objects.workloads():
        for entry in environment(workload).values():
            if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
                ours = reference["key"] in secrets.get(reference["name"], {})
                assert ours or reference["name"] in yaml.safe_dump(given), f"{reference} does not exist"
            else:
                assert not any(word in entry["name"] for word in ("TOKEN", "SECRET", "KEY_ID")), entry
    rest = yaml.safe_dump([obj for obj in objects if obj["kind"] != "Secret"])
    held = [base64.b64decode(value).decode() for data in secrets.values() for value in data.values()]
    assert not [value for value in held if value in rest and value != "spool"]
    if "not-to-be-seen" in yaml.safe_dump(given):
        assert [value for value in held if "not-to-be-seen" in value] and "not-to-be-seen" not in rest


def test_a_token_is_generated_by_default():
    def token():
        data = render(VALUES["minimal"]).one("Secret", "demo-spool-token")["data"]
        return base64.b64decode(data["token"]).decode()

    assert len(token()) >= 32 and token() != token()
    assert not RENDERED["second-scheduler"].of("Secret"), "this value set names a secret"
    given = RENDERED["monitoring"].one("Secret", "demo-spool-token")["data"]["token"]
    assert base64.b64decode(given).decode() == VALUES["monitoring"]["token"]["value"]


def test_each_role_gets_only_the_secrets_that_it_needs(objects):
    needed = {
        "scheduler": {"SPOOL_DATABASE", "SPOOL_TOKEN"},
        "executor": {"SPOOL_TOKEN"},
        "api": {"SPOOL_DATABASE"},
    }
    for role, expected in needed.items():
        if workload := objects.role(role):
            assert {"SPOOL_DATABASE", "SPOOL_TOKEN"} & environment(workload).keys() == expected


def test_buckets_are_configured_by_the_values():
    minio = environment(RENDERED["ha"].role("executor"))
    assert minio["AWS_ENDPOINT_URL"]["value"] == "http://minio.storage.svc:9000"
    reference = minio["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": "spool-bucket", "key": "AWS_SECRET_ACCESS_KEY"}
    assert "AWS_VIRTUAL_HOSTED_STYLE_REQUEST" not in minio
    by_host = environment(RENDERED["sqlite-bucket"].role("all-in-one"))
    assert by_host["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"]["value"] == "true"
    assert by_host["AWS_REGION"]["value"] == "us-east-1"
    role = RENDERED["aws-role"]
    assert "AWS_ACCESS_KEY_ID" not in environment(role.role("executor"))
    account = role.one("ServiceAccount", "transcoder")
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].endswith("role/spool")
    assert all(template(w)["spec"]["serviceAccountName"] == "transcoder" for w in role.workloads())


# Upgrades


def test_an_upgrade_changes_no_immutable_field(tmp_path):
    """Compares a release with a newer version of the chart and other values."""
    newer = tmp_path / "spool"
    shutil.copytree(CHART, newer, ignore=shutil.ignore_patterns("tests"))
    about = newer / "Chart.yaml"
    changed = {**yaml.safe_load(about.read_text()), "version": "99.0.0", "appVersion": "99.0.0"}
    about.write_text(yaml.safe_dump(changed))

    def rendered(chart, values):
        with helm_python.Chart.load(chart) as loaded:
            out = loaded.render(values, name=RELEASE, namespace=NAMESPACE, is_upgrade=True)
        documents = [yaml.safe_load_all(text) for name, text in out.items() if name.endswith(".yaml")]
        return Objects(obj for document in documents for obj in document if obj)

    grown = {"database": {"sqlite": {"size": "200Gi"}}, "executors": {"slots": 8}}
    for before, after in (
        ("minimal", VALUES["ha"]),
        ("minimal", VALUES["keda"]),
        ("ingress", VALUES["restricted"]),
        ("sqlite", merged(VALUES["sqlite"], grown)),
    ):
        old, new = rendered(CHART, VALUES[before]), rendered(newer, after)
        for workload in old.workloads():
            other = new.one(workload["kind"], workload["metadata"]["name"])
            assert other["spec"]["selector"] == workload["spec"]["selector"]
            assert container(other)["image"] != container(workload)["image"] or "tag" in after["image"]
            if workload["kind"] == "StatefulSet":
                changed = {key for key in other["spec"] if other["spec"][key] != workload["spec"].get(key)}
                assert changed <= {"replicas", "template"}, "Kubernetes allows only these to change"
        for claim in old.of("PersistentVolumeClaim"):
            other = new.one("PersistentVolumeClaim", claim["metadata"]["name"])
            assert {**other["spec"], "resources": None} == {**claim["spec"], "resources": None}


def test_adding_executors_restarts_no_pod():
    more = render(merged(VALUES["ha"], {"executors": {"replicas": 60}}))
    assert template(more.role("executor")) == template(RENDERED["ha"].role("executor"))


def test_a_new_password_restarts_pods():
    url = "postgres://spool:another@db.example/spool"
    other = render(merged(VALUES["monitoring"], {"database": {"postgres": {"url": url}}}))
    assert template(other.role("api")) != template(RENDERED["monitoring"].role("api"))
