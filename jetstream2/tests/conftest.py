"""What the tests share: the folders, the binary, and a cloud with the real client."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent
sys.path.insert(0, str(HERE))

import client  # noqa: E402
import cloud  # noqa: E402

FLAVORS = [("m3.tiny", 1, 3), ("m3.small", 2, 6), ("m3.quad", 4, 15), ("m3.medium", 8, 30), ("g3.medium", 8, 30)]

# Logs a call, and drains as an executor does that was told to leave.
SSH = """#!/usr/bin/env bash
echo "$*" >>"{log}"
exit "$(cat "{code}")"
"""


@pytest.fixture(scope="session")
def spool():
    """The binary under test."""
    path = os.environ.get("SPOOL") or str(FOLDER.parent / "target" / "debug" / "spool")
    if not os.access(path, os.X_OK):
        pytest.fail(f"there is no spool at {path}: build it, or say SPOOL=…")
    return Path(path).resolve()


@pytest.fixture(scope="session")
def openstack(tmp_path_factory):
    # Not below the tests' own folders, whose names are too long for a socket's.
    folder = Path(shutil.os.path.realpath(tmp_path_factory.mktemp("os", numbered=True)))
    running = client.Client(folder)
    yield running
    running.close()


class Bench:
    """spool-cluster with a cloud of its own."""

    def __init__(self, folder, openstack):
        self.cloud = cloud.Cloud(FLAVORS)
        self.running = cloud.Running(self.cloud)
        self.folder, self.state = folder, folder / "state"
        self.ssh_log, self.ssh_code = folder / "ssh.log", folder / "ssh.code"
        self.ssh_code.write_text("0")
        self.ssh_log.touch()
        programs = folder / "bin"
        programs.mkdir()
        (programs / "ssh").write_text(SSH.format(log=self.ssh_log, code=self.ssh_code))
        (programs / "ssh").chmod(0o755)
        self.binary = folder / "spool"
        self.binary.write_bytes(b"a binary")
        self.environment = {
            "PATH": f"{programs}:{openstack.folder}:{os.environ['PATH']}",
            "HOME": str(folder),
            "SPOOL_CLUSTER_LOOK_SECONDS": "0.1",
            "OS_AUTH_TYPE": "v3applicationcredential",
            "OS_AUTH_URL": f"{self.running.url}/v3",
            "OS_REGION_NAME": "R",
            "OS_IDENTITY_API_VERSION": "3",
            "OS_INTERFACE": "public",
            "OS_APPLICATION_CREDENTIAL_ID": "x",
            "OS_APPLICATION_CREDENTIAL_SECRET": "right",
        }

    def run(self, *arguments, code=0, environment=None):
        """Runs spool-cluster and returns what it printed, stdout and stderr in one."""
        everything = [str(FOLDER / "spool-cluster"), *arguments, "--state", str(self.state)]
        done = subprocess.run(
            everything,
            env=environment or self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert not self.cloud.unknown, f"asked of the cloud, which has no answer: {self.cloud.unknown}\n{done.stdout}"
        assert done.returncode == code, f"exit code {done.returncode}, and {code} was expected:\n{done.stdout}"
        return done.stdout

    def wanted(self, **changed):
        """Options of a whole cluster; those that are None are left out."""
        options = {
            "name": "demo",
            "key": "mine",
            "ssh-from": "203.0.113.7/32",
            "binary": str(self.binary),
            "flavor": "m3.quad",
            "s3-endpoint": f"{self.running.url}/s3",
        } | {key.replace("_", "-"): value for key, value in changed.items()}
        return [f"--{key}={value}" for key, value in options.items() if value is not None]

    def executors(self):
        return [name for name in self.cloud.names("servers") if "executor" in name]


@pytest.fixture
def bench(tmp_path, openstack):
    made = Bench(tmp_path, openstack)
    yield made
    made.running.close()


def until(what, seconds, probe):
    """Waits until `probe` gives something, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found, last = probe(), None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told at the end
            found, last = None, error
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s ({last})")
        time.sleep(0.2)
