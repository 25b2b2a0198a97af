"""The record: one small JSON file a finished cell, and what a cell's computation adds to its metrics."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from semipyro.files import write_json, write_whole
from semipyro.inference.training.precision import network_precision
from shared.summary import versions

from .base import Cell, Experiment, Record, Settings

FIELDS = ("experiment", "budget", "cell", "seed", "settings", "metrics", "epochs", "minutes", "commit")


def compute(experiment: Experiment, cell: Cell, folder: Path) -> Record:
    """Measures a cell; `folder` is where it keeps checkpoints, those of an earlier try among them.

    What it prints goes into a `.log` beside the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        folder.with_name(f"{folder.name}.log").open("a", buffering=1) as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        metrics = dict(experiment.measure(cell.settings, cell.seed, folder))
    epochs, seconds = metrics.pop("epochs"), metrics.pop("seconds")
    return {
        **about(cell),
        "metrics": metrics,
        "epochs": epochs,
        "minutes": round(seconds / 60, 2),
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
        "precision": network_precision(cell.settings.get("flags", {}).get("precision", "32")),
    }


def about(cell: Cell) -> Record:
    """Which cell a record is of."""
    return {"experiment": cell.experiment, "budget": cell.budget, "cell": cell.name, "seed": cell.seed,
            "settings": cell.settings}  # fmt: skip


def keep(record: Record, cell: Cell, results: Path) -> None:
    """Writes the file, whole, unless there is one already."""
    path = cell.path(results)
    if not path.exists():
        write_json(path, record)


def keep_pictures(experiment: Experiment, cell: Cell, folder: Path, results: Path) -> None:
    """Copies the figures that the cell drew beside its record."""
    for name in experiment.pictures if cell.seed == 0 else ():
        drawn = folder / "figures" / f"{name}.png"
        if drawn.exists():
            write_whole(cell.path(results).with_name(f"{cell.key}-{name}.png"), partial(shutil.copyfile, drawn))


def find(cell: Cell, results: Path) -> Record | None:
    """The record of a cell; None where it is not done.

    Raises:
        ValueError: a file that is no record, or one of other settings, which must not be taken for this cell's.
    """
    path = cell.path(results)
    if not path.exists():
        return None
    record = read(path)
    measured, asked = what(record["settings"]), what(json.loads(json.dumps(cell.settings)))
    if measured != asked:
        different = [name for name in {*measured, *asked} if measured.get(name) != asked.get(name)]
        raise ValueError(f"{path} was measured with other settings ({', '.join(sorted(different))}); move it away to "
                         "measure the cell anew")  # fmt: skip
    return record


def what(settings: Settings) -> Settings:
    """The settings without the networks' precision, which is the machine's affair and stands in the record."""
    return {name: what(value) if isinstance(value, dict) else value
            for name, value in settings.items() if name != "precision"}  # fmt: skip


def read(path: Path) -> Record:
    """A record; a ValueError for a file that is none."""
    try:
        record: Any = json.loads(path.read_text())
    except ValueError:
        record = None
    if not isinstance(record, dict) or not set(FIELDS) <= set(record):
        raise ValueError(f"{path} is not the record of a cell; move it away")
    return record


def found(cells: Iterable[Cell], results: Path) -> list[Record]:
    """The records that are there."""
    return [record for record in (find(cell, results) for cell in cells) if record is not None]


def commit() -> str | None:
    """The commit of the repository, with a + where files differ from it; None outside one."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "../..", ":!../../results")
        return git("rev-parse", "--short=10", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> str:
    """The kind of machine: processor and cores, and the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] \
        if info.exists() else []  # fmt: skip
    threads = torch.get_num_threads()
    return f"{names[0] if names else model}, {threads} of {os.cpu_count()} cores"
