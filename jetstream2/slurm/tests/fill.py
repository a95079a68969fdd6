"""Fills the templates, as `spool slurm script` does.

A placeholder is `@NAME@`. `@X_SH@` is what the file `x.sh` holds. A line with `@SBATCH@` or `@SETUP@` is there once for each of its
values, and not at all where there is none. Other values are text in `#SBATCH` lines, and quoted words of the shell elsewhere.
"""

import pathlib
import re
import shlex

TEMPLATES = pathlib.Path(__file__).resolve().parent.parent / "templates"

# What may be left out, for each template.
DEFAULTS = {
    "scheduler": {"NAME": "spool-scheduler", "TIME": "1-00:00:00", "LEAD": 60, "PORT": 0, "INTERFACE": "", "REQUEUES": 0},
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

# Words of the shell: one, or as many as there are.
WORD = {"FOLDER", "SPOOL", "PORT", "INTERFACE", "SCHEDULER", "THREADS", "WAIT", "IDLE_TIMEOUT", "REQUEUES"}
WORDS = {"WORK"}
# A line for each.
LINES = {"SBATCH", "SETUP"}


def fill(template, **given):
    """The text of a template's job. Names of values are those of its placeholders, in lower case."""
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
