"""The record: one small JSON file a finished cell, which says whose it is and carries a checksum of its content."""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import torch
from semipyro.files import read_json, write_json, write_whole
from semipyro.inference.training.precision import network_precision
from shared.summary import versions

from . import EXPERIMENTS
from .base import Cell, Experiment, Record, Settings

RESULTS = Path(__file__).resolve().parents[2] / "results"  # the records of the repository
WORDS = ("bound_of", "classifier")  # metrics that are no numbers, here or as those of a first run


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
    """Writes the file, whole and with its checksum, unless there is one already; a ValueError where `check` has one."""
    path = cell.path(results)
    check(record, cell, path)
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
        ValueError: a file that is no record, damaged, changed by hand, or of another cell or other settings, which must
            not be taken for this cell's. The message is one line, and says how to measure the cell again.
    """
    path = cell.path(results)
    if not path.exists():
        return None
    try:
        record = read_json(path, sealed=True)
        check(record, cell, path)
    except (ValueError, OSError, RecursionError) as error:
        told = str(error) if str(path) in str(error) else f"{path}: {error}"
        elsewhere = [] if results == RESULTS else ["--results", str(results)]
        again = ["reproduce.py", "run", cell.experiment, "--budget", cell.budget, "--cells", cell.name, *elsewhere]
        raise ValueError(f"{told}; delete it and run the cell again: {shlex.join(again)}") from error
    return record


def look(cells: Iterable[Cell], results: Path) -> tuple[list[Record], list[str]]:
    """The records that are there, and a line for each file that `find` refuses."""
    records: list[Record] = []
    refused: list[str] = []
    for cell in cells:
        try:
            record = find(cell, results)
        except ValueError as error:
            refused.append(str(error))
        else:
            records += [] if record is None else [record]
    return records, refused


def found(cells: Iterable[Cell], results: Path) -> list[Record]:
    """The records that are there and not refused."""
    return look(cells, results)[0]


def refused(cells: Iterable[Cell], results: Path) -> list[str]:
    """A line for each file that is refused as a record."""
    return look(cells, results)[1]


# What a record is


def check(record: Record, cell: Cell, path: Path) -> None:
    """A ValueError that begins with the path, unless this is a record of the cell.

    It has all FIELDS and no others, its name and settings are the cell's, and what was measured are finite numbers.
    """
    if absent := FIELDS.keys() - {"precision"} - record.keys():  # earlier records have that among their settings
        raise ValueError(f"{path} is not the record of a cell: it has no {min(absent)}")
    if unknown := record.keys() - FIELDS.keys():
        raise ValueError(f"{path} is not the record of a cell: it has a field {min(unknown)!r}, which there is not")
    for name, value in record.items():
        wanted, fits = FIELDS[name]
        if not fits(value):
            raise ValueError(f"{path}: {name} must be {wanted}, got {shortened(value)}")
    said = "/".join(f"{record[name]}" for name in ("experiment", "budget", "cell")) + f"-seed{record['seed']}"
    if said != f"{cell.experiment}/{cell.budget}/{cell.key}":
        raise ValueError(f"{path} is the record of another cell: it says that it is of {said!r}")
    measured, asked = what(record["settings"]), what(json.loads(json.dumps(cell.settings)))
    if measured != asked:
        different = [name for name in {*measured, *asked} if measured.get(name) != asked.get(name)]
        raise ValueError(f"{path} was measured with other settings ({', '.join(sorted(map(repr, different)))})")
    for name in shown(cell) & record["metrics"].keys():
        if not is_number(record["metrics"][name]):
            raise ValueError(f"{path}: the metric {name} must be one number, got {shortened(record['metrics'][name])}")


def shown(cell: Cell) -> set[str]:
    """Which metrics of the cell a table or a claim has."""
    own = [experiment for experiment in EXPERIMENTS.values() if experiment.home == cell.experiment]
    numbers = {(number.cell, number.metric) for experiment in own for number in experiment.numbers}
    sides = {side for experiment in own for claim in experiment.claims for side in (claim.more, claim.less)}
    return {side[1] for side in numbers | sides if isinstance(side, tuple) and side[0] == cell.name}


def what(settings: Settings) -> Settings:
    """The settings without the networks' precision, which is the machine's affair and stands in the record."""
    return {name: what(value) if isinstance(value, dict) else value
            for name, value in settings.items() if name != "precision"}  # fmt: skip


def is_text(value: Any) -> bool:
    """Whether it is text of one line."""
    return isinstance(value, str) and value.isprintable()


def is_mapping(value: Any) -> bool:
    """Whether it is a JSON object."""
    return isinstance(value, dict)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_count(value: Any) -> bool:
    """Whether it is 0, 1, 2 and so on."""
    return is_number(value) and isinstance(value, int) and value >= 0


def is_measured(value: Any) -> bool:
    """Whether it is a finite number, or a list or a JSON object of such, however deep."""
    parts = value.values() if isinstance(value, dict) else value
    return all(map(is_measured, parts)) if isinstance(value, dict | list) else is_number(value)


def are_metrics(value: Any) -> bool:
    """Whether these are metrics by name: numbers, but for WORDS."""
    return is_mapping(value) and all(
        is_text(one) if name.removeprefix("first_") in WORDS else is_measured(one) for name, one in value.items()
    )


FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {  # of a record: what each must be
    **dict.fromkeys(("experiment", "budget", "cell"), ("a text", is_text)),
    "seed": ("a number from 0", is_count),
    "settings": ("settings by name", is_mapping),
    "metrics": ("finite numbers by name", are_metrics),
    "epochs": ("a number from 0", is_count),
    "minutes": ("a finite number from 0", lambda value: is_number(value) and value >= 0),
    "versions": ("versions by name", is_mapping),
    "commit": ("a text or null", lambda value: value is None or is_text(value)),
    **dict.fromkeys(("machine", "precision"), ("a text", is_text)),
}


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
