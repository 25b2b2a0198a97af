"""Experiments from the command line: every one at the smoke budget, what is shown of none, some and all, and errors."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from types import SimpleNamespace

import pytest
from semipyro.files import read_json, write_json

from helpers.example_runs import EXAMPLES, call, imported

FULL = "thesis-table1"
SECONDARY = {  # what their claims compare costs more than a desk has: 10 draws, 30 components, another number of labels
    "adgm-table1",
    "willetts-table2",
    "willetts-table3",
    "cagem-table2",
}


@pytest.fixture(scope="module")
def script():
    with imported("reproduce") as module:
        yield module


def reproduce(*flags, folder, **keywords):
    environment = {name: value for name, value in os.environ.items() if name != "SEMIPYRO_DATA"}
    command = [sys.executable, "-W", "error", EXAMPLES / "reproduce.py", *flags]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, **keywords)  # fmt: skip


def run(*flags, folder):
    with reproduce("run", *flags, "--results", "results", folder=folder) as process:
        printed, complaint = process.communicate(timeout=900)
    return process.returncode, printed, complaint


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Every experiment, run once by two workers at the smallest budget: the folder, and what was printed."""
    folder = tmp_path_factory.mktemp("smoke")
    status, printed, complaint = run("all", "--budget", "smoke", "--jobs", "2", folder=folder)
    assert (status, complaint) == (0, "")
    return folder, printed


@pytest.fixture
def results(smoke, tmp_path):
    """A copy of the finished records."""
    shutil.copytree(smoke[0] / "results", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def shown(script, tmp_path):
    """Runs `show` or `list`, or `run` with nothing left to do."""

    def show(flags):
        done = call(script, f"{flags} --results {tmp_path / 'results'}", tmp_path)
        return done.returncode, done.stdout, done.stderr

    return show


@pytest.fixture
def smoke_cell(script):
    """A cell of seconds, and a record that it could have."""
    (cell,) = script.EXPERIMENTS["thesis-moons"].cells("smoke")
    metrics = {"accuracy_snapshot": 0.9, "accuracy_end": 0.8, "curves": {"test_accuracy": [0.9, 0.8]}}
    measured = {"metrics": metrics, "epochs": 2, "minutes": 0.1, "versions": {}, "commit": None, "machine": "a machine"}
    return SimpleNamespace(cell=cell, record=script.records.about(cell) | measured)


def cells(script, budget="smoke"):
    return [cell for experiment in script.EXPERIMENTS.values() for cell in experiment.cells(budget)]


def numbers_in(value):
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers_in(part)]
    if isinstance(value, list):
        return [number for part in value for number in numbers_in(part)]
    return [value] if isinstance(value, int | float) else []


def test_every_experiment_runs_and_each_cell_has_one_record(script, smoke):
    folder, _ = smoke
    expected = {cell.path(folder / "results") for cell in cells(script)}
    assert set((folder / "results").rglob("*.json")) == expected
    for path in expected:
        record = json.loads(path.read_text())
        assert record["machine"]
        assert record["epochs"] >= 1
        assert numbers_in(record["metrics"])
        assert all(map(math.isfinite, numbers_in(record["metrics"])))


def test_a_cell_s_record_is_what_its_script_measures(script, smoke, tmp_path):
    """The flags in the record, given to the script by hand."""
    record = json.loads((smoke[0] / "results" / FULL / "smoke" / "m2-alpha-1-seed0.json").read_text())
    words = import_module("experiments.base").arguments(record["settings"]["flags"])
    command = [sys.executable, EXAMPLES / "ss_vae_m2.py", *words, "--seed", "0", "--out", "run", "--no-figures"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300, check=False).returncode == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for name in ("test_accuracy", "baseline_accuracy", "validation_accuracy", "bound", "best_epoch", "labels"):
        assert record["metrics"][name] == summary[name], name


def test_every_number_is_in_the_record_of_its_cell(script, smoke):
    """A metric that is misspelt would be a number that is never shown; every metric is measured somewhere."""
    found = {}
    for cell in cells(script):
        metrics = json.loads(cell.path(smoke[0] / "results").read_text())["metrics"]
        found.setdefault(cell.experiment, {}).setdefault(cell.name, set()).update(metrics)
    for experiment in script.EXPERIMENTS.values():
        own = found[experiment.home]
        sides = [side for claim in experiment.claims for side in (claim.more, claim.less) if isinstance(side, tuple)]
        for cell, metric in [*((number.cell, number.metric) for number in experiment.numbers), *sides]:
            assert metric in own.get(cell, set.union(*own.values())), (experiment.name, cell, metric)


