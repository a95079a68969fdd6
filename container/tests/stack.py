"""Services of compose.yaml as plain processes on loopback: their own commands, with other addresses."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import boto3
from files import SPOOL, compose, image, spool_services


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(what, condition, seconds=60):
    """Polls until `condition` is true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.1)
    return result


def postgres_program(name):
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert found, f"{name} not found: install postgresql"
    return str(found[-1])


class Postgres:
    """A real PostgreSQL server, with the user, database and password of the compose file."""

    def __init__(self, folder):
        settings = compose()["services"]["postgres"]["environment"]
        self.port, self.data, self.process = free_port(), folder / "data", None
        self.user = None
        if os.getuid() == 0:
            # PostgreSQL refuses to run as root.
            self.user = pwd.getpwnam("postgres")
            os.chown(folder, self.user.pw_uid, self.user.pw_gid)
        password = folder / "password"
        password.write_text(settings["POSTGRES_PASSWORD"])
        password.chmod(0o644)
        name = f"--username={settings['POSTGRES_USER']}"
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]
        self.call("initdb", "--pgdata", self.data, name, f"--pwfile={password}", *options)
        self.start()
        self.environment = {"PGPORT": str(self.port), "PGPASSWORD": settings["POSTGRES_PASSWORD"]}
        until("PostgreSQL starts", lambda: self.health() == 0)
        self.call("createdb", "--host=127.0.0.1", name, settings["POSTGRES_DB"])

    def call(self, program, *arguments):
        environment = {"PATH": "/usr/bin:/bin", **getattr(self, "environment", {})}
        words = [postgres_program(program), *map(str, arguments)]
        subprocess.run(words, check=True, capture_output=True, env=environment, **self.as_user())

    def as_user(self):
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}

    def start(self):
        self.process = subprocess.Popen(
            [
                postgres_program("postgres"),
                "-D",
                self.data,
                "-p",
                str(self.port),
                "-h",
                "127.0.0.1",
                "-k",
                self.data,
                "-F",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self.as_user(),
        )

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
            self.process = None

    def health(self):
        """Returns the exit code of the compose file's health check."""
        program, *arguments = compose()["services"]["postgres"]["healthcheck"]["test"][1:]
        environment = {"PATH": "/usr/bin:/bin", "PGPORT": str(self.port)}
        return subprocess.run(
            [postgres_program(program), *arguments], stdout=subprocess.DEVNULL, env=environment
        ).returncode


class Objects:
    """An S3 server in place of the compose file's, with its bucket."""

    def __init__(self):
        settings = compose()["services"]["s3"]["environment"]
        self.port = free_port()
        self.process = subprocess.Popen(
            ["moto_server", "--host", "127.0.0.1", "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        )
        until("the S3 server listens", self.listens)
        self.client.create_bucket(Bucket=settings["S3_BUCKET"])

    def listens(self):
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class Stack:
    """Starts and stops the services."""

    def __init__(self, folder):
        self.folder, self.processes, self.started = folder, {}, []
        base = folder / "postgres"
        base.mkdir()
        self.postgres = Postgres(base)
        self.started.append(self.postgres)
        self.objects = Objects()
        self.started.append(self.objects)
        scheduler, self.api, probes = free_port(), free_port(), free_port()
        # Each container has an address of its own; here all share one, with a port each.
        self.addresses = {
            "postgres:5432": f"127.0.0.1:{self.postgres.port}",
            "s3:8333": f"127.0.0.1:{self.objects.port}",
            "scheduler:50050": f"127.0.0.1:{scheduler}",
            "0.0.0.0:50050": f"127.0.0.1:{scheduler}",
            "127.0.0.1:50050": f"127.0.0.1:{scheduler}",
            "0.0.0.0:8080": f"127.0.0.1:{self.api}",
            "127.0.0.1:8080": f"127.0.0.1:{self.api}",
            "0.0.0.0:8090": f"127.0.0.1:{probes}",
            "127.0.0.1:8090": f"127.0.0.1:{probes}",
        }

    def localize(self, text):
        for address, local in self.addresses.items():
            if address in text:
                return text.replace(address, local)
        return text

    def environment(self, name):
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        declared = {**image().environment, **spool_services()[name]["environment"]}
        local = {
            key: self.localize(value).replace("/scratch", str(scratch)) for key, value in declared.items()
        }
        return {"PATH": "/usr/bin:/bin", **local}

    def words(self, command):
        program, *arguments = command
        assert program in ("spool", "/usr/local/bin/spool")
        return [SPOOL, *map(self.localize, arguments)]

    def start(self, name):
        """Starts a service as an engine does: with the image's entry point and the service's command."""
        words = self.words([*image().exec_form("ENTRYPOINT"), *spool_services()[name]["command"]])
        assert "0.0.0.0" not in " ".join(words)
        log = open(self.folder / f"{name}.log", "ab")
        self.processes[name] = subprocess.Popen(
            words, env=self.environment(name), stdout=log, stderr=log, cwd=self.folder
        )

    def stop(self, name, number=signal.SIGTERM):
        """Stops a service with a signal, and returns its exit code."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(60)

    def health(self, name):
        """Returns the exit code of a service's health check."""
        words = self.words(spool_services()[name]["healthcheck"]["test"][1:])
        return subprocess.run(words, env=self.environment(name), capture_output=True, timeout=10).returncode

    def execute(self, name, words):
        """Returns the output of a command, as `exec` in a service's container would print it."""
        result = subprocess.run(
            self.words(words), env=self.environment(name), capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
        for one in reversed(self.started):
            one.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
