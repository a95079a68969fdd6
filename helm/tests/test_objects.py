"""What has to hold of the rendered objects, whatever the values are."""

import base64
import shutil

import helm_python
import pytest
import yaml

from conftest import CHART, NAMESPACE, RELEASE, RENDERED, VALUES, Objects, container, each_workload, environment, flags, merged
from conftest import render, template

# What an executor takes to end besides its rows: 0.5 s for goodbye, 5 s for tasks, 5 s for FFmpeg, 2 s for scratch space.
ENDING_SECONDS = 12.5
# What a server takes to end: answers under way.
SERVER_ENDING_SECONDS = 10
# What a scheduler takes to give its jobs back.
SCHEDULER_ENDING_SECONDS = 30


def selects(selector, labels):
    return bool(selector) and selector.items() <= labels.items()


def pods(objects, selector):
    """The workloads whose pods a selector finds."""
    return [workload for workload in objects.workloads() if selects(selector, template(workload)["metadata"]["labels"])]


def mebibytes(quantity):
    for unit, factor in {"Mi": 1, "Gi": 1024, "Ti": 1024**2}.items():
        if quantity.endswith(unit):
            return float(quantity.removesuffix(unit)) * factor
    raise AssertionError(f"{quantity} is in no unit that is known here")


# Time


@pytest.mark.parametrize("name", [name for name, objects in RENDERED.items() if objects.role("executor")])
def test_an_executor_may_finish_the_longest_row(name):
    with helm_python.Chart.load(CHART) as chart:
        rows = chart.merge_values(VALUES[name])["rows"]
    executor = RENDERED[name].role("executor")
    killed_after = template(executor)["spec"]["terminationGracePeriodSeconds"]
    _, given = flags(executor)
    grace = int(given["--drain-timeout"])
    assert rows["limitSeconds"] <= grace < killed_after
    assert killed_after >= grace + rows["marginSeconds"] and rows["marginSeconds"] > ENDING_SECONDS


