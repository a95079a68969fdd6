"""Do the packages hold what they should, and does it work where it is installed?"""

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
    """Packs by a script, into a folder, under another user's habits where wanted."""

    def pack(script, folder, **environment):
        folder.mkdir(exist_ok=True)
        usual = {"PATH": os.environ["PATH"], "OUT": str(folder), "SOURCE_DATE_EPOCH": str(EPOCH)}
        return Path(good(PACKAGING / script, version, TARGET, SPOOL, env={**usual, **environment}).strip())

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
    """A root of its own that the package is installed in, by dpkg and the package's own scripts."""

    def __init__(self, root, deb):
        self.root, self.deb = root, deb
        for name in ("info", "updates", "triggers"):
            (root / "var/lib/dpkg" / name).mkdir(parents=True)
        for name in ("status", "available"):
            (root / "var/lib/dpkg" / name).touch()
        (root / "etc").mkdir()
        self.dpkg("--install", deb)

    def dpkg(self, *arguments):
        options = ["--force-not-root", "--force-depends", "--force-script-chrootless", "--force-confold", "--log=/dev/null"]
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        return good("dpkg", f"--root={self.root}", *options, *arguments, env={"PATH": path, "LC_ALL": "C"})


@pytest.fixture(scope="module")
def installed(deb, tmp_path_factory):
    if os.getuid() != 0:
        pytest.skip("only root may give files to root")
    return Installed(tmp_path_factory.mktemp("root"), deb)


def test_the_tarball_holds_what_it_should(tarball, version):
    name = f"spool-{version}-{TARGET}"
    assert tarball.name == f"{name}.tar.gz"
    with tarfile.open(tarball) as archive:
        members = archive.getmembers()
    assert [one.name for one in members] == sorted(one.name for one in members)
    assert {(one.uid, one.gid, one.mtime) for one in members} == {(0, 0, EPOCH)}
    assert all(stat.S_IMODE(one.mode) == (0o755 if one.isdir() or one.name == f"{name}/bin/spool" else 0o644) for one in members)
    files = {one.name.removeprefix(f"{name}/") for one in members if one.isfile()}
    assert files >= {
        "bin/spool", "LICENSE", "README.md", "CHANGELOG.md", "INSTALL.md", "share/man/man1/spool.1",
        "share/bash-completion/completions/spool", "share/zsh/site-functions/_spool", "share/fish/vendor_completions.d/spool.fish",
        "lib/sysusers.d/spool.conf", *(f"lib/systemd/system/spool-{role}.service" for role in ROLES),
        *(f"share/man/man1/spool-{role}.1" for role in ROLES), *(f"share/spool/etc/{role}.env" for role in ROLES),
    }


def test_the_units_are_those_that_the_cloud_gets(unpacked, installed):
    for role in ROLES:
        unit = (ROOT / f"jetstream2/systemd/spool-{role}.service").read_text()
        assert (unpacked / f"lib/systemd/system/spool-{role}.service").read_text() == unit
        packed = (installed.root / f"usr/lib/systemd/system/spool-{role}.service").read_text()
        assert packed == unit.replace("/usr/local/bin/spool", "/usr/bin/spool")
        assert f"ExecStart=/usr/bin/spool {role}\n" in packed


def test_the_binary_works_and_is_small(unpacked, version):
    assert good(unpacked / "bin/spool", "--version").strip() == f"spool {version}"
    assert ".debug_info" not in good("readelf", "--sections", "--wide", unpacked / "bin/spool")
    assert (unpacked / "bin/spool").stat().st_size <= os.stat(SPOOL).st_size


