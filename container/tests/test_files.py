"""Containerfile, compose.yaml and the scripts pass their linters, and use only flags that the binary has."""

import os
import re
import stat
import subprocess

import pytest
import yaml

from files import FOLDER, ROOT, SPOOL, VARIABLES, compose, image, interpolate, spool_services

PINNED = re.compile(r"^docker\.io/[\w./-]+:[\w.-]*\d+\.?\d*[\w.-]*@sha256:[0-9a-f]{64}$")


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def help_of(role):
    result = run(SPOOL, role, "--help")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_hadolint_finds_no_problem():
    result = run("hadolint", "--failure-threshold", "style", FOLDER / "Containerfile")
    assert result.returncode == 0, result.stdout + result.stderr


def test_hadolint_finds_an_unpinned_package(tmp_path):
    bad = tmp_path / "Containerfile"
    bad.write_text((FOLDER / "Containerfile").read_text().replace("# hadolint ignore=DL3008\n", ""))
    assert "DL3008" in run("hadolint", bad).stdout


def test_shellcheck_finds_no_problem():
    scripts = [
        FOLDER / name for name in ("up", "down", "smoke", "ffmpeg-closure", "ffmpeg-packages", "tests/run")
    ]
    result = run("shellcheck", *scripts)
    assert result.returncode == 0, result.stdout


def test_the_compose_file_matches_its_schema():
    result = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", FOLDER / "compose.yaml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_compose_schema_refuses_an_unknown_field(tmp_path):
    bad = tmp_path / "compose.yaml"
    bad.write_text("services: {api: {image: a, helthcheck: {}}}\n")
    assert run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", bad).returncode != 0


def test_base_images_are_pinned():
    for line in image().bases:
        assert PINNED.match(line.split()[0]), line
    # The libraries are copied to the base image that they were linked on.
    assert image().bases[1].split()[0] == image().bases[2].split()[0]


@pytest.mark.parametrize("name", compose()["services"])
def test_a_service_is_pinned_limited_and_unprivileged(name):
    service = compose()["services"][name]
    assert name in spool_services() or PINNED.match(service["image"]), service["image"]
    assert service["healthcheck"]["test"][0] == "CMD"
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} <= limits.keys()
    assert not service.get("privileged") and "network_mode" not in service and "pid" not in service
    assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    assert not {"SYS_ADMIN", "NET_ADMIN", "DAC_OVERRIDE", "ALL"} & set(service.get("cap_add", []))
    assert not any("seccomp" in option for option in service["security_opt"]), (
        "the default seccomp profile suffices"
    )
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    for volume in service.get("volumes", []):
        assert volume.split(":")[0] in compose()["volumes"], f"{volume} is not a named volume"


@pytest.mark.parametrize("name", spool_services())
def test_a_spool_service_runs_as_the_image_declares(name):
    service = spool_services()[name]
    assert service["read_only"] is True
    assert service["user"] == image().last("USER") and re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    # With a read-only root, the scratch folder must be a volume.
    scratch = image().environment["SPOOL_SCRATCH"]
    assert yaml.safe_load(image().last("VOLUME")) == [scratch]
    assert [volume.split(":")[1] for volume in service["volumes"]] == [scratch]
    assert "entrypoint" not in service
    for other in service["depends_on"].values():
        assert other["condition"] == "service_healthy"


def test_the_image_has_labels():
    labels = image().last("LABEL")
    for label in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{label}=" in labels
    assert image().last("STOPSIGNAL") == "SIGTERM"
    assert image().bases[-1].split("@")[0] in labels