def test_others_have_the_time_that_they_take(objects):
    if server := objects.role("api"):
        pause = container(server)["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pause > 0
        assert template(server)["spec"]["terminationGracePeriodSeconds"] > pause + SERVER_ENDING_SECONDS
    for role in ("scheduler", "all-in-one"):
        if workload := objects.role(role):
            assert template(workload)["spec"]["terminationGracePeriodSeconds"] > SCHEDULER_ENDING_SECONDS


@pytest.mark.parametrize("workload", each_workload())
def test_the_signal_to_end_reaches_spool_itself(workload):
    assert container(workload)["command"] == ["spool"]


def test_an_upgrade_leaves_no_gap_and_makes_no_second_scheduler(objects):
    if server := objects.role("api"):
        strategy = server["spec"]["strategy"]
        assert strategy["type"] == "RollingUpdate"
        assert strategy["rollingUpdate"]["maxUnavailable"] == 0 and strategy["rollingUpdate"]["maxSurge"] >= 1
    if scheduler := objects.role("scheduler"):
        assert scheduler["spec"]["strategy"] == {"type": "Recreate"} and scheduler["spec"]["replicas"] == 1
    if one := objects.role("all-in-one"):
        assert one["kind"] == "StatefulSet" and one["spec"]["replicas"] == 1


# What finds what


@pytest.mark.parametrize("workload", each_workload())
def test_probes_ask_ports_that_are_there(workload):
    ports = {port["name"]: port["containerPort"] for port in container(workload)["ports"]}
    _, given = flags(workload)
    listens = given.get("--http") or given["--listen"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container(workload)[probe]["httpGet"]
        assert ports[asked["port"]] == int(listens.rpartition(":")[2])
        assert asked["path"] == ("/readyz" if probe == "readinessProbe" else "/livez")


def test_selectors_find_their_own_pods_and_no_others(objects):
    for workload in objects.workloads():
        assert pods(objects, workload["spec"]["selector"]["matchLabels"]) == [workload]


def test_services_find_pods_that_have_the_port(objects):
    assert len(objects.of("Service")) == sum(bool(objects.role(role)) for role in ("scheduler", "api", "all-in-one"))
    for service in objects.of("Service"):
        [workload] = pods(objects, service["spec"]["selector"])
        names = {port["name"] for port in container(workload)["ports"]}
        assert all(port["targetPort"] in names for port in service["spec"]["ports"])


def test_budgets_find_pods(objects):
    found = [pods(objects, budget["spec"]["selector"]["matchLabels"]) for budget in objects.of("PodDisruptionBudget")]
    assert all(len(workloads) == 1 for workloads in found)
    named = [workloads[0]["metadata"]["name"] for workloads in found]
    assert [budget["metadata"]["name"] for budget in objects.of("PodDisruptionBudget")] == named
    # Of one pod, a budget would hold up whoever drains its node, so there is one of it only where that was asked for.
    expected = {role for role in ("executor", "api") if objects.role(role)}
    assert expected <= {workloads[0]["metadata"]["labels"]["app.kubernetes.io/component"] for workloads in found}


def test_monitors_find_ports(objects):
    for monitor in objects.of("ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        [service] = [service for service in objects.of("Service") if selects(selector, service["metadata"]["labels"])]
        assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    for monitor in objects.of("PodMonitor"):
        [workload] = pods(objects, monitor["spec"]["selector"]["matchLabels"])
        assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in [port["name"] for port in container(workload)["ports"]]


def test_alerts_look_where_monitors_put_things():
    objects = RENDERED["monitoring"]
    [rule] = objects.of("PrometheusRule")
    jobs = {monitor["metadata"]["name"] for monitor in objects.of("ServiceMonitor")} & {
        service["metadata"]["name"] for service in objects.of("Service")
    }
    jobs |= {f"{NAMESPACE}/{monitor['metadata']['name']}" for monitor in objects.of("PodMonitor")}
    for alert in rule["spec"]["groups"][0]["rules"]:
        named = [part.split('"')[0] for part in alert["expr"].split('job="')[1:]]
        assert named and set(named) <= jobs


def test_the_ingress_leads_to_a_service(objects):
    for ingress in objects.of("Ingress"):
        [rule] = ingress["spec"]["rules"]
        backend = rule["http"]["paths"][0]["backend"]["service"]
        service = objects.one("Service", backend["name"])
        assert backend["port"]["name"] in [port["name"] for port in service["spec"]["ports"]]
        assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] == "0"


def test_executors_dial_the_service_of_the_scheduler(objects):
    if executor := objects.role("executor"):
        host, port = flags(executor)[1]["--scheduler"].split(":")
        name, namespace, _ = host.split(".")
        service = objects.one("Service", name)
        assert namespace == service["metadata"]["namespace"] and int(port) in [p["port"] for p in service["spec"]["ports"]]
        assert pods(objects, service["spec"]["selector"]) == [objects.role("scheduler")]
        for scaled in objects.of("ScaledObject"):
            assert scaled["spec"]["triggers"][0]["metadata"]["scalerAddress"] == f"{host}:{port}"


# How many there are


def test_what_is_scaled_is_there_and_names_no_number_itself(objects):
    targets = [scaler["spec"]["scaleTargetRef"] for scaler in objects.of("HorizontalPodAutoscaler", "ScaledObject")]
    scaled = [objects.one(target["kind"], target["name"]) for target in targets]
    assert len({workload["metadata"]["name"] for workload in scaled}) == len(scaled), "nothing is scaled twice"
    for workload in objects.workloads():
        assert ("replicas" in workload["spec"]) == (workload not in scaled)
    assert all(target["apiVersion"] == workload["apiVersion"] for target, workload in zip(targets, scaled))
    for hpa in objects.of("HorizontalPodAutoscaler"):
        [workload] = [w for w in scaled if w["metadata"]["name"] == hpa["spec"]["scaleTargetRef"]["name"]]
        assert container(workload)["resources"]["requests"]["cpu"], "a share of nothing"


def test_some_set_scales_each_way():
    scaled = {
        (thing["kind"], thing["metadata"]["name"])
        for objects in RENDERED.values()
        for thing in objects.of("HorizontalPodAutoscaler", "ScaledObject")
    }
    assert scaled == {
        ("HorizontalPodAutoscaler", "demo-spool-executor"),
        ("HorizontalPodAutoscaler", "demo-spool-api"),
        ("ScaledObject", "demo-spool-executor"),
    }


def test_keda_is_told_how_many_rows_an_executor_takes():
    def rows(name):
        [scaled] = RENDERED[name].of("ScaledObject")
        return scaled["spec"]["triggers"][0]["metadata"]["rowsPerExecutor"]

    assert (rows("keda"), flags(RENDERED["keda"].role("executor"))[1]["--slots"]) == ("8", "8")
    assert rows("restricted") == "4"


# What is written, and what is secret


@pytest.mark.parametrize("workload", each_workload())
def test_what_is_written_goes_to_sized_scratch_space(workload):
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
def test_paths_lie_on_volumes(workload):
    mounts = tuple(mount["mountPath"] + "/" for mount in container(workload).get("volumeMounts", []))
    values = [*flags(workload)[1].values(), *(entry.get("value", "") for entry in environment(workload).values())]
    ours = [value for value in values if value.startswith("/") and not value.startswith("/var/run/secrets/")]
    assert all((path + "/").startswith(mounts) for path in ours), ours


def test_the_volume_outlives_the_release():
    claim = RENDERED["sqlite"].one("PersistentVolumeClaim", "demo-spool-data")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    for name, expected in (("sqlite", "demo-spool-data"), ("sqlite-bucket", "spool-jobs")):
        [data] = [v for v in template(RENDERED[name].role("all-in-one"))["spec"]["volumes"] if v["name"] == "data"]
        assert data["persistentVolumeClaim"]["claimName"] == expected
    assert not RENDERED["sqlite-bucket"].of("PersistentVolumeClaim")


@pytest.mark.parametrize("name", RENDERED)
def test_secrets_are_there_and_nowhere_else(name):
    objects = RENDERED[name]
    secrets = {secret["metadata"]["name"]: secret["data"] for secret in objects.of("Secret")}
    given = VALUES[name]
    for workload in objects.workloads():
        for entry in environment(workload).values():
            if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
                ours = reference["key"] in secrets.get(reference["name"], {})
                assert ours or reference["name"] in yaml.safe_dump(given), f"{reference} is nowhere"
            else:
                assert not any(word in entry["name"] for word in ("TOKEN", "SECRET", "KEY_ID")), entry
    rest = yaml.safe_dump([thing for thing in objects if thing["kind"] != "Secret"])
    held = [base64.b64decode(value).decode() for data in secrets.values() for value in data.values()]
    assert not [value for value in held if value in rest and value != "spool"]
    if "not-to-be-seen" in yaml.safe_dump(given):
        assert [value for value in held if "not-to-be-seen" in value] and "not-to-be-seen" not in rest


def test_a_token_is_made_where_none_is_given():
    def token():
        data = render(VALUES["minimal"]).one("Secret", "demo-spool-token")["data"]
        return base64.b64decode(data["token"]).decode()

    assert len(token()) >= 32 and token() != token()
    assert not RENDERED["second-scheduler"].of("Secret"), "there, a secret is named"
    given = RENDERED["monitoring"].one("Secret", "demo-spool-token")["data"]["token"]
    assert base64.b64decode(given).decode() == VALUES["monitoring"]["token"]["value"]


def test_each_role_knows_what_it_needs_and_no_more(objects):
    knows = {"scheduler": {"SPOOL_DATABASE", "SPOOL_TOKEN"}, "executor": {"SPOOL_TOKEN"}, "api": {"SPOOL_DATABASE"}}
    for role, expected in knows.items():
        if workload := objects.role(role):
            assert {"SPOOL_DATABASE", "SPOOL_TOKEN"} & environment(workload).keys() == expected


def test_buckets_are_reached_as_values_say():
    minio = environment(RENDERED["ha"].role("executor"))
    assert minio["AWS_ENDPOINT_URL"]["value"] == "http://minio.storage.svc:9000"
    assert minio["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "spool-bucket", "key": "AWS_SECRET_ACCESS_KEY"}
    assert "AWS_VIRTUAL_HOSTED_STYLE_REQUEST" not in minio
    by_host = environment(RENDERED["sqlite-bucket"].role("all-in-one"))
    assert by_host["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"]["value"] == "true" and by_host["AWS_REGION"]["value"] == "us-east-1"
    role = RENDERED["aws-role"]
    assert "AWS_ACCESS_KEY_ID" not in environment(role.role("executor"))
    account = role.one("ServiceAccount", "transcoder")
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].endswith("role/spool")
    assert all(template(w)["spec"]["serviceAccountName"] == "transcoder" for w in role.workloads())


# Upgrades


def test_an_upgrade_changes_nothing_that_cannot_be_changed(tmp_path):
    """Another version of the chart, with other values, over the same release."""
    newer = tmp_path / "spool"
    shutil.copytree(CHART, newer, ignore=shutil.ignore_patterns("tests"))
    about = newer / "Chart.yaml"
    changed = {**yaml.safe_load(about.read_text()), "version": "99.0.0", "appVersion": "99.0.0"}
    about.write_text(yaml.safe_dump(changed))

    def rendered(chart, values):
        with helm_python.Chart.load(chart) as loaded:
            out = loaded.render(values, name=RELEASE, namespace=NAMESPACE, is_upgrade=True)
        documents = [yaml.safe_load_all(text) for name, text in out.items() if name.endswith(".yaml")]
        return Objects(thing for document in documents for thing in document if thing)

    for before, after in (
        ("minimal", VALUES["ha"]),
        ("minimal", VALUES["keda"]),
        ("ingress", VALUES["restricted"]),
        ("sqlite", merged(VALUES["sqlite"], {"database": {"sqlite": {"size": "200Gi"}}, "executors": {"slots": 8}})),
    ):
        old, new = rendered(CHART, VALUES[before]), rendered(newer, after)
        for workload in old.workloads():
            same = new.one(workload["kind"], workload["metadata"]["name"])
            assert same["spec"]["selector"] == workload["spec"]["selector"]
            assert container(same)["image"] != container(workload)["image"] or "tag" in after["image"]
            if workload["kind"] == "StatefulSet":
                # Of what is set here, Kubernetes lets these change.
                assert {key for key in same["spec"] if same["spec"][key] != workload["spec"].get(key)} <= {"replicas", "template"}
        for claim in old.of("PersistentVolumeClaim"):
            same = new.one("PersistentVolumeClaim", claim["metadata"]["name"])
            assert {**same["spec"], "resources": None} == {**claim["spec"], "resources": None}


def test_more_executors_restart_none():
    more = render(merged(VALUES["ha"], {"executors": {"replicas": 60}}))
    assert template(more.role("executor")) == template(RENDERED["ha"].role("executor"))


def test_another_password_restarts_pods():
    other = render(merged(VALUES["monitoring"], {"database": {"postgres": {"url": "postgres://spool:another@db.example/spool"}}}))
    assert template(other.role("api")) != template(RENDERED["monitoring"].role("api"))
