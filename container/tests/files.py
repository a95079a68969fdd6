"""Parsed contents of Containerfile and compose.yaml."""

import os
import re
import shlex
from functools import cache
from pathlib import Path

import yaml
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "container"
SPOOL = os.environ.get("SPOOL", "")

# The variables that container/up generates, with distinct values.
VARIABLES = {
    "POSTGRES_PASSWORD": "pass0word",
    "S3_ACCESS_KEY": "access0key",
    "S3_SECRET_KEY": "secret0key",
    "SPOOL_TOKEN": "token0",
}


def interpolate(text, variables):
    """Substitutes variables as compose does: ${NAME}, ${NAME:-default}, ${NAME:?message}."""

    def substitute(match):
        name, kind, rest = match.group(1), match.group(2), match.group(3)
        value = variables.get(name, "")
        if value or (not kind and name in variables):
            return value
        if kind == ":-":
            return rest
        raise KeyError(f"{name}: {rest or 'is not set'}")

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", substitute, text)


@cache
def compose():
    return yaml.safe_load(interpolate((FOLDER / "compose.yaml").read_text(), VARIABLES))


class Image:
    """The final stage of the Containerfile."""

    def __init__(self):
        with open(FOLDER / "Containerfile", "rb") as file:
            steps = DockerfileParser(fileobj=file).structure
        self.steps = [
            (step["instruction"], step["value"]) for step in steps if step["instruction"] != "COMMENT"
        ]
        self.bases = [value for name, value in self.steps if name == "FROM"]
        last = max(i for i, (name, _) in enumerate(self.steps) if name == "FROM")
        self.final = self.steps[last:]

    def last(self, instruction):
        return [value for name, value in self.final if name == instruction][-1]

    def exec_form(self, instruction):
        """Returns the words of an instruction in exec form; in shell form a shell would get the signals."""
        value = yaml.safe_load(self.last(instruction))
        assert isinstance(value, list), f"{instruction} is not in exec form"
        return value

    @property
    def health(self):
        options, command = self.last("HEALTHCHECK").split("CMD", 1)
        return options, yaml.safe_load(command)

    @property
    def environment(self):
        return dict(
            word.split("=", 1) for name, value in self.final if name == "ENV" for word in shlex.split(value)
        )


@cache
def image():
    return Image()


def spool_services():
    return {
        name: service
        for name, service in compose()["services"].items()
        if service["image"].startswith("spool:")
    }
