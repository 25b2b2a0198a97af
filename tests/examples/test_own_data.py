"""The script that sets the estimator beside scikit-learn's own means: its cells, its table, its files and errors."""

import json
import os

import numpy as np
import pytest
from semipyro.estimator import training
from sklearn.datasets import make_blobs

from helpers.example_runs import call, files, imported, times
from helpers.mutations import outcomes

METHODS = ["m2", "logistic regression", "random forest", "label spreading", "self-training"]


@pytest.fixture(scope="module")
def script():
    with imported("own_data") as module:
        yield module


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Two easy classes, as .csv and .npz, and files that are not quite a table."""
    folder = tmp_path_factory.mktemp("own")
    x, y = make_blobs(60, 3, centers=[[0, 0, 0], [9, 9, 9]], random_state=0)
    lines = [f"{a},{b},{'ash' if label else 'oak'},{c}" for (a, b, c), label in zip(x, y, strict=True)]
    (folder / "trees.csv").write_text("\n".join(["height,girth,kind,leaves", *lines]) + "\n")
    np.savez(folder / "trees.npz", x=x, y=y)
    np.savez(folder / "nox.npz", data=x)
    np.savez(folder / "one.npz", x=x, y=np.zeros(60))
    (folder / "words.csv").write_text("a,b\n1,x\ntwo,y\n")
    (folder / "empty.csv").write_text("a,b\n")
    (folder / "twice.csv").write_text("a,a\n1,x\n2,y\n")
    (folder / "wide.csv").write_text("a,kind\n1,x,3\n2,y,4\n")
    (folder / "latin.csv").write_bytes("a,kind\n1,Föhre\n".encode("latin-1"))
    np.savez(folder / "flat.npz", x=x[:, 0], y=y)
    np.savez(folder / "pairs.npz", x=x, y=np.stack([y, y], 1))
    np.savez(folder / "nan.npz", x=np.where(x < 0, np.nan, x), y=y)
    np.savez(folder / "pickled.npz", x=x, y=np.array([None] * 60))
    os.mkfifo(folder / "pipe.csv")
    os.mkfifo(folder / "pipe.npz")
    (folder / "folder.npz").mkdir()
    return folder


@pytest.fixture
def run(script, own, tmp_path, monkeypatch):
    """Runs the script here, in an empty folder, with short trainings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "STEPS", 40)
    monkeypatch.setattr(training, "LEAST_EPOCHS", 1)

    def ended(flags):
        done = call(script, f"--out run {flags}", own)
        return done.returncode, done.stdout, done.stderr

    return ended