def test_every_published_number_has_a_cell_at_the_paper_s_budget(script):
    for experiment in script.EXPERIMENTS.values():
        names = set(experiment.settings("paper"))
        assert {number.cell for number in experiment.numbers} <= names, experiment.name
        sides = [side for claim in experiment.claims for side in (claim.more, claim.less)]
        assert {side[0] for side in sides if isinstance(side, tuple)} <= names, experiment.name
        assert set(experiment.settings("desk")) <= names, experiment.name


@pytest.mark.parametrize("budget", ["smoke", "desk", "paper"])
def test_the_scripts_take_the_flags_of_every_cell(script, budget, tmp_path):
    base, recipe = import_module("experiments.base"), import_module("shared.recipe")
    for cell in cells(script, budget):
        for settings in (cell.settings, cell.settings.get("first", {})):
            if "script" in settings:
                args = base.parsed(settings, cell.seed, tmp_path)
                for name, value in settings["flags"].items():
                    assert getattr(args, {"lambda": "lam"}.get(name, name)) == value, (cell, name)
                weights = {name: getattr(args, name) for name in ("labelled_weight", "classification_weight")
                           if name in vars(args)}  # fmt: skip
                for constant in {"alpha", "beta"} & vars(args).keys():
                    recipe.given_weights(args, weights, constant)


def test_a_claim_can_be_decided_at_the_desk(script):
    """At least one of each experiment has both of its numbers there, of three seeds or more."""
    for experiment in script.EXPERIMENTS.values():
        names = set(experiment.settings("desk")) if experiment.seeds["desk"] >= 3 else set()
        sides = [[side[0] for side in (claim.more, claim.less) if isinstance(side, tuple)]
                 for claim in experiment.claims]  # fmt: skip
        both = [set(cells) <= names for cells in sides]
        assert any(both) or not both or experiment.name in SECONDARY, experiment.name


def test_the_names_that_were_asked_for_are_there(script):
    asked = """thesis-table1 thesis-pretrained thesis-fig3 thesis-fig4 thesis-fig5 thesis-probe thesis-fig8 thesis-moons
        thesis-selection thesis-adversarial kingma-table1 adgm-table1 adgm-fig3 adgm-fig4 willetts-table1
        willetts-table2 willetts-table3 willetts-figures untapped cagem-table1 cagem-table2 cagem-table3 cagem-figures
        flows"""
    assert set(asked.split()) <= set(script.EXPERIMENTS)


def test_figures_and_pictures_are_drawn(script, smoke):
    results = smoke[0] / "results"
    drawn = {path.relative_to(results).as_posix() for path in results.rglob("*.png")}
    assert {"thesis-table1/smoke/accuracy.png", "thesis-fig3/smoke/variance-1-seed0-circles.png",
            "thesis-fig4/smoke/variance.png", "thesis-fig8/smoke/accuracy.png", "thesis-selection/smoke/selection.png",
            "thesis-moons/smoke/m2-seed0-snapshot.png", "adgm-fig3/smoke/units-adgm-1-draw.png",
            "adgm-fig4/smoke/curves.png", "cagem-table1/smoke/bounds.png", "cagem-figures/smoke/z2-of-2-seed0-mesh.png",
            "untapped/smoke/cross_entropy.png", "untapped/smoke/gumbel-softmax-seed0-extraction.png",
            "willetts-table3/smoke/gm-dgm-z200-y15-seed0-latent_tsne.png", "flows/smoke/gains.png",
            "thesis-pretrained/smoke/m2-alpha-0.1-pretrained-seed0-analogies.png"} <= drawn  # fmt: skip


def test_figures_are_drawn_of_several_seeds(script, smoke):
    for experiment in script.EXPERIMENTS.values():
        one = [json.loads(cell.path(smoke[0] / "results").read_text()) for cell in experiment.cells("smoke")]
        drawn = experiment.figures([record | {"seed": seed} for seed in (0, 1) for record in one])
        assert drawn.keys() == experiment.figures(one).keys()


