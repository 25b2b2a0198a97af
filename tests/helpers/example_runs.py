"""The scripts of `examples/` as tests run them, and what such a run leaves in its folder."""

import csv
import io
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.files import read_json
from semipyro.plots.files import save

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@contextmanager
def imported(name):
    """A script, or a module beside the scripts, which import each other by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield import_module(name)


def call(module, flags, own):
    """What a process of its own would have ended with; {own} in the flags is the folder of the user's files."""
    printed, status = (io.StringIO(), io.StringIO()), 0
    with redirect_stdout(printed[0]), redirect_stderr(printed[1]):
        try:
            module.main(flags.format(own=own).split())
        except SystemExit as stopped:
            status = stopped.code
    return CompletedProcess(flags, status, *(text.getvalue() for text in printed))


def summary(folder):
    """What summary.json holds, but for its checksum, which is compared."""
    return read_json(folder / "summary.json")


def numbers(folder):
    """metrics.csv but for the seconds, which no run repeats."""
    with (folder / "metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def complaints(done):
    """What a run prints on standard error, but for the warning of few classes, which short runs may use."""
    return [line for line in done.stderr.splitlines() if "it has collapsed" not in line]


def files(folder):
    """The names of all files in the folder and below it."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def times(folder):
    """When each file was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def render_once(monkeypatch, rendered):
    """Every figure is made, and the first of its kind is rendered; the files of the others, which cost more, are empty.

    Args:
        rendered: the kinds so far, to be kept as long as a kind is to be rendered once.
    """

    def save_once(figure, path):
        artists = {type(artist) for axes in figure.axes for artist in axes.get_children()}
        kind = (path.name, len(figure.axes) > 1, frozenset(artists))
        if kind in rendered:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        else:
            rendered.add(kind)
            save(figure, path)

    monkeypatch.setattr(plots, "save", save_once)


def leave_figures_empty(monkeypatch):
    """Figures take most of a short run's time; where they are not looked at, their files are there, and empty."""
    for name in plots.__all__:
        monkeypatch.setattr(plots, name, lambda *_, **__: Figure())
    monkeypatch.setattr(plots, "save", lambda _, path: path.parent.mkdir(exist_ok=True) or path.touch())
