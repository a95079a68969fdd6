"""The packages contain the expected files, and work once installed."""

import gzip
import hashlib
import os
import platform
import re
import shutil
import signal
import socket
import stat
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"
SPOOL = os.environ.get("SPOOL", "")
TARGET = f"{platform.machine()}-unknown-linux-gnu"
OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}[platform.machine()] + "-unknown-linux-gnu"
ROLES = ["scheduler", "executor", "api"]
EPOCH = 1_700_000_000


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, **options)


def good(*command, **options):
    result = run(*command, **options)
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="session")
def version():
    return good(SPOOL, "--version").split()[1]


@pytest.fixture(scope="session")
def pack(version):
    """Returns a function that packs with a script into a folder, in a given environment."""

    def pack(script, folder, **environment):
        folder.mkdir(exist_ok=True)
        base = {"PATH": os.environ["PATH"], "OUT": str(folder), "SOURCE_DATE_EPOCH": str(EPOCH)}
        return Path(good(PACKAGING / script, version, TARGET, SPOOL, env={**base, **environment}).strip())

    return pack


@pytest.fixture(scope="session")
def tarball(pack, tmp_path_factory):
    return pack("tarball", tmp_path_factory.mktemp("tarball"))


@pytest.fixture(scope="session")
def deb(pack, tmp_path_factory):
    return pack("deb", tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="session")
def unpacked(tarball, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(tarball) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.iterdir())


class Installed:
    """A separate root with the package installed by dpkg and the package's own scripts."""

    def __init__(self, root, deb):
        self.root, self.deb = root, deb
        for name in ("info", "updates", "triggers"):
            (root / "var/lib/dpkg" / name).mkdir(parents=True)
        for name in ("status", "available"):
            (root / "var/lib/dpkg" / name).touch()
        (root / "etc").mkdir()
        self.dpkg("--install", deb)

    def dpkg(self, *arguments):
        options = [
            "--force-not-root",
            "--force-depends",
            "--force-script-chrootless",
            "--force-confold",
            "--log=/dev/null",
        ]
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        return good("dpkg", f"--root={self.root}", *options, *arguments, env={"PATH": path, "LC_ALL": "C"})


@pytest.fixture(scope="module")
def installed(deb, tmp_path_factory):
    if os.getuid() != 0:
        pytest.skip("dpkg needs root to set file owners")
    return Installed(tmp_path_factory.mktemp("root"), deb)


def test_the_tarball_contains_the_expected_files(tarball, version):
    name = f"spool-{version}-{TARGET}"
    assert tarball.name == f"{name}.tar.gz"
    with tarfile.open(tarball) as archive:
        members = archive.getmembers()
    assert [one.name for one in members] == sorted(one.name for one in members)
    assert {(one.uid, one.gid, one.mtime) for one in members} == {(0, 0, EPOCH)}
    assert all(
        stat.S_IMODE(one.mode) == (0o755 if one.isdir() or one.name == f"{name}/bin/spool" else 0o644)
        for one in members
    )
    files = {one.name.removeprefix(f"{name}/") for one in members if one.isfile()}
    assert files >= {
        "bin/spool",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "INSTALL.md",
        "share/man/man1/spool.1",
        "share/bash-completion/completions/spool",
        "share/zsh/site-functions/_spool",
        "share/fish/vendor_completions.d/spool.fish",
        "lib/sysusers.d/spool.conf",
        *(f"lib/systemd/system/spool-{role}.service" for role in ROLES),
        *(f"share/man/man1/spool-{role}.1" for role in ROLES),
        *(f"share/spool/etc/{role}.env" for role in ROLES),
    }


def test_the_units_are_those_of_jetstream2(unpacked, installed):
    for role in ROLES:
        unit = (ROOT / f"jetstream2/systemd/spool-{role}.service").read_text()
        assert (unpacked / f"lib/systemd/system/spool-{role}.service").read_text() == unit
        packed = (installed.root / f"usr/lib/systemd/system/spool-{role}.service").read_text()
        assert packed == unit.replace("/usr/local/bin/spool", "/usr/bin/spool")
        assert f"ExecStart=/usr/bin/spool {role}\n" in packed


def test_the_binary_runs_and_is_stripped(unpacked, version):
    assert good(unpacked / "bin/spool", "--version").strip() == f"spool {version}"
    assert ".debug_info" not in good("readelf", "--sections", "--wide", unpacked / "bin/spool")
    assert (unpacked / "bin/spool").stat().st_size <= os.stat(SPOOL).st_size