def test_packing_again_gives_the_same_bytes(pack, tarball, deb, tmp_path):
    habits = {"TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "TMPDIR": str(tmp_path)}
    before = os.umask(0o077)
    try:
        for script, first in ("tarball", tarball), ("deb", deb):
            again = pack(script, tmp_path / script, **habits)
            assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(first.read_bytes()).digest(), script
    finally:
        os.umask(before)


@pytest.mark.parametrize("script", ["tarball", "deb"])
def test_what_is_wrong_is_said(script, version, tmp_path):
    def said(*arguments):
        result = run(PACKAGING / script, *arguments, env={"PATH": os.environ["PATH"], "OUT": str(tmp_path / "out")})
        assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
        return result.returncode, result.stderr

    assert said() == said(version) == (2, said()[1]) and f"usage: packaging/{script} " in said()[1]
    assert said(version, "riscv64-unknown-linux-gnu", SPOOL)[0] == 2
    code, text = said("9.9.9", TARGET, SPOOL)
    assert code == 1 and f'"spool {version}", not "spool 9.9.9"' in text
    code, text = said(version, OTHER, SPOOL)
    assert code == 1 and f"is no program for {OTHER}" in text
    code, text = said(version, TARGET, tmp_path / "nothing")
    assert code == 1 and "cargo build --release" in text


def test_a_release_is_newer_than_what_came_before_it():
    script = (PACKAGING / "deb").read_text()
    debian = re.search(r"^debian=.*$", script, re.MULTILINE)[0]
    version = good("bash", "-c", f'version=0.2.0-rc.1; {debian}; echo "$debian"').strip()
    assert version == "0.2.0~rc.1-1"
    good("dpkg", "--compare-versions", version, "lt", "0.2.0-1")


def test_a_unit_that_is_missing_is_said(tmp_path):
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
    # Each command has one.
    commands = re.findall(r"^  ([a-z]+) ", good(SPOOL, "--help").split("Commands:")[1].split("Options:")[0], re.MULTILINE)
    assert {f"spool-{command}" for command in commands if command != "help"} <= {page.stem for page in pages}


def test_bash_completes(unpacked):
    script = f"""
        . {unpacked}/share/bash-completion/completions/spool
        complete -p spool
        COMP_WORDS=(spool sched) COMP_CWORD=1
        _spool spool sched spool
        echo "${{COMPREPLY[*]}}"
    """
    registered, words = good("bash", "--norc", "-c", script).splitlines()
    assert "_spool" in registered and words.split() == ["scheduler"]


def test_zsh_completes(unpacked, tmp_path):
    script = f"""
        fpath=({unpacked}/share/zsh/site-functions $fpath)
        autoload -Uz compinit && compinit -u -d {tmp_path}/dump
        print -r -- $_comps[spool]
        autoload +X _spool && functions _spool
    """
    output = good("zsh", "-f", "-c", script)
    assert output.startswith("_spool\n") and "scheduler" in output


def test_fish_completes(unpacked, tmp_path):
    script = f"source {unpacked}/share/fish/vendor_completions.d/spool.fish; complete --do-complete 'spool sched'"
    output = good("fish", "--no-config", "--command", script, env={**os.environ, "HOME": str(tmp_path)})
    assert [line.split("\t")[0] for line in output.splitlines()] == ["scheduler"]


def test_lintian_has_nothing_to_say(deb):
    # Root's is no other package.
    result = run("lintian", "--allow-root", "--fail-on", "error,warning", deb)
    assert result.returncode == 0, result.stdout + result.stderr
    unused = run("lintian", "--allow-root", "--tags", "mismatched-override,unused-override", deb)
    assert "mismatched-override" not in unused.stdout, unused.stdout


def test_the_package_says_what_it_needs(deb, version):
    fields = dict(line.split(": ", 1) for line in good("dpkg-deb", "--field", deb).splitlines() if not line.startswith(" "))
    assert fields["Version"] == f"{version}-1" and fields["Architecture"] == good("dpkg", "--print-architecture").strip()
    needs = [one.strip() for one in fields["Depends"].split(",")]
    assert "ffmpeg (>= 7:5.1)" in needs and any(one.startswith("libc6 (>= ") for one in needs)
    # What Debian 12 has is enough.
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
        assert stat.S_IMODE(file.st_mode) == 0o640 and file.st_uid == 0, "passwords are root's"
    # Nothing is started, now or with the machine.
    assert not list((root / "etc").rglob("*.service")) and not list((root / "etc").rglob("*.wants"))
    assert "spool" in gzip.decompress((root / "usr/share/man/man1/spool.1.gz").read_bytes()).decode()
    assert not good("dpkg", f"--root={root}", "--verify", "spool")


def test_systemd_takes_the_units(installed, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(installed.root, root, symlinks=True)
    # What they want of the system: its own units.
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True, dirs_exist_ok=True)
    units = [f"spool-{role}.service" for role in ROLES]
    result = run("systemd-analyze", f"--root={root}", "--man=no", "verify", *units)
    assert result.returncode == 0 and not result.stderr, result.stderr
    (root / "usr/bin/spool").unlink()
    assert run("systemd-analyze", f"--root={root}", "--man=no", "verify", *units).returncode != 0


def settings(root, role):
    """The variables that systemd reads from a settings file."""
    lines = (root / f"etc/spool/{role}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("role", ROLES)
def test_settings_are_the_binary_s(installed, role):
    unit = (installed.root / f"usr/lib/systemd/system/spool-{role}.service").read_text()
    assert f"EnvironmentFile=/etc/spool/{role}.env\n" in unit
    text = good(SPOOL, role, "--help")
    shown = re.findall(r"^#?(\w+)=", (installed.root / f"etc/spool/{role}.env").read_text(), re.MULTILINE)
    assert shown
    for name in shown:
        assert name.startswith("AWS_") or f"[env: {name}" in text, f"spool {role} knows no {name}"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_the_settings_as_they_come_work_together(installed, tmp_path):
    """The units' commands with the settings that are installed, as processes: one machine that is ready."""
    ports = {old: str(free_port()) for old in ("50050", "8090", "8080")}

    def here(value):
        for old, new in ports.items():
            value = re.sub(rf"(127\.0\.0\.1:){old}$", rf"\g<1>{new}", value)
        return value.replace("/var/lib/spool", str(tmp_path / "state"))

    (tmp_path / "state").mkdir()
    started = []
    try:
        for role in ROLES:
            unit = (installed.root / f"usr/lib/systemd/system/spool-{role}.service").read_text()
            program, *words = re.search("^ExecStart=(.*)$", unit, re.MULTILINE)[1].split()
            environment = {"PATH": "/usr/bin:/bin", **{name: here(value) for name, value in settings(installed.root, role).items()}}
            log = open(tmp_path / f"{role}.log", "wb")
            words = [f"{installed.root}{program}", *words]
            process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, cwd=tmp_path)
            started.append(process)
            url = f"http://127.0.0.1:{ports[{'scheduler': '50050', 'executor': '8090', 'api': '8080'}[role]]}/readyz"
            end = time.monotonic() + 60
            while not answers(url):
                assert process.poll() is None and time.monotonic() < end, (tmp_path / f"{role}.log").read_text()
                time.sleep(0.1)
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_settings_of_the_administrator_stay(deb, tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root may give files to root")
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
    # Jobs and videos, and whose they are, are not the package's.
    assert (installed.root / "var/lib/spool").exists() and "spool:" in (installed.root / "etc/passwd").read_text()


def test_shellcheck_has_nothing_to_say():
    scripts = [PACKAGING / name for name in ("tarball", "deb", "stage", "inputs", "tests/run")]
    scripts += [PACKAGING / "debian" / name for name in ("postinst", "prerm", "postrm")]
    result = run("shellcheck", "--external-sources", f"--source-path={PACKAGING}", *scripts)
    assert result.returncode == 0, result.stdout
