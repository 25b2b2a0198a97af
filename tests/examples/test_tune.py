"""The search for settings: its study, what is stopped early, the command that it ends with, errors."""

import json
import shlex
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from sklearn.datasets import make_blobs

from helpers.example_runs import EXAMPLES, call, files, imported

SMALL = "--data own.npz --epochs 3 --out run"


@pytest.fixture(scope="module")
def script():
    with imported("tune") as module:
        yield module


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with two easy classes of the user's own, most rows without a label, and with a finished search."""
    folder = tmp_path_factory.mktemp("own")
    x, y = make_blobs(200, 3, centers=[[0, 0, 0], [6, 6, 6]], random_state=0)
    np.savez(folder / "own.npz", x=x, y=np.where(np.arange(200) < 100, -1, y))
    done = tune("--trials", "5", *SMALL.split(), folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "printed").write_text(done.stdout)
    return folder


def tune(*flags, folder):
    command = [sys.executable, "-W", "error", EXAMPLES / "tune.py", *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def study(folder):
    return optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'run' / 'study.db'}")


def test_the_best_of_the_trials_is_told_and_written(own):
    trials = study(own).get_trials()
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = json.loads((own / "run" / "best.json").read_text())
    assert len(trials) == 5
    assert best["validation_accuracy"] == max(trial.value for trial in done)
    assert best["settings"] == study(own).best_params
    assert f"{best['validation_accuracy']:.1%}" in (own / "printed").read_text()
    assert files(own / "run") == ["best.json", "search.png", "study.db"]


def test_every_trial_reports_each_epoch_and_its_value_is_the_best(own):
    for trial in study(own).get_trials(states=[TrialState.COMPLETE]):
        assert list(trial.intermediate_values) == [1, 2, 3]
        assert trial.value == max(trial.intermediate_values.values())
        assert set(trial.params) == {"z_dim", "width", "layers", "labelled_weight", "classification_weight", "scale",
                                     "learning_rate"}  # fmt: skip


def test_the_command_that_is_printed_trains(own):
    words = shlex.split(json.loads((own / "run" / "best.json").read_text())["command"])
    assert words[:2] == ["python", "examples/ss_vae_m2.py"]
    command = [sys.executable, EXAMPLES / "ss_vae_m2.py", *words[2:], "--out", "trained", "--no-figures"]
    done = subprocess.run(command, cwd=own, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads((own / "trained" / "summary.json").read_text())
    best = study(own).best_params
    build = json.loads((own / "trained" / "settings.json").read_text())["build"]
    assert build["z_dim"] == best["z_dim"]
    assert build["hidden"] == [best["width"]] * best["layers"]
    assert summary["test_accuracy"] > 0.8


def test_the_same_command_goes_on_with_the_study(script, own, monkeypatch):
    monkeypatch.chdir(own)
    before = {trial.number: trial.params for trial in study(own).get_trials()}
    done = call(script, f"{SMALL} --trials 5", own)
    assert (done.returncode, done.stderr) == (0, "")
    assert "5 of 5 trials are done" in done.stdout
    assert {trial.number: trial.params for trial in study(own).get_trials()} == before


def test_a_study_that_goes_on_tries_other_settings(script, own, monkeypatch, tmp_path):
    """The same as one command would have tried, as what is drawn depends on the trial's number."""
    args = script.parser().parse_args(f"{SMALL} --epochs 1 --data {own / 'own.npz'}".split())
    task = script.make_task(script.read_data(args))

    def tried(*parts):
        searched = optuna.create_study(direction="maximize")
        for number in parts:
            searched.sampler = optuna.samplers.TPESampler()  # that of another process
            searched.optimize(lambda trial: script.score(args, task, trial), n_trials=number)
        return [trial.params for trial in searched.trials]

    whole = tried(4)
    assert tried(2, 2) == whole
    assert len({trial["learning_rate"] for trial in whole}) == 4


def test_trials_that_break_are_told_and_counted(own, tmp_path):
    """Values of 1e25 have squares beyond single precision."""
    with np.load(own / "own.npz") as arrays:
        y = arrays["y"]
    x = np.random.default_rng(0).normal(size=(len(y), 3)).astype(np.float32)
    x[150:] *= 1e25
    np.savez(tmp_path / "large.npz", x=x, y=y)
    done = tune("--data", "large.npz", "--epochs", "2", "--trials", "2", "--out", "run", folder=tmp_path)
    assert done.returncode == 2
    assert "came to its end; --trials more, or look at the data. The last one broke: epoch 1, step 1" in done.stderr
    assert [trial.state for trial in study(tmp_path).get_trials()] == [TrialState.PRUNED] * 2
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("trials", "jobs", "shares"), [(1, 2, [1]), (5, 2, [3, 2]), (4, 2, [2, 2]), (0, 2, [])])
def test_the_trials_are_shared_out(script, trials, jobs, shares):
    assert script.shares(trials, jobs) == shares


