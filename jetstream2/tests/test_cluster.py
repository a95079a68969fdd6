"""spool-cluster creates, scales and deletes a cluster: the real `openstack` client, and a cloud in memory."""

import base64
import csv
import stat

import yaml
from conftest import FOLDER


def user_data(server):
    return yaml.safe_load(base64.b64decode(server["user_data"]))


def files_of(server):
    return {file["path"]: file for file in user_data(server)["write_files"]}


def test_a_cluster_is_created_scaled_and_deleted(bench):
    output = bench.run("plan", *bench.options())
    # m3.small costs 2 service units an hour, two m3.quad 8.
    assert "10" in output and "240 SU in 24 hours, 7300 in a month" in output
    assert bench.cloud.created == [], "plan must create nothing"

    output = bench.run("up", *bench.options(), "--yes")
    servers = bench.cloud.names("servers")
    assert servers == ["demo-executor-1", "demo-executor-2", "demo-scheduler"]
    scheduler, executor = bench.cloud.server("demo-scheduler"), bench.cloud.server("demo-executor-1")
    assert scheduler["addresses"]["demo-network"][0]["addr"] == "10.42.0.10"
    assert (scheduler["flavor"]["original_name"], executor["flavor"]["original_name"]) == (
        "m3.small",
        "m3.quad",
    )
    address = next(iter(bench.cloud.resources["floatingips"].values()))
    assert f"ssh ubuntu@{address['floating_ip_address']} sudo spool-here" in output
    port = next(iter(bench.cloud.resources["ports"].values()))
    assert address["port_id"] == port["id"] and port["security_groups"] == scheduler["groups"]
    router = next(iter(bench.cloud.resources["routers"].values()))
    assert (
        router["external_gateway_info"]["network_id"] == bench.cloud.public
        and len(router["interfaces_info"]) == 1
    )
    key = next(iter(bench.cloud.resources["ec2"].values()))
    for server, name in [(scheduler, "scheduler"), (executor, "executor")]:
        env = files_of(server)[f"/etc/spool/{name}.env"]
        assert env["permissions"] == "0600"
        assert (
            f"AWS_ACCESS_KEY_ID={key['access']}\n" in env["content"]
            and f"AWS_SECRET_ACCESS_KEY={key['secret']}\n" in env["content"]
        )
    token = [
        line
        for line in files_of(executor)["/etc/spool/executor.env"]["content"].splitlines()
        if line.startswith("SPOOL_TOKEN=")
    ]
    assert (
        len(token[0]) == len("SPOOL_TOKEN=") + 48
        and token[0] in files_of(scheduler)["/etc/spool/scheduler.env"]["content"]
    )
    bucket = bench.cloud.buckets["demo-0123456789ab"]
    assert list(bucket["objects"].values()) == [b"a binary"]
    for file in sorted(bench.state.iterdir()):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600 and file.name in ("settings", "secrets"), file

    before = len(bench.cloud.created)
    bench.run("up", *bench.options(), "--yes")
    assert len(bench.cloud.created) == before, "existing resources are not created again"

    bench.run("scale", "4", "--name=demo", "--yes")
    assert bench.executors() == [f"demo-executor-{number}" for number in (1, 2, 3, 4)]
    assert files_of(bench.cloud.server("demo-executor-4")) == files_of(executor)
    output = bench.run("status", "--name=demo")
    assert "demo-executor-4" in output and "demo-0123456789ab (ours)" in output

    bench.run("scale", "1", "--name=demo")
    assert bench.executors() == ["demo-executor-1"], "the most recent executors are removed first"
    drained = bench.ssh_log.read_text().splitlines()
    assert len(drained) == 3 and all(
        "-W %h:%p ubuntu@149.165.0." in line and line.endswith("sudo systemctl stop spool-executor.service")
        for line in drained
    )

    output = bench.run("down", "--name=demo", "--yes")
    assert bench.cloud.leftovers() == {"buckets": ["demo-0123456789ab"]}
    assert "bucket           demo-0123456789ab, kept" in output and not bench.state.exists()
    bench.run("down", "--name=demo", "--yes", "--delete-bucket")
    assert bench.cloud.leftovers() == {}
    assert "no resources of a cluster demo exist" in bench.run("down", "--name=demo", "--yes")
    assert "no resources of the cluster demo" in bench.run("leftovers", "--name=demo")