def test_the_build_context_contains_only_the_sources():
    ignored = (FOLDER / "Containerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    members = re.search(r"^members = \[(.*)\]", (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert {name.strip(' "') for name in members.split(",")} <= allowed, "cargo needs every workspace member"
    for path in allowed:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", spool_services())
def test_services_use_only_known_flags_and_variables(name):
    service = spool_services()[name]
    role, *words = service["command"]
    text = help_of(role)
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"^ +(-\w, )?{word}\b", text, re.MULTILINE), f"spool {role} has no flag {word}"
    # Variables of other programs, such as AWS_*, are not in the help.
    for variable in {**image().environment, **service["environment"]}:
        if variable.startswith("SPOOL_"):
            assert f"[env: {variable}" in text, f"spool {role} has no variable {variable}"


def test_health_checks_use_the_health_command():
    for command in [
        image().health[1],
        *(service["healthcheck"]["test"][1:] for service in spool_services().values()),
    ]:
        assert command[1] == "health"
    assert "SPOOL_HEALTH_URL" in help_of("health")


def test_the_stop_grace_period_exceeds_the_drain_timeout():
    default = int(re.search(r"--drain-timeout.*?\[default: (\d+)\]", help_of("executor"), re.DOTALL)[1])
    assert int(spool_services()["executor"]["stop_grace_period"].rstrip("s")) > default


def test_a_missing_password_names_the_script_that_creates_it():
    with pytest.raises(KeyError, match="run container/up"):
        interpolate((FOLDER / "compose.yaml").read_text(), {**VARIABLES, "POSTGRES_PASSWORD": ""})


@pytest.fixture
def engine(tmp_path):
    """Copies the scripts, and provides an engine that logs its arguments."""
    folder = tmp_path / "container"
    folder.mkdir()
    for name in ("up", "down", "compose.yaml"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
        (folder / name).chmod(0o755)
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "calls"
    (programs / "docker").write_text(f'#!/bin/sh\necho "$@" >>{log}\n[ "$2" != fails ]\n')
    (programs / "docker").chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin"}

    def call(name, *arguments, **more):
        log.unlink(missing_ok=True)
        result = run(folder / name, *arguments, env={**environment, **more})
        return result, log.read_text() if log.exists() else ""

    call.folder = folder
    return call


def test_up_generates_passwords_once(engine):
    result, calls = engine("up", "--scale", "executor=3")
    assert result.returncode == 0, result.stderr
    assert "up --detach --build --wait" in calls and "--scale executor=3" in calls
    secrets = engine.folder / ".env"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    values = dict(line.split("=", 1) for line in secrets.read_text().splitlines())
    assert values.keys() == VARIABLES.keys()
    assert len(set(values.values())) == len(values) and all(
        re.fullmatch("[0-9a-f]{20,}", value) for value in values.values()
    )
    interpolate((engine.folder / "compose.yaml").read_text(), values)
    before = secrets.read_text()
    assert engine("up")[0].returncode == 0
    assert secrets.read_text() == before


def test_down_keeps_data_unless_volumes_are_deleted(engine):
    assert "nothing to stop" in engine("down")[0].stdout
    engine("up")
    result, calls = engine("down")
    assert result.returncode == 0 and "down" in calls and "--volumes" not in calls
    assert (engine.folder / ".env").exists()
    result, calls = engine("down", "--volumes")
    assert result.returncode == 0 and "--volumes" in calls
    assert not (engine.folder / ".env").exists()
    assert engine("down", "--volume")[0].returncode == 2


def test_up_reports_a_missing_engine(engine):
    (engine.folder.parent / "bin/docker").unlink()
    result, _ = engine("up", PATH=path_without_engines(engine.folder.parent))
    assert result.returncode == 1 and "missing: docker or podman" in result.stderr
    assert not (engine.folder / ".env").exists()


def path_without_engines(folder):
    """Returns a folder with the programs that `up` needs, but no container engine."""
    programs = folder / "few"
    programs.mkdir()
    for name in ("bash", "env", "dirname", "sed", "cat", "mv", "od", "tr"):
        (programs / name).symlink_to(
            f"/usr/bin/{name}" if os.path.exists(f"/usr/bin/{name}") else f"/bin/{name}"
        )
    return str(programs)