def test_the_command_keeps_the_flags_of_the_data(script):
    flags = "--batch-size 30 --labelled-batch-size 20 --include-labelled --no-binarize --seed 3 --device cpu"
    args = script.parser().parse_args(["--data", "my data.npz", *flags.split()])
    trial = SimpleNamespace(params={"z_dim": 3, "width": 60, "layers": 2, "labelled_weight": 0.5,
                                     "classification_weight": 2.0, "learning_rate": 0.0012345})  # fmt: skip
    words = shlex.split(script.training_command(args, trial))
    given = import_module("ss_vae_m2").parser().parse_args(words[2:])
    for name, value in script.data_flags(args).items():
        assert getattr(given, name) == value, name
    assert (given.hidden, given.learning_rate, given.device) == ([60, 60], 0.001234, "cpu")
    assert (given.labelled_weight, given.classification_weight) == (0.5, 2.0)


def test_a_study_is_of_one_task(script):
    flags = ["", "--epochs 3", "--batch-size 7", "--labels 50", "--data other/digits", "--seed 1", "--model adgm"]
    assert len({script.name_of_study(script.parser().parse_args(each.split())) for each in flags}) == len(flags)


def test_a_trial_that_falls_behind_is_stopped(script, own, monkeypatch):
    """Five trials that were near 1 at once, then one whose learning rate cannot move it in time."""
    monkeypatch.chdir(own)
    args = script.parser().parse_args(f"{SMALL} --epochs 5".split())
    task = script.make_task(script.read_data(args))
    searched = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(4, 0))
    for _ in range(4):
        trial = searched.ask()
        for epoch in range(1, 6):
            trial.report(1.01, epoch)
        searched.tell(trial, 1.01)
    searched.optimize(lambda trial: script.score(args, task, trial), n_trials=1)
    assert searched.trials[-1].state == TrialState.PRUNED
    assert list(searched.trials[-1].intermediate_values) == [1]


@pytest.mark.parametrize("model", ["adgm", "simplified"])
def test_another_row_has_its_own_settings_and_command(script, own, monkeypatch, model):
    monkeypatch.chdir(own)
    args = script.parser().parse_args(f"{SMALL} --model {model} --epochs 1".split())
    task = script.make_task(script.read_data(args))
    searched = optuna.create_study(direction="maximize")
    searched.optimize(lambda trial: script.score(args, task, trial), n_trials=1)
    weights = {name for name in searched.best_params if name.endswith("_weight")}
    assert weights == set(script.ROWS[model].weights)
    words = shlex.split(script.training_command(args, searched.best_trial))
    trainer = import_module(script.ROWS[model].script)
    given = trainer.parser().parse_args(words[2:])
    assert given.form == words[words.index("--form") + 1]
    assert given.z_dim == searched.best_params["z_dim"]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--data nothing.npz", "nothing.npz"),
        ("--trials 0", "argument --trials: must be at least 1"),
        ("--model vae", "invalid choice: 'vae'"),
        ("--data own.npz --labels 10", "--labels: own.npz keeps its own"),
        ("--data own.npz --store nonsense", "--store nonsense"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(script, own, monkeypatch, flags, complaint):
    monkeypatch.chdir(own)
    done = call(script, f"--out other {flags}", own)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_store_that_is_deleted_in_mid_run_ends_it_with_one_line(script, own, monkeypatch, tmp_path):
    """Of itself Optuna ends it with an AssertionError or an UnboundLocalError."""
    monkeypatch.chdir(own)
    args = script.parser().parse_args(f"--data own.npz --epochs 1 --trials 2 --out {tmp_path}".split())

    def fit(*_, **__):
        (tmp_path / "study.db").unlink()
        return [{"validation_accuracy": 0.5}]

    monkeypatch.setattr(script, "fit", fit)
    monkeypatch.setattr(script.workers, "share_cores", lambda jobs: None)
    with pytest.raises(ValueError, match=f"^--store sqlite:///{tmp_path}/study.db: [^\n]+; it must stay"):
        script.worker(args, 2)