def test_what_is_done_is_not_done_again(script, smoke, results, shown):
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.json")}
    status, _, complaint = shown(f"run all --budget smoke --work {results.parent / 'work'}")
    assert (status, complaint) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*.json")} == before
    assert not (results.parent / "work" / "cells.db").exists()


def test_the_bar_tells_the_epoch_of_a_cell_and_before_that_of_its_m1(script, tmp_path):
    cell = next(cell for cell in cells(script) if "first" in cell.settings)
    args = script.parser().parse_args(["run", cell.experiment, "--work", str(tmp_path)])
    assert script.under_way(args, [cell]) == ""
    own = script.folder(args, cell)
    for folder, epochs, told in (
        (own.with_name(f"{own.name}-first"), 2, f"{cell.key} (M1) epoch 2"),
        (own, 1, f"{cell.key} epoch 1"),
    ):
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("loss\n" + "1.0\n" * epochs)
        assert script.under_way(args, [cell]) == told


def test_a_record_that_another_machine_wrote_comes_out_of_the_store(smoke, tmp_path):
    """The store holds what was computed; the second machine has the store and no files."""
    store = f"sqlite:///{smoke[0] / 'runs' / 'reproduce' / 'cells.db'}"
    status, _, complaint = run("thesis-moons", "--budget", "smoke", "--store", store, folder=tmp_path)
    assert (status, complaint) == (0, "")
    name = "thesis-moons/smoke/m2-seed0.json"
    assert (tmp_path / "results" / name).read_bytes() == (smoke[0] / "results" / name).read_bytes()


def test_show_of_nothing_says_how_to_compute(shown, script, tmp_path):
    status, printed, complaint = shown("show")
    assert (status, complaint) == (0, "")
    assert "reproduce.py run NAME" in printed
    page = (tmp_path / "results" / "README.md").read_text()
    assert "| M2, α = 1, % | 92.0 ± 2.6 | – | not run |  |  |  |" in page


def test_show_of_some_marks_what_is_missing(shown, results):
    (results / FULL / "smoke" / "ours-lambda-0.5-seed0.json").unlink()
    status, printed, complaint = shown(f"show {FULL}")
    assert (status, complaint) == (0, "")
    rows = {re.split(r"  +", line)[0]: re.split(r"  +", line)[1:] for line in printed.splitlines()}
    assert rows["ours, λ = 0.5, %"] == ["92.3 ± 2.8", "–", "not run"]
    assert rows["M2, α = 1, %"][2:5] == ["smoke", "1", "1"]
    assert "smoke 2 of 3" in printed


def test_show_of_all_has_the_measured_numbers(shown, script, results):
    status, printed, complaint = shown("show")
    assert (status, complaint) == (0, "")
    record = json.loads((results / FULL / "smoke" / "m2-alpha-1-seed0.json").read_text())
    assert f"{100 * record['metrics']['test_accuracy']:.1f}  smoke" in printed
    page = (results / "README.md").read_text()
    for name in script.EXPERIMENTS:
        assert f"## {name}\n" in page
    for image in re.findall(r"!\[.*?\]\((.*?)\)", page):
        assert (results / image).exists()


def test_seeds_become_a_mean_and_a_standard_deviation(shown, results):
    path = results / FULL / "smoke" / "m2-alpha-1-seed0.json"
    desk = results / FULL / "desk"
    experiment = import_module("reproduce").EXPERIMENTS[FULL]
    settings = experiment.settings("desk")["m2-alpha-1"]
    for seed, accuracy in enumerate((0.9, 0.92, 0.97)):
        record = read_json(path) | {"settings": settings, "seed": seed, "budget": "desk", "epochs": 40}
        record["metrics"]["test_accuracy"] = accuracy
        write_json(desk / f"m2-alpha-1-seed{seed}.json", record)
    _, printed, _ = shown(f"show {FULL}")
    assert re.search(r"M2, α = 1, % +92.0 ± 2.6 +93.0 ± 3.6 +desk +3 +40 ", printed)


