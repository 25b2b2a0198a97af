"""Records say whose they are and that they are whole; whatever else lies in their place is named, and left out."""

import subprocess
import sys

import pytest
from semipyro.files import read_json, write_json

from helpers.example_runs import call, imported
from helpers.mutations import outcomes

CELL = "thesis-moons/desk/m2-seed0.json"
HOLDER = """
import sys, time
from semipyro.files import hold
with hold(sys.argv[1], sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def script():
    with imported("reproduce") as module:
        yield module


@pytest.fixture
def cell(script):
    return script.EXPERIMENTS["thesis-moons"].cells("desk")[0]


@pytest.fixture
def path(tmp_path, root):
    """A record of the repository in a folder of results of its own, beside that of another cell."""
    for name in (CELL, CELL.replace("seed0", "seed1")):
        copy = tmp_path / "results" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((root / "results" / name).read_bytes())
    return tmp_path / "results" / CELL


def changed(**fields):
    return lambda record: record | fields


def measured(**metrics):
    return lambda record: record | {"metrics": record["metrics"] | metrics}


CRAFTED = {
    "another seed": (changed(seed=1), "it says that it is of 'thesis-moons/desk/m2-seed1'"),
    "another cell": (changed(cell="ours"), "is the record of another cell"),
    "another budget": (changed(budget="paper"), "is the record of another cell"),
    "another experiment": (changed(experiment="thesis-fig3"), "is the record of another cell"),
    "a seed of text": (changed(seed="0"), "seed must be a number from 0, got '0'"),
    "a seed that is a bool": (changed(seed=False), "seed must be a number from 0, got False"),
    "a null metric": (measured(accuracy_end=None), "metrics must be finite numbers by name"),
    "a metric of text": (measured(accuracy_end="0.99"), "metrics must be finite numbers by name"),
    "a metric that is NaN": (measured(accuracy_end=float("nan")), "metrics must be finite numbers by name"),
    "a metric that is a bool": (measured(accuracy_end=True), "metrics must be finite numbers by name"),
    "a metric beyond floats": (measured(accuracy_end=10**400), "metrics must be finite numbers by name"),
    "a curve with a null": (measured(curves={"test_accuracy": [0.5, None]}), "metrics must be finite numbers by name"),
    "a list for a number": (measured(accuracy_end=[0.99]), "the metric accuracy_end must be one number"),
    "metrics of text": (changed(metrics="none"), "metrics must be finite numbers by name, got 'none'"),
    "null metrics": (changed(metrics=None), "metrics must be finite numbers by name, got None"),
    "null minutes": (changed(minutes=None), "minutes must be a finite number from 0, got None"),
    "negative minutes": (changed(minutes=-1.0), "minutes must be a finite number from 0, got -1.0"),
    "minutes of text": (changed(minutes="3"), "minutes must be a finite number from 0, got '3'"),
    "endless minutes": (changed(minutes=float("inf")), "minutes must be a finite number from 0, got inf"),
    "half an epoch": (changed(epochs=0.5), "epochs must be a number from 0, got 0.5"),
    "settings that are a list": (changed(settings=[]), "settings must be settings by name, got []"),
    "null settings": (changed(settings=None), "settings must be settings by name, got None"),
    "other settings": (changed(settings={"flags": {}}), "was measured with other settings ("),
    "a machine of two lines": (changed(machine="a\nb"), r"machine must be a text, got 'a\nb'"),
    "an unknown field": (changed(note="by hand"), "it has a field 'note', which there is not"),
    "a field that is absent": (
        lambda record: {name: value for name, value in record.items() if name != "minutes"},
        "is not the record of a cell: it has no minutes",
    ),
}  # fmt: skip
DAMAGED = {
    "empty": ("", "is damaged, or not a JSON file"),
    "a list": ("[]", "must hold a JSON object, got list"),
    "without a checksum": ('{"metrics": {}}', "has no checksum"),
    "nested too deeply": ('{"metrics": ' + 100_000 * "[", "is damaged, or not a JSON file"),
    "nested as deeply as JSON can be": ('{"metrics": ' + 900 * "[" + 900 * "]" + "}", "m2-seed0.json"),
}


def again(path):
    command = f"reproduce.py run thesis-moons --budget desk --cells m2 --results {path.parents[2]}"
    return f"delete it and run the cell again: {command}"


@pytest.mark.parametrize("what", CRAFTED)
def test_what_is_not_this_cell_s_record_is_refused(script, cell, path, what):
    """Whole files with a checksum of their own, so that it is the content that is refused."""
    change, message = CRAFTED[what]
    write_json(path, change(read_json(path)))
    with pytest.raises(ValueError, match="^[^\n]+$") as refused:
        script.records.find(cell, path.parents[2])
    assert str(refused.value).startswith(str(path))
    assert message in str(refused.value)
    assert str(refused.value).endswith(again(path))


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_no_record_at_all_is_refused(script, cell, path, what):
    text, message = DAMAGED[what]
    path.write_text(text)
    with pytest.raises(ValueError, match="^[^\n]+$") as refused:
        script.records.find(cell, path.parents[2])
    assert message in str(refused.value)
    assert str(refused.value).endswith(again(path))


def test_a_folder_in_a_record_s_place_is_refused(script, cell, path):
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="must be a file, got a folder"):
        script.records.find(cell, path.parents[2])


@pytest.mark.reliability
def test_damaged_records_are_refused(script, cell, path, tries, counted):
    found = outcomes(path, lambda path: script.records.find(cell, path.parents[2]), 2 * tries)
    counted("damaged records", found)
    assert set(found) <= {"refused", "unchanged"}, found
    assert found["refused"] > tries


def test_a_record_that_could_not_be_read_is_not_written(script, cell, path):
    record = read_json(path)
    path.unlink()
    with pytest.raises(ValueError, match="metrics must be finite numbers by name"):
        script.records.keep(record | {"metrics": {"test_accuracy": float("nan")}}, cell, path.parents[2])
    assert not path.exists()
    script.records.keep(record, cell, path.parents[2])
    assert script.records.find(cell, path.parents[2]) == record


def test_precision_is_the_machine_s_affair(script, tmp_path):
    cell = script.EXPERIMENTS["thesis-table1"].cells("desk")[0]
    record = script.records.about(cell) | {"metrics": {}, "epochs": 1, "minutes": 0.5, "versions": {}, "commit": None,
                                           "machine": "a machine"}  # fmt: skip
    for precision in ("32", "bf16"):
        flags = {**cell.settings["flags"], "precision": precision}
        write_json(cell.path(tmp_path), record | {"settings": {**cell.settings, "flags": flags}})
        assert script.records.find(cell, tmp_path)["settings"]["flags"]["precision"] == precision


@pytest.mark.parametrize("verb", ["list", "show", "show thesis-moons"])
def test_list_and_show_name_what_is_refused_and_go_on(script, path, verb):
    """One damaged and one of another seed: each is named on a line, and the third is shown."""
    third = path.with_name("m2-seed2.json")
    third.write_bytes(path.with_name("m2-seed1.json").read_bytes())
    path.write_text(path.read_text().replace("0.9", "0.8", 1))
    done = call(script, f"{verb} --results {path.parents[2]}", path.parent)
    assert done.returncode == 1
    assert "desk 1 of " in done.stdout
    lines = done.stderr.splitlines()
    assert [line.split(" ")[0] for line in lines] == [str(path), str(third)]
    assert "was changed or damaged after it was written" in lines[0]
    assert "is the record of another cell" in lines[1]
    if verb != "list":
        assert "desk 1 of " in (path.parents[2] / "README.md").read_text().lower()


def test_run_starts_nothing_where_a_record_is_refused(script, path):
    """And leaves it as it is: it is deleted by nobody but the user."""
    write_json(path, read_json(path) | {"seed": 1})
    before = path.read_bytes()
    done = call(script, f"run thesis-moons --results {path.parents[2]} --work {path.parent / 'work'}", path.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"reproduce.py: error: {path} is the record of another cell: it says that it is of " \
        f"'thesis-moons/desk/m2-seed1'; {again(path)}\n"  # fmt: skip
    assert path.read_bytes() == before
    assert not (path.parent / "work" / "cells.db").exists()


@pytest.mark.reliability
def test_a_cell_that_another_process_computes_is_refused(script, cell, tmp_path, monkeypatch):
    """Such as one with another store: both would write into the same folder."""
    record = {"name": cell.key}
    monkeypatch.setattr(script.records, "find", lambda *_: record)
    args = script.parser().parse_args(["run", "thesis-moons", "--work", str(tmp_path / "work"), "--results",
                                       str(tmp_path / "results")])  # fmt: skip
    own = script.folder(args, cell)
    command = [sys.executable, "-c", HOLDER, own.parent, f".{own.name}.lock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"another process is at work in {own.parent}"):
            script.compute(args, cell)
        other.kill()
    assert script.compute(args, cell) == record