def test_security_rules_match_the_table(bench):
    bench.run("up", *bench.options(api="203.0.113.0/24", executors=0), "--yes")
    names = {
        group["id"]: group["name"].removeprefix("demo-")
        for group in bench.cloud.resources["security-groups"].values()
    }
    rules = {
        (
            names[rule["security_group_id"]],
            rule["protocol"],
            str(rule["port_range_min"]),
            str(rule["port_range_max"]),
            rule["remote_ip_prefix"],
        )
        for rule in bench.cloud.resources["security-group-rules"].values()
    }
    ranges = {"ssh": "203.0.113.7/32", "api": "203.0.113.0/24", "private": "10.42.0.0/24"}
    with open(FOLDER / "rules.csv", newline="", encoding="utf-8") as file:
        table = {
            (row["group"], row["protocol"], row["port_min"], row["port_max"], ranges[row["from"]])
            for row in csv.DictReader(file)
        }
    assert rules == table
    assert all(
        rule["direction"] == "ingress" for rule in bench.cloud.resources["security-group-rules"].values()
    )
    env = files_of(bench.cloud.server("demo-scheduler"))["/etc/spool/api.env"]["content"]
    assert "SPOOL_AUTH=keys\n" in env and "SPOOL_API_LISTEN=0.0.0.0:8080\n" in env


def test_a_local_api_leaves_only_ssh_open(bench):
    bench.run("up", *bench.options(executors=0, idle_timeout=600, drain_timeout=900), "--yes")
    rules = list(bench.cloud.resources["security-group-rules"].values())
    assert {rule["port_range_min"] for rule in rules if rule["remote_ip_prefix"] != "10.42.0.0/24"} == {22}
    env = files_of(bench.cloud.server("demo-scheduler"))["/etc/spool/api.env"]["content"]
    assert "SPOOL_AUTH=none\n" in env and "SPOOL_API_LISTEN=127.0.0.1:8080\n" in env
    bench.run("scale", "1", "--name=demo", "--yes")
    env = files_of(bench.cloud.server("demo-executor-1"))["/etc/spool/executor.env"]["content"]
    assert "SPOOL_IDLE_TIMEOUT=600\n" in env and "SPOOL_DRAIN_TIMEOUT=900\n" in env


def test_scratch_volumes_are_created_and_deleted_with_their_executors(bench):
    bench.run("up", *bench.options(scratch=50), "--yes")
    volumes = {volume["name"]: volume for volume in bench.cloud.resources["volumes"].values()}
    assert sorted(volumes) == ["demo-scratch-1", "demo-scratch-2"] and volumes["demo-scratch-1"]["size"] == 50
    attached = bench.cloud.server("demo-executor-1")["os-extended-volumes:volumes_attached"]
    assert [disk["id"] for disk in attached] == [volumes["demo-scratch-1"]["id"]]
    assert (
        "[/usr/local/lib/spool/set-up, volume, spool-executor]"
        in base64.b64decode(bench.cloud.server("demo-executor-1")["user_data"]).decode()
    )
    bench.run("scale", "1", "--name=demo", "--no-drain")
    assert bench.cloud.names("volumes") == ["demo-scratch-1"] and bench.ssh_log.read_text() == ""
    # A volume that was never attached.
    bench.cloud.add(
        "volumes",
        {
            "name": "demo-scratch-7",
            "size": 50,
            "status": "available",
            "metadata": {"spool-cluster": "demo"},
            "attachments": [],
        },
    )
    assert "demo-scratch-7" in bench.run("leftovers", "--name=demo", code=1)
    bench.run("down", "--name=demo", "--yes", "--delete-bucket")
    assert bench.cloud.leftovers() == {}


