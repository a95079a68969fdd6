"""Fills the templates, as `spool slurm script` does.

A placeholder is `@NAME@`. `@X_SH@` is replaced with the contents of the file `x.sh`. A line with `@SBATCH@`
or `@SETUP@` is repeated for each of its values, and omitted without values. Other values are plain text in
`#SBATCH` lines, and quoted shell words elsewhere.
"""

import pathlib
import re
import shlex

TEMPLATES = pathlib.Path(__file__).resolve().parent.parent / "templates"

# Default values of each template.
DEFAULTS = {
    "scheduler": {
        "NAME": "spool-scheduler",
        "TIME": "1-00:00:00",
        "LEAD": 60,
        "PORT": 0,
        "INTERFACE": "",
        "REQUEUES": 0,
    },
    "executors": {
        "NAME": "spool-executors",
        "EXECUTORS": 4,
        "CPUS": 8,
        "TIME": "4:00:00",
        "LEAD": 120,
        "SCHEDULER": "",
        "THREADS": 1,
        "IDLE_TIMEOUT": 300,
        "REQUEUES": 10,
    },
    "batch": {
        "NAME": "spool-batch",
        "NODES": 1,
        "CPUS": 8,
        "TIME": "4:00:00",
        "LEAD": 120,
        "INTERFACE": "",
        "THREADS": 1,
        "REQUEUES": 10,
    },
}
SHARED = {"SPOOL": "spool", "LOGS": ".", "WAIT": 300, "SBATCH": [], "SETUP": []}

# Placeholders that become one shell word, and those that become several.
WORD = {"FOLDER", "SPOOL", "PORT", "INTERFACE", "SCHEDULER", "THREADS", "WAIT", "IDLE_TIMEOUT", "REQUEUES"}
WORDS = {"WORK"}
# Placeholders whose line is repeated for each value.
LINES = {"SBATCH", "SETUP"}


def fill(template, **given):
    """Returns a template's script. Values are given by the names of their placeholders in lower case."""
    values = SHARED | DEFAULTS[template] | {name.upper(): value for name, value in given.items()}
    for file in TEMPLATES.glob("*.sh"):
        values[f"{file.stem.upper()}_SH"] = file.read_text().rstrip("\n")
    lines = []
    for line in (TEMPLATES / f"{template}.sbatch").read_text().splitlines():
        names = re.findall("@([A-Z_]+)@", line)
        repeated = [name for name in names if name in LINES]
        if repeated:
            (name,) = names
            lines += [line.replace(f"@{name}@", str(value)) for value in values[name]]
            continue
        for name in names:
            line = line.replace(f"@{name}@", text(name, values[name]))
        lines.append(line)
    return "\n".join(lines) + "\n"


def text(name, value):
    if name in WORDS:
        return shlex.join(str(word) for word in value)
    return shlex.quote(str(value)) if name in WORD else str(value)