def test_the_table_goes_into_a_page(run, script, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{script.MARKS[0]}\nold\n{script.MARKS[1]}\nafter\n")
    status, _, complaint = run("--data {own}/trees.csv --label kind --labels 1 --draws 1 --page page.md")
    assert (status, complaint) == (0, "")
    assert page.read_text() == "\n".join(
        ["before", script.MARKS[0], script.markdown(cells(tmp_path)), script.MARKS[1], "after", ""]
    )


def test_a_page_without_marks_is_refused(run, script, tmp_path):
    (tmp_path / "page.md").write_text(f"{script.MARKS[0]} and no end")
    status, _, complaint = run("--data {own}/trees.csv --label kind --labels 1 --draws 1 --page page.md")
    assert (status, complaint) == (2, f"own_data.py: error: page.md has no {script.MARKS[1]}\n")


def cells(folder):
    return json.loads((folder / "run" / "cells.json").read_text())["cells"]


def test_every_method_has_a_cell_for_each_number_of_labels_and_draw(run, tmp_path):
    status, printed, complaint = run("--data {own}/trees.csv --label kind --labels 1 3 --draws 2")
    assert (status, complaint) == (0, "")
    found = cells(tmp_path)
    expected = {("trees", method, labels, draw) for method in METHODS for labels in (1, 3) for draw in (0, 1)}
    assert {(cell["data"], cell["method"], cell["labels"], cell["draw"]) for cell in found} == expected
    assert len(found) == len(expected)
    for cell in found:  # 18 test rows, and classes that lie far apart
        assert sum(cell["bins"]["rows"]) == 18
        assert sum(cell["bins"]["right"]) == pytest.approx(18 * cell["accuracy"])
        assert 0 <= cell["calibration_error"] <= 1
    assert all(cell["accuracy"] == 1 for cell in found if cell["method"] == "logistic regression")
    assert "20 cells to compute, 0 are there" in printed
    assert "| trees, labels of each class | 1 | 3 | seconds |" in printed
    assert "| logistic regression | 100.0 ± 0.0 (" in printed
    assert files(tmp_path) == ["accuracy.png", "cells.json", "reliability.png"]


def test_the_same_rows_from_another_file_give_the_same_numbers(run, tmp_path):
    assert run("--data {own}/trees.npz --labels 2 --draws 1 --quiet") == (0, "", "")
    first = cells(tmp_path)
    assert run("--data {own}/trees.csv --label kind --labels 2 --draws 1 --overwrite --quiet")[0] == 0
    second = cells(tmp_path)
    easy = [[cell["accuracy"] for cell in found if cell["method"] in METHODS[1:3]] for found in (first, second)]
    assert easy == [[1.0, 1.0]] * 2  # the classes are numbered the other way round, and other rows are drawn


def test_what_is_done_is_not_done_again(run, tmp_path):
    assert run("--data {own}/trees.npz --labels 2 --draws 1")[0] == 0
    first = cells(tmp_path)
    status, printed, _ = run("--data {own}/trees.npz --labels 2 --draws 2 --resume")
    assert status == 0
    assert "5 cells to compute, 5 are there" in printed
    assert [cell for cell in cells(tmp_path) if cell["draw"] == 0] == first


def test_scores(script):
    """Four rows in two bins of confidence: 0.55 (none right) and 0.95 (all right)."""
    probabilities = np.array([[0.55, 0.45], [0.45, 0.55], [0.95, 0.05], [0.05, 0.95]])
    found = script.scores(probabilities, np.array([1, 0, 0, 1]))
    assert found["accuracy"] == 0.5
    assert found["calibration_error"] == pytest.approx((0.55 + 0.05) / 2)
    assert found["bins"]["rows"][5] == found["bins"]["rows"][9] == 2
    assert found["bins"]["right"][5] == 0
    assert found["bins"]["right"][9] == 2
    assert found["bins"]["confidence"][9] == pytest.approx(1.9)


def test_only_the_labels_that_are_shown_reach_a_method(script, monkeypatch):
    """The labels-only methods see labelled rows, the others all rows with -1; no method sees a test row."""
    seen = {}

    class Spy:
        def __init__(self, method):
            self.method = method

        def fit(self, x, y):
            seen[self.method] = (len(x), sorted(np.unique(y, return_counts=True)[1].tolist()))
            return self

        def predict_proba(self, x):
            return np.full((len(x), 2), 0.5)

    monkeypatch.setattr(script, "make", lambda method, seed: Spy(method))
    table = script.Table(np.random.default_rng(0).normal(size=(100, 2)), np.arange(100) % 2)
    for method in ("m2", "random forest", "label spreading"):
        script.measure(table, "x", method, 4, 0)
    assert seen == {"m2": (70, [4, 4, 62]), "random forest": (8, [4, 4]), "label spreading": (70, [4, 4, 62])}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--data trees", "--data trees is none of digits, breast-cancer, wine, iris, mnist, and no .npz or .csv file"),
        ("--data none.csv", "none.csv"),
        ("--data {own}/nox.npz", "no arrays x and y in it, only others"),
        ("--data {own}/one.npz", "one.npz has 1 classes; expected two or more"),
        ("--data {own}/words.csv", "columns beside the class must be numbers"),
        ("--data {own}/empty.csv", "empty.csv has no rows"),
        ("--data {own}/twice.csv --label a", "--label a is two of the columns"),
        ("--data {own}/wide.csv", "wide.csv: every line must have 2 columns, as the first, got 3"),
        ("--data {own}/latin.csv", "latin.csv must be text in UTF-8"),
        (
            "--data {own}/flat.npz",
            "flat.npz: expected rows of numbers and a class for each, got float64 of shape",
        ),
        ("--data {own}/pairs.npz", "pairs.npz: expected rows of numbers and a class for each"),
        ("--data {own}/nan.npz", "nan.npz: expected finite numbers, got NaN"),
        ("--data {own}/pickled.npz", "pickled.npz: y must be an array that can be read"),
        ("--data {own}/pipe.csv", "pipe.csv must be a file, got a pipe"),
        ("--data {own}/pipe.npz", "pipe.npz must be a file, got a pipe"),
        ("--data {own}/folder.npz", "folder.npz must be a file, got a folder"),
        ("--data {own}/trees.csv --label sort", "--label sort is none of the columns of"),
        ("--data {own}/trees.npz --labels 40", "--labels 40: the smallest class of trees has 21 training rows"),
        ("--models m3", "argument --models: invalid choice: 'm3'"),
        ("--draws 0", "argument --draws: must be at least 1, got 0"),
        ("--resume", "--resume: run holds no cells"),
    ],
)
def test_wrong_use_ends_with_2_and_one_line_and_writes_nothing(run, tmp_path, flags, message):
    status, printed, complaint = run(flags)
    assert (status, printed, complaint.count("\n")) == (2, "", 1)
    assert message in complaint
    assert files(tmp_path) == []


@pytest.mark.reliability
def test_a_damaged_table_is_read_or_refused_in_one_line(script, own, tries):
    """A .csv has no checksum, so that another digit is another number; whatever is no table ends in one line."""
    path = own / "trees.csv"
    found = outcomes(path, lambda path: [part.tolist() for part in script.read(str(path), "kind")], 3 * tries)
    assert {what.split(" ")[0] for what in found} <= {"refused", "unchanged", "silent"}, found
    assert found["refused"] > tries


def test_another_folder_is_refused(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    before = times(tmp_path)
    assert "run is no folder of this script" in run("--data {own}/trees.npz")[2]
    (tmp_path / "run" / "cells.json").write_text("{}")
    assert "holds cells; add --resume or --overwrite" in run("--data {own}/trees.npz")[2]
    assert "holds no cells of this script" in run("--data {own}/trees.npz --resume")[2]
    assert times(tmp_path).keys() - before.keys() == {tmp_path / "run" / "cells.json"}