def test_an_interrupted_up_can_be_continued_or_deleted(bench):
    # Interrupted after the network and its subnet, and in the middle of the remaining steps.
    for creations in (3, 11):
        bench.cloud.created.clear()
        bench.cloud.refuse_after = creations
        output = bench.run("up", *bench.options(), "--yes", code=1)
        assert "incomplete" in output and "unavailable" in output and len(bench.cloud.created) == creations
        bench.cloud.refuse_after = None
        bench.run("down", "--name=demo", "--yes", "--delete-bucket")
        assert bench.cloud.leftovers() == {}, f"after {creations} creations"
    bench.cloud.created.clear()
    bench.cloud.refuse_after = 13
    bench.run("up", *bench.options(), "--yes", code=1)
    bench.cloud.refuse_after = None
    bench.run("up", *bench.options(), "--yes")
    assert bench.cloud.names("servers") == ["demo-executor-1", "demo-executor-2", "demo-scheduler"]
    assert [
        len(bench.cloud.resources[kind]) for kind in ("subnets", "routers", "ports", "floatingips", "ec2")
    ] == [1, 1, 1, 1, 1]


def test_a_server_that_could_not_be_built_is_created_again(bench):
    bench.cloud.broken_servers.add("demo-executor-2")
    output = bench.run("up", *bench.options(), "--yes", code=1)
    assert (
        "demo-executor-2 could not be built" in output
        and "No valid host was found" in output
        and "incomplete" in output
    )
    bench.cloud.broken_servers.clear()
    bench.run("up", *bench.options(), "--yes")
    assert {server["status"] for server in bench.cloud.resources["servers"].values()} == {"ACTIVE"} and len(
        bench.executors()
    ) == 2


def test_executors_that_are_off_are_removed_first(bench):
    bench.run("up", *bench.options(executors=3, idle_timeout=60), "--yes")
    bench.cloud.server("demo-executor-1")["status"] = "SHUTOFF"
    assert "cost half" in bench.run("status", "--name=demo")
    bench.run("scale", "2", "--name=demo")
    assert bench.executors() == ["demo-executor-2", "demo-executor-3"] and bench.ssh_log.read_text() == ""
    bench.cloud.server("demo-executor-3")["status"] = "SHUTOFF"
    assert "deleted 1 executors that were off" in bench.run("reap", "--name=demo")
    assert bench.executors() == ["demo-executor-2"]
    # The free number is reused first.
    bench.run("scale", "2", "--name=demo", "--yes")
    assert bench.executors() == ["demo-executor-1", "demo-executor-2"]


def test_drain_deletes_nothing_and_reports_unreachable_executors(bench):
    bench.run("up", *bench.options(executors=3), "--yes")
    bench.run("drain", "1", "--name=demo")
    assert len(bench.executors()) == 3 and len(bench.ssh_log.read_text().splitlines()) == 2
    bench.ssh_code.write_text("255")
    assert "2 of 2 could not be reached" in bench.run("drain", "1", "--name=demo", code=2)
    # An unreachable executor is deleted nevertheless: its rows run elsewhere.
    bench.run("scale", "1", "--name=demo")
    assert bench.executors() == ["demo-executor-1"]


def test_an_existing_bucket_is_kept(bench):
    bench.cloud.buckets["videos"] = {"properties": {}, "objects": {"talk.mp4": b"x"}}
    bench.run("up", *bench.options(bucket="videos", executors=0), "--use-bucket", "--yes")
    bench.run("down", "--name=demo", "--yes", "--delete-bucket")
    assert "talk.mp4" in bench.cloud.buckets["videos"]["objects"] and bench.cloud.leftovers() == {
        "buckets": ["videos"]
    }


def test_two_clusters_are_independent(bench):
    bench.run("up", *bench.options(executors=1), "--yes")
    state, bench.state = bench.state, bench.folder / "other"
    bench.run("up", *bench.options(name="demo2", executors=1), "--yes")
    bench.run("down", "--name=demo2", "--yes", "--delete-bucket")
    bench.state = state
    assert bench.cloud.names("servers") == ["demo-executor-1", "demo-scheduler"] and list(
        bench.cloud.buckets
    ) == ["demo-0123456789ab"]
    assert len(bench.cloud.resources["ec2"]) == 1