def test_packing_twice_gives_equal_bytes(pack, tarball, deb, tmp_path):
    environment = {"TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "TMPDIR": str(tmp_path)}
    before = os.umask(0o077)
    try:
        for script, first in ("tarball", tarball), ("deb", deb):
            again = pack(script, tmp_path / script, **environment)
            assert (
                hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(first.read_bytes()).digest()
            ), script
    finally:
        os.umask(before)


@pytest.mark.parametrize("script", ["tarball", "deb"])
def test_wrong_arguments_are_reported(script, version, tmp_path):
    def outcome(*arguments):
        result = run(
            PACKAGING / script, *arguments, env={"PATH": os.environ["PATH"], "OUT": str(tmp_path / "out")}
        )
        assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
        return result.returncode, result.stderr

    code, text = outcome()
    assert code == 2 and f"usage: packaging/{script} " in text and outcome(version) == (code, text)
    assert outcome(version, "riscv64-unknown-linux-gnu", SPOOL)[0] == 2
    code, text = outcome("9.9.9", TARGET, SPOOL)
    assert code == 1 and f'"spool {version}", expected "spool 9.9.9"' in text
    code, text = outcome(version, OTHER, SPOOL)
    assert code == 1 and f"is not a program for {OTHER}" in text
    code, text = outcome(version, TARGET, tmp_path / "nothing")
    assert code == 1 and "cargo build --release" in text


def test_a_release_is_newer_than_its_candidates():
    script = (PACKAGING / "deb").read_text()
    debian = re.search(r"^debian=.*$", script, re.MULTILINE)[0]
    version = good("bash", "-c", f'version=0.2.0-rc.1; {debian}; echo "$debian"').strip()
    assert version == "0.2.0~rc.1-1"
    good("dpkg", "--compare-versions", version, "lt", "0.2.0-1")


def test_a_missing_unit_is_reported(tmp_path):
    shutil.copytree(PACKAGING, tmp_path / "packaging")
    result = run(tmp_path / "packaging/stage", SPOOL, tmp_path / "out")
    assert result.returncode == 1 and "missing: jetstream2/systemd/" in result.stderr


def test_manual_pages_render(unpacked):
    pages = sorted((unpacked / "share/man/man1").glob("*.1"))
    for page in pages:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "100"}
        result = run("man", "--warnings=w", "--local-file", page, env=environment)
        assert result.returncode == 0 and not result.stderr, f"{page.name}: {result.stderr}"
        text = re.sub(".\b", "", result.stdout)
        assert "NAME" in text and page.stem.replace("-", " ") in text.replace("-", " ")
    # Each command has a page.
    commands = re.findall(
        r"^  ([a-z]+) ", good(SPOOL, "--help").split("Commands:")[1].split("Options:")[0], re.MULTILINE
    )
    assert {f"spool-{command}" for command in commands if command != "help"} <= {page.stem for page in pages}


def test_bash_completion_works(unpacked):
    script = f"""
        . {unpacked}/share/bash-completion/completions/spool
        complete -p spool
        COMP_WORDS=(spool sched) COMP_CWORD=1
        _spool spool sched spool
        echo "${{COMPREPLY[*]}}"
    """
    registered, words = good("bash", "--norc", "-c", script).splitlines()
    assert "_spool" in registered and words.split() == ["scheduler"]


def test_zsh_completion_works(unpacked, tmp_path):
    script = f"""
        fpath=({unpacked}/share/zsh/site-functions $fpath)
        autoload -Uz compinit && compinit -u -d {tmp_path}/dump
        print -r -- $_comps[spool]
        autoload +X _spool && functions _spool
    """
    output = good("zsh", "-f", "-c", script)
    assert output.startswith("_spool\n") and "scheduler" in output


def test_fish_completion_works(unpacked, tmp_path):
    script = (
        f"source {unpacked}/share/fish/vendor_completions.d/spool.fish; complete --do-complete 'spool sched'"
    )
    output = good("fish", "--no-config", "--command", script, env={**os.environ, "HOME": str(tmp_path)})
    assert [line.split("\t")[0] for line in output.splitlines()] == ["scheduler"]


def test_lintian_finds_no_problem(deb):
    # lintian refuses to run as root without this flag.
    result = run("lintian", "--allow-root", "--fail-on", "error,warning", deb)
    assert result.returncode == 0, result.stdout + result.stderr
    unused = run("lintian", "--allow-root", "--tags", "mismatched-override,unused-override", deb)
    assert "mismatched-override" not in unused.stdout, unused.stdout


def test_the_package_declares_its_dependencies(deb, version):
    fields = dict(
        line.split(": ", 1)
        for line in good("dpkg-deb", "--field", deb).splitlines()
        if not line.startswith(" ")
    )
    assert (
        fields["Version"] == f"{version}-1"
        and fields["Architecture"] == good("dpkg", "--print-architecture").strip()
    )
    dependencies = [one.strip() for one in fields["Depends"].split(",")]
    assert "ffmpeg (>= 7:5.1)" in dependencies
    assert any(one.startswith("libc6 (>= ") for one in dependencies)
    # Debian 12's glibc suffices.
    newest = re.search(r"libc6 \(>= ([\d.]+)\)", fields["Depends"])[1]
    assert tuple(map(int, newest.split("."))) <= (2, 36)
    assert not re.search("@", fields["Depends"])