def claimed(script, more, less=0.85, unit="points"):
    """The row of a claim, of records that have these values of two cells."""
    base = import_module("experiments.base")
    claim = base.Claim("more than less", ("a", "accuracy"), ("b", "accuracy") if isinstance(less, list) else less, unit)
    cells = {"a": more, "b": less if isinstance(less, list) else []}
    records = [{"cell": cell, "seed": seed, "metrics": {"accuracy": value}}
               for cell, values in cells.items() for seed, value in enumerate(values) if value is not None]  # fmt: skip
    return script.report.claimed(claim, "here", {"paper": [], "desk": records})[2:]


@pytest.mark.parametrize(
    ("more", "less", "row"),
    [
        # differences 2, 4 and 6 points: mean 4, s.e. 2 / √3, and 4.303 of these at two degrees of freedom
        ([0.92, 0.94, 0.96], [0.90, 0.90, 0.90], ("+4.0 ± 5.0 points", "3", "desk", "undecided")),
        ([0.93, 0.94, 0.95], [0.90, 0.90, 0.90], ("+4.0 ± 2.5 points", "3", "desk", "yes")),
        ([0.90, 0.90, 0.90], [0.93, 0.94, 0.95], ("-4.0 ± 2.5 points", "3", "desk", "no, the contrary")),
        ([0.93, 0.95, 0.99], [0.90, 0.91, 0.96], ("+3.3 ± 1.4 points", "3", "desk", "yes")),  # of the same seed
        ([0.93, 0.95, None, 0.2], [0.90, 0.91, 0.1], ("+3.5 ± 6.4 points", "2", "desk", "undecided")),
        ([0.99], [0.5], ("+49.0 points", "1", "desk", "undecided")),
        ([0.86, 0.86, 0.86], 0.85, ("+1.0 ± 0.0 points", "3", "desk", "yes")),
        ([None], [0.5], ("–", "", "not run", "")),
    ],
)
def test_a_claim_is_seen_where_the_interval_of_its_difference_lies_above_zero(script, more, less, row):
    assert claimed(script, more, less) == row


def test_a_claim_of_nats_is_not_one_of_percent(script):
    assert claimed(script, [17.0, 18.0, 19.0], 9.0, "nats") == ("+9.00 ± 2.48 nats", "3", "desk", "yes")


def test_list_says_what_there_is_and_what_is_done(shown, script, results):
    status, printed, complaint = shown("list")
    assert (status, complaint) == (0, "")
    for experiment in script.EXPERIMENTS.values():
        assert f"{experiment.name:20}{experiment.about}\n" in printed
    assert "smoke 3 of 3" in printed


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("run nothing --budget smoke", "no experiment nothing; choose among thesis-table1"),
        ("show nothing", "no experiment nothing"),
        (f"run {FULL} --cells m3-*", "--cells m3-* fits none of the cells of thesis-table1"),
        (f"run {FULL} --budget tiny", "invalid choice: 'tiny'"),
        (f"run {FULL} --jobs 0", "argument --jobs: must be at least 1"),
        ("run", "the following arguments are required: NAME"),
        (f"run {FULL} --store nonsense", "--store nonsense: "),
    ],
)
def test_wrong_use_is_one_line_and_status_2(shown, script, tmp_path, monkeypatch, flags, complaint):
    monkeypatch.chdir(tmp_path)
    status, printed, said = shown(flags) if not flags.endswith("run") else (
        (done := call(script, flags, tmp_path)).returncode, done.stdout, done.stderr)  # fmt: skip
    assert (status, printed if "--store" not in flags else "") == (2, "")
    assert complaint in said
    assert said.count("\n") == 1


