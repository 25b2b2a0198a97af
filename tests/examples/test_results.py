"""Numbers in the README come from files that a command wrote, and that nobody changed since."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from semipyro.files import read_json

from helpers.example_runs import imported

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = sorted((ROOT / "results").rglob("*.json"))
RECORDS = [path for path in WRITTEN if path.parent.name in ("smoke", "desk", "paper")]
SUMMARIES = sorted((ROOT / "results").rglob("summary.json"))
M2 = [path for path in SUMMARIES if read_json(path)["paper"] == "m2"]
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
    found, folder = read_json(path), path.parent.relative_to(ROOT).as_posix()
    cells = row_of(path, PAGES[0])
    assert cells[0] == f"[seed {found['seed']}, {found['epochs']} epochs]({folder})"
    assert cells[1:] == [*measured(found), f"{found['seconds'] / 60:.0f}"]


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.parent.name)
def test_the_row_of_another_model_is_what_was_measured(path):
    found, settings = read_json(path), read_json(path.parent / "settings.json")
    assert row_of(path, PAGES[1])[1:6] == [*measured(found), str(found["epochs"]), f"{found['seconds'] / 60:.0f}"]
    assert settings["epochs"] == found["epochs"]
    assert settings["paper"] == found["paper"]


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.parent.name)
def test_the_table_of_guides_is_what_was_measured(path):
    found, folder = read_json(path), path.parent.relative_to(PAGES[1].parent).as_posix()
    lines = [line for line in PAGES[1].read_text().splitlines() if f"({folder})" in line]
    settings = read_json(path.parent / "settings.json")
    assert (found["paper"], found["epochs"]) == (settings["paper"], settings["epochs"])
    assert len(lines) == len(found["rows"])
    for line, row in zip(lines, found["rows"], strict=True):
        nats = [f"{row[name]:.2f}" for name in ("bound", "iw_bound", "gap", "kl")]
        others = [f"{row['accuracy']:.1%}", f"{row['parameters']:,}", f"{1000 * row['seconds_per_step']:.0f}"]
        assert [cell.strip() for cell in line.strip("|").split("|")][1:] == [row["guide"], *nats, *others]


def test_the_guide_s_table_is_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    own_data = import_module("own_data")
    cells = read_json(ROOT / "results" / "own_data" / "cells.json")["cells"]
    page = (ROOT / "docs" / "which_model.md").read_text()
    first, last = own_data.MARKS
    assert page.split(first)[1].split(last)[0].strip() == own_data.markdown(cells)
    assert len(cells) == 5 * 5 * 4 * 10  # data sets, methods, numbers of labels, draws
    for image in re.findall(r"!\[.*?\]\((.*?)\)", page):
        assert (ROOT / "docs" / image).exists()


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.parent.name)
def test_every_file_is_what_was_written(path):
    """By its checksum: a number that was changed by hand is found."""
    assert read_json(path, sealed=True)


@pytest.fixture(scope="module")
def reproduce():
    with imported("reproduce") as module:
        yield module


def test_every_record_is_that_of_the_cell_in_whose_place_it_lies(reproduce):
    cells = {cell.path(ROOT / "results"): cell for experiment in reproduce.EXPERIMENTS.values()
             for budget in reproduce.BUDGETS for cell in experiment.cells(budget)}  # fmt: skip
    assert len(RECORDS) > 100
    for path in RECORDS:
        assert reproduce.records.find(cells[path], ROOT / "results") is not None


def test_a_number_changed_by_hand_is_found_in_every_record(tmp_path):
    for path in RECORDS:
        text = path.read_text()
        at = re.compile(r'"metrics": \{.*?: -?\d*\.?(\d)', re.DOTALL).search(text).start(1)
        copy = tmp_path / path.name
        copy.write_text(f"{text[:at]}{9 - int(text[at])}{text[at + 1 :]}")
        with pytest.raises(ValueError, match="was changed or damaged after it was written"):
            read_json(copy, sealed=True)


def test_the_page_of_the_experiments_is_what_was_measured(reproduce):
    """Written anew from the records that are in the repository."""
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