def test_the_package_installs(installed, version):
    root = installed.root
    assert good(root / "usr/bin/spool", "--version").strip() == f"spool {version}"
    user = re.search("^spool:.*$", (root / "etc/passwd").read_text(), re.MULTILINE)[0].split(":")
    assert int(user[2]) != 0 and user[5] == "/var/lib/spool" and user[6].endswith("nologin")
    for role in ROLES:
        file = (root / f"etc/spool/{role}.env").stat()
        assert stat.S_IMODE(file.st_mode) == 0o640 and file.st_uid == 0, "only root may read passwords"
    # No unit is enabled.
    assert not list((root / "etc").rglob("*.service")) and not list((root / "etc").rglob("*.wants"))
    assert "spool" in gzip.decompress((root / "usr/share/man/man1/spool.1.gz").read_bytes()).decode()
    assert not good("dpkg", f"--root={root}", "--verify", "spool")


def test_systemd_accepts_the_units(installed, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(installed.root, root, symlinks=True)
    # The units refer to units of the system.
    shutil.copytree(
        "/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True, dirs_exist_ok=True
    )
    units = [f"spool-{role}.service" for role in ROLES]
    result = run("systemd-analyze", f"--root={root}", "--man=no", "verify", *units)
    assert result.returncode == 0 and not result.stderr, result.stderr
    (root / "usr/bin/spool").unlink()
    assert run("systemd-analyze", f"--root={root}", "--man=no", "verify", *units).returncode != 0


def settings(root, role):
    """Returns the variables that systemd reads from a settings file."""
    lines = (root / f"etc/spool/{role}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("role", ROLES)
def test_settings_use_only_known_variables(installed, role):
    unit = (installed.root / f"usr/lib/systemd/system/spool-{role}.service").read_text()
    assert f"EnvironmentFile=/etc/spool/{role}.env\n" in unit
    text = good(SPOOL, role, "--help")
    shown = re.findall(r"^#?(\w+)=", (installed.root / f"etc/spool/{role}.env").read_text(), re.MULTILINE)
    assert shown
    for name in shown:
        assert name.startswith("AWS_") or f"[env: {name}" in text, f"spool {role} has no variable {name}"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def is_ready(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_the_default_settings_run_all_roles_on_one_host(installed, tmp_path):
    """Starts the units' commands as processes with the installed settings, and waits until each is ready."""
    ports = {old: str(free_port()) for old in ("50050", "8090", "8080")}

    def localize(value):
        for old, new in ports.items():
            value = re.sub(rf"(127\.0\.0\.1:){old}$", rf"\g<1>{new}", value)
        return value.replace("/var/lib/spool", str(tmp_path / "state"))

    (tmp_path / "state").mkdir()
    started = []
    try:
        for role in ROLES:
            unit = (installed.root / f"usr/lib/systemd/system/spool-{role}.service").read_text()
            program, *words = re.search("^ExecStart=(.*)$", unit, re.MULTILINE)[1].split()
            environment = {
                "PATH": "/usr/bin:/bin",
                **{name: localize(value) for name, value in settings(installed.root, role).items()},
            }
            log = open(tmp_path / f"{role}.log", "wb")
            words = [f"{installed.root}{program}", *words]
            process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, cwd=tmp_path)
            started.append(process)
            default = {"scheduler": "50050", "executor": "8090", "api": "8080"}[role]
            url = f"http://127.0.0.1:{ports[default]}/readyz"
            end = time.monotonic() + 60
            while not is_ready(url):
                assert process.poll() is None and time.monotonic() < end, (
                    tmp_path / f"{role}.log"
                ).read_text()
                time.sleep(0.1)
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_upgrade_and_removal_keep_the_administrators_settings(deb, tmp_path):
    if os.getuid() != 0:
        pytest.skip("dpkg needs root to set file owners")
    (tmp_path / "root").mkdir()
    installed = Installed(tmp_path / "root", deb)
    file = installed.root / "etc/spool/executor.env"
    file.write_text("SPOOL_SCHEDULER=10.0.0.1:50050\n")
    installed.dpkg("--install", deb)
    assert file.read_text() == "SPOOL_SCHEDULER=10.0.0.1:50050\n"
    (installed.root / "var/lib/spool").mkdir(parents=True)
    installed.dpkg("--remove", "spool")
    assert file.exists() and not (installed.root / "usr/bin/spool").exists()
    installed.dpkg("--purge", "spool")
    assert not file.exists()
    # Purging keeps jobs and videos, and their owner.
    assert (installed.root / "var/lib/spool").exists() and "spool:" in (
        installed.root / "etc/passwd"
    ).read_text()


def test_shellcheck_finds_no_problem():
    scripts = [PACKAGING / name for name in ("tarball", "deb", "stage", "inputs", "tests/run")]
    scripts += [PACKAGING / "debian" / name for name in ("postinst", "prerm", "postrm")]
    result = run("shellcheck", "--external-sources", f"--source-path={PACKAGING}", *scripts)
    assert result.returncode == 0, result.stdout
