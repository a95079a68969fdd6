"""Shared fixtures: the folders, the binary, and a cloud with the real client."""

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

FLAVORS = [
    ("m3.tiny", 1, 3),
    ("m3.small", 2, 6),
    ("m3.quad", 4, 15),
    ("m3.medium", 8, 30),
    ("g3.medium", 8, 30),
]

# Stand-in for ssh: logs the call, and exits with a configured code.
SSH = """#!/usr/bin/env bash
echo "$*" >>"{log}"
exit "$(cat "{code}")"
"""


@pytest.fixture(scope="session")
def spool():
    """The binary under test."""
    path = os.environ.get("SPOOL") or str(FOLDER.parent / "target" / "debug" / "spool")
    if not os.access(path, os.X_OK):
        pytest.fail(f"no spool binary at {path}: build it, or set SPOOL")
    return Path(path).resolve()


@pytest.fixture(scope="session")
def openstack(tmp_path_factory):
    # A short path, because the name of a Unix socket is limited to 107 bytes.
    folder = Path(shutil.os.path.realpath(tmp_path_factory.mktemp("os", numbered=True)))
    running = client.Client(folder)
    yield running
    running.close()


class Bench:
    """Runs spool-cluster against a separate cloud."""

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
            "SPOOL_CLUSTER_POLL_SECONDS": "0.1",
            "OS_AUTH_TYPE": "v3applicationcredential",
            "OS_AUTH_URL": f"{self.running.url}/v3",
            "OS_REGION_NAME": "R",
            "OS_IDENTITY_API_VERSION": "3",
            "OS_INTERFACE": "public",
            "OS_APPLICATION_CREDENTIAL_ID": "x",
            "OS_APPLICATION_CREDENTIAL_SECRET": "right",
        }

    def run(self, *arguments, code=0, environment=None):
        """Runs spool-cluster, and returns its stdout and stderr in one text."""
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
        assert not self.cloud.unimplemented, (
            f"not implemented by the fake cloud: {self.cloud.unimplemented}\n{done.stdout}"
        )
        assert done.returncode == code, f"exit code {done.returncode}, expected {code}:\n{done.stdout}"
        return done.stdout

    def options(self, **changed):
        """Returns the options of a complete cluster, without those that are None."""
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
    created = Bench(tmp_path, openstack)
    yield created
    created.running.close()


def until(what, seconds, probe):
    """Polls until `probe` returns a true value, and returns that value."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found, last = probe(), None
        except Exception as error:  # noqa: BLE001 - reported after the deadline
            found, last = None, error
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what} ({last})")
        time.sleep(0.2)
