"""Numbers in the README come from files that a command wrote."""

import json
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUMMARIES = sorted((ROOT / "results").rglob("summary.json"))
M2 = [path for path in SUMMARIES if json.loads(path.read_text())["paper"] == "m2"]
OTHERS = [path for path in SUMMARIES if path not in M2]
COMPARISONS = sorted((ROOT / "results").rglob("comparison.json"))
PAGES = (ROOT / "README.md", ROOT / "results" / "scripts.md")  # of M2's runs, and of the others


def row_of(path, page):
    """The cells of the page's row that links to the run."""
    folder = path.parent.relative_to(page.parent).as_posix()
    (row,) = [line for line in page.read_text().splitlines() if f"({folder})" in line]
    return [cell.strip() for cell in row.strip("|").split("|")]


def measured(found):
    """Accuracy, that of the labels alone, and the bound, as the README writes them."""
    return [f"{found['test_accuracy']:.1%}", f"{found['baseline_accuracy']:.1%}", f"{found['bound']:.2f}"]


@pytest.mark.parametrize("path", M2, ids=lambda path: path.parent.name)
def test_the_readme_s_row_of_m2_is_what_was_measured(path):
    found, folder = json.loads(path.read_text()), path.parent.relative_to(ROOT).as_posix()
    cells = row_of(path, PAGES[0])
    assert cells[0] == f"[seed {found['seed']}, {found['epochs']} epochs]({folder})"
    assert cells[1:] == [*measured(found), f"{found['seconds'] / 60:.0f}"]


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.parent.name)
def test_the_row_of_another_model_is_what_was_measured(path):
    found, settings = json.loads(path.read_text()), json.loads((path.parent / "settings.json").read_text())
    assert row_of(path, PAGES[1])[1:6] == [*measured(found), str(found["epochs"]), f"{found['seconds'] / 60:.0f}"]
    assert settings["epochs"] == found["epochs"]
    assert settings["paper"] == found["paper"]


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.parent.name)
def test_the_table_of_guides_is_what_was_measured(path):
    found, folder = json.loads(path.read_text()), path.parent.relative_to(PAGES[1].parent).as_posix()
    lines = [line for line in PAGES[1].read_text().splitlines() if f"({folder})" in line]
    settings = json.loads((path.parent / "settings.json").read_text())
    assert (found["paper"], found["epochs"]) == (settings["paper"], settings["epochs"])
    assert len(lines) == len(found["rows"])
    for line, row in zip(lines, found["rows"], strict=True):
        nats = [f"{row[name]:.2f}" for name in ("bound", "iw_bound", "gap", "kl")]
        others = [f"{row['accuracy']:.1%}", f"{row['parameters']:,}", f"{1000 * row['seconds_per_step']:.0f}"]
        assert [cell.strip() for cell in line.strip("|").split("|")][1:] == [row["guide"], *nats, *others]


def test_the_guide_s_table_is_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    own_data = import_module("own_data")
    cells = json.loads((ROOT / "results" / "own_data" / "cells.json").read_text())["cells"]
    page = (ROOT / "docs" / "which_model.md").read_text()
    first, last = own_data.MARKS
    assert page.split(first)[1].split(last)[0].strip() == own_data.markdown(cells)
    assert len(cells) == 5 * 5 * 4 * 10  # data sets, methods, numbers of labels, draws
    for image in re.findall(r"!\[.*?\]\((.*?)\)", page):
        assert (ROOT / "docs" / image).exists()


def test_the_page_of_the_experiments_is_what_was_measured(monkeypatch, tmp_path):
    """Written anew from the records that are in the repository."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    reproduce = import_module("reproduce")
    page = reproduce.report.page(reproduce.EXPERIMENTS.values(), ROOT / "results", reproduce.INTRODUCTION)
    assert page == (ROOT / "results" / "README.md").read_text()


def test_every_row_has_its_file():
    rows = [line for page in PAGES for line in page.read_text().splitlines() if re.match(r"\| \[.*-epochs\)", line)]
    assert len([line for line in rows if "compare_guides/" not in line]) == len(SUMMARIES)
    assert M2
    assert OTHERS
    assert COMPARISONS


@pytest.mark.parametrize("path", SUMMARIES, ids=lambda path: path.parent.name)
def test_no_run_names_a_folder_of_the_machine(path):
    for file in path.parent.iterdir():
        assert not any(f"{folder}/" in file.read_text() for folder in ("/work", "/tmp", "/root", "/home", "/Users"))
