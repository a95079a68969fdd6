"""The commands of the image and of the compose file work, and the health checks report the true state."""

import json
import re
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from files import FOLDER, SPOOL, compose, image
from stack import Stack, free_port, until


@pytest.fixture(scope="module")
def stack():
    # PostgreSQL runs as another user, which may not enter pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="spool-container-"))
    folder.chmod(0o755)
    stack = Stack(folder)
    try:
        yield stack
    finally:
        stack.close()


# compose --file FILE exec -T [--env NAME=VALUE] SERVICE WORDS
ENGINE = """#!/usr/bin/env python3
import json, os, sys
words = sys.argv[sys.argv.index("-T") + 1:]
more = {{}}
while words[0] == "--env":
    name, value = words[1].split("=", 1)
    more[name], words = value, words[2:]
environment = json.load(open({environments!r}))[words[0]] | more
# In the container the API listens at its default address.
environment["SPOOL_SERVER"] = "http://" + {addresses!r}["127.0.0.1:8080"]
program = {spool!r} if words[1] == "spool" else words[1]
os.execvpe(program, words[1:], environment)
"""


def test_a_service_is_unhealthy_until_it_runs(stack):
    order = ["scheduler", "executor", "api"]
    for name in order:
        # The services of depends_on run by now.
        needed = [other for other in compose()["services"][name]["depends_on"] if other in order]
        assert all(stack.health(other) == 0 for other in needed)
        assert stack.health(name) != 0, f"{name} is healthy before it runs"
        stack.start(name)
        until(f"{name} is healthy", lambda name=name: stack.health(name) == 0)


def test_the_command_that_up_prints_creates_a_key(stack):
    command = re.search(r"exec api (spool keys create .*)", (FOLDER / "up").read_text())[1]
    assert len(stack.execute("api", command.split()).splitlines()) == 1


def test_a_video_is_uploaded_transcoded_and_played(stack, tmp_path):
    """Runs container/smoke, with an engine that executes commands as local processes."""
    programs = tmp_path / "bin"
    programs.mkdir()
    environments = tmp_path / "environments"
    environments.write_text(json.dumps({name: stack.environment(name) for name in stack.processes}))
    (programs / "docker").write_text(
        ENGINE.format(environments=str(environments), addresses=stack.addresses, spool=SPOOL)
    )
    (programs / "docker").chmod(0o755)
    result = subprocess.run(
        [FOLDER / "smoke"],
        env={"PATH": f"{programs}:/usr/bin:/bin", "SPOOL_PORT": str(stack.api)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert result.returncode == 0, result.stdout + result.stderr + stack.log("api")[-2000:]
    assert "#EXT-X-STREAM-INF" in result.stdout
    # The video is at the compose file's media prefix.
    objects = stack.objects.client.list_objects_v2(Bucket="spool", Prefix="media/")["Contents"]
    assert any(one["Key"].endswith("/master.m3u8") for one in objects)


def test_a_stopped_database_makes_the_api_unhealthy(stack):
    assert stack.postgres.health() == 0
    stack.postgres.stop()
    assert stack.postgres.health() != 0
    until("the API is unhealthy", lambda: stack.health("api") != 0)
    stack.postgres.start()
    until("PostgreSQL is healthy", lambda: stack.postgres.health() == 0)
    until("the API is healthy again", lambda: stack.health("api") == 0)


def test_a_killed_scheduler_makes_executors_unhealthy(stack):
    stack.stop("scheduler", signal.SIGKILL)
    assert stack.health("scheduler") != 0
    until("the executor is unhealthy", lambda: stack.health("executor") != 0)
    stack.start("scheduler")
    until("the scheduler is healthy again", lambda: stack.health("scheduler") == 0)
    until("the executor is healthy again", lambda: stack.health("executor") == 0)


def test_the_scheduler_requires_a_token(stack):
    scheduler = stack.addresses["scheduler:50050"]
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"http://{scheduler}/executors", timeout=10)
    assert error.value.code == 401


def test_the_stop_signal_ends_each_service_in_time(stack):
    number = getattr(signal, image().last("STOPSIGNAL"))
    for name in ("api", "executor", "scheduler"):
        assert stack.stop(name, number) == 0, stack.log(name)[-2000:]
        assert stack.health(name) != 0


def test_logs_have_the_format_of_the_image(stack):
    assert image().environment["SPOOL_LOG_FORMAT"] == "json"
    lines = [line for line in stack.log("scheduler").splitlines() if line.startswith("{")]
    assert lines and all(json.loads(line) for line in lines)


def test_the_image_without_a_command_prints_its_usage():
    result = subprocess.run([SPOOL, *image().exec_form("CMD")], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0 and "Usage: spool" in result.stdout


def test_the_image_health_check_queries_the_configured_url():
    _, (_, *words) = image().health
    url = f"http://127.0.0.1:{free_port()}/readyz"
    environment = {"SPOOL_HEALTH_URL": url, "PATH": "/usr/bin:/bin"}
    result = subprocess.run([SPOOL, *words], env=environment, capture_output=True, text=True, timeout=30)
    assert result.returncode != 0 and url in result.stderr and not result.stdout