def numbers_of(path):
    """A record but for its times."""
    record = json.loads(path.read_text())
    return record["metrics"], record["settings"], record["epochs"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_cell_that_was_killed_goes_on_to_the_same_numbers(smoke, tmp_path):
    """The worker is killed between M1 and M2, which the command survives and tells."""
    work = tmp_path / "runs" / "reproduce" / "kingma-table1" / "smoke"
    flags = (
        "kingma-table1",
        "--budget",
        "smoke",
        "--cells",
        "m1-m2-*",
        "--grace",
        "3",
        "--jobs",
        "2",
    )  # threads as in `smoke`
    with reproduce("run", *flags, "--results", "results", folder=tmp_path) as process:
        deadline = time.monotonic() + 120
        while not list(work.glob("*-first/summary.json")) and time.monotonic() < deadline:
            time.sleep(0.005)
        for worker in workers_of(process.pid):
            os.kill(worker, signal.SIGKILL)
        _, complaint = process.communicate(timeout=60)
    name = "kingma-table1/smoke/m1-m2-100-seed0.json"
    assert process.returncode == 1
    assert "m1-m2-100-seed0: its worker died" in complaint
    assert not (tmp_path / "results" / name).exists()
    status, _, complaint = run(*flags, folder=tmp_path)
    assert (status, complaint) == (0, "")
    assert numbers_of(tmp_path / "results" / name) == numbers_of(smoke[0] / "results" / name)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a POSIX terminal's signals")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_cell_that_was_stopped_waits_for_nobody(smoke, tmp_path, stop):
    """The signal goes to all of the processes, as that of a terminal does; the next command goes on at once."""
    flags = ("kingma-table1", "--budget", "smoke", "--cells", "m1-m2-*", "--grace", "500", "--jobs", "2")
    work = tmp_path / "runs" / "reproduce" / "kingma-table1" / "smoke"
    with reproduce("run", *flags, "--results", "results", folder=tmp_path, start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while not list(work.glob("*-first/settings.json")) and time.monotonic() < deadline:
            time.sleep(0.005)
        (os.killpg if stop == signal.SIGINT else os.kill)(process.pid, stop)
        _, complaint = process.communicate(timeout=60)
    assert "Traceback" not in complaint
    start = time.monotonic()
    status, _, complaint = run(*flags, folder=tmp_path)
    assert (status, complaint) == (0, "")
    assert time.monotonic() - start < 200
    name = "kingma-table1/smoke/m1-m2-100-seed0.json"
    assert numbers_of(tmp_path / "results" / name) == numbers_of(smoke[0] / "results" / name)


def test_a_store_that_is_deleted_in_mid_run_is_one_line_and_status_2(script, smoke_cell, monkeypatch, tmp_path):
    """What the worker has computed is kept all the same."""

    def compute(*_):
        (tmp_path / "work" / "cells.db").unlink()
        return smoke_cell.record

    monkeypatch.setattr(script, "compute_all", lambda args, cells, say: script.worker(args, cells))
    monkeypatch.setattr(script.workers, "share_cores", lambda jobs: None)
    monkeypatch.setattr(script.records, "compute", compute)
    done = call(script, f"run thesis-moons --budget smoke --results {tmp_path} --work {tmp_path / 'work'}", tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"reproduce.py: error: --store sqlite:\S+: [^\n]+; it must stay, [^\n]+\n", done.stderr)
    assert script.records.find(smoke_cell.cell, tmp_path) == smoke_cell.record


def test_cells_of_dead_workers_are_given_back(script, tmp_path):
    """Of one that died before its first sign of life."""
    (tmp_path / "work").mkdir()
    flags = f"--budget smoke --work {tmp_path / 'work'} --grace 1"
    queue = script.line(script.parser().parse_args(["run", "thesis-moons", *flags.split()]), "thesis-moons")
    queue.put(["m2-seed0@0123abcd"])
    with pytest.warns(UserWarning, match="Heartbeat of storage"):
        queue.study.ask()
    for told in (
        "thesis-moons.smoke m2-seed0@0123abcd: given back, as its worker gave no sign of life\n",
        "no cell is another worker's\n",
    ):
        done = call(script, f"release thesis-moons {flags}", tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, told, "")


def test_what_workers_cannot_go_on_from_is_said_once(script):
    def wait():
        with script.workers.started(int, [("one",), ("one",)]) as processes:
            for process in processes:
                process.join()

    with pytest.raises(ValueError, match="^invalid literal for int.*'one'$"):
        wait()


def test_results_that_are_no_folder_are_refused_before_anything_is_computed(script, tmp_path):
    (tmp_path / "file").write_text("")
    done = call(script, f"run thesis-moons --budget smoke --results {tmp_path}/file --work {tmp_path}/work", tmp_path)
    assert done.returncode == 2
    assert "file" in done.stderr
    assert not (tmp_path / "work" / "thesis-moons").exists()


def workers_of(parent):
    """The processes that compute, children of the command."""
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=", "-o", "args=", "--ppid", str(parent)], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "spawn_main" in line]
