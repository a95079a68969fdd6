"""Renders user data as spool-cluster does, without a cloud."""

import base64
import subprocess

import yaml
from conftest import FOLDER

# Sources the libraries of spool-cluster, and parses options with them.
RENDER = """
set -euo pipefail
root=$1 role=$2 target=$3
shift 3
. "$root/lib/settings.bash"
. "$root/lib/render.bash"
token=$1 s3_access=$2 s3_secret=$3
shift 3
parse_options "$@"
render "$role" "$target"
"""

TOKEN, ACCESS, SECRET = "0a1b2c3d4e5f", "anaccesskey", "asecretkey"
COMMON = {"binary-url": "https://example.com/spool.tar.gz", "binary-sha256": "0" * 64, "bucket": "media"}


def render(role, folder, **options):
    """Renders the user data of a role with options of spool-cluster, and returns its file."""
    target = folder / f"{role}.yaml"
    settings = COMMON | {key.replace("_", "-"): str(value) for key, value in options.items()}
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    subprocess.run(
        ["bash", "-c", RENDER, "render", FOLDER, role, target, TOKEN, ACCESS, SECRET, *arguments], check=True
    )
    return target


def files(user_data):
    """Returns the contents of the files that user data writes, by path."""
    written = yaml.safe_load(user_data.read_text())["write_files"]
    return {
        file["path"]: base64.b64decode(file["content"]).decode()
        if file.get("encoding") == "b64"
        else file["content"]
        for file in written
    }


def environment(content):
    """Returns the variables of an EnvironmentFile whose values have no quotes."""
    lines = [line for line in content.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def exec_start(unit):
    """Returns the command of a unit."""
    lines = [line.removeprefix("ExecStart=") for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert len(lines) == 1
    return lines[0].split()
