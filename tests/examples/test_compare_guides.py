"""The script that compares guides: what it measures, writes, goes on with and refuses."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from semipyro.data import batches, binarize, load, mask_labels
from semipyro.inference import compare_objectives
from semipyro.papers import PAPERS

from helpers.example_runs import EXAMPLES, call, files, imported, numbers, times

NETWORKS = {"z_dim": 2, "hidden": (8,), "activation": "softplus", "likelihood": "bernoulli"}
SMALL = "--z-dim 2 --hidden 8 --batch-size 50 --labels 30 --bound-samples 5 --bound-rows 40 --learning-rate 0.01"
NAMES = ("bound", "iw_bound", "gap", "kl", "accuracy", "parameters")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """300 of the digits."""
    digits = load("digits")
    path = tmp_path_factory.mktemp("archive") / "little.npz"
    np.savez(path, x=digits.train.x[:300], y=digits.train.y[:300])
    return path


@pytest.fixture(scope="module")
def script():
    with imported("compare_guides") as module:
        yield module


@pytest.fixture
def run(script, archive, tmp_path, monkeypatch):
    """Runs the script here, in an empty folder: exit status, what it printed, and its complaints."""
    monkeypatch.chdir(tmp_path)

    def ended(flags):
        done = call(script, f"{SMALL} --data {archive} --out run {flags}", None)
        return done.returncode, done.stdout, done.stderr

    return ended


def rows(folder):
    """What was measured, by guide, but for the seconds."""
    found = json.loads((folder / "comparison.json").read_text())["rows"]
    return {row["guide"]: [row[name] for name in NAMES] for row in found}


@pytest.fixture
def by_hand(archive):
    """What the script should measure, from the library's parts alone."""
    data = load(str(archive))
    y = mask_labels(data.train.y, per_class=3, seed=0)

    def measure(guides, epochs, model="m2"):
        its = batches(data.train.x, y, labelled_batch_size=100, unlabelled_batch_size=50, binarize=True, seed=0)
        built = {}
        for name, how in guides.items():
            torch.manual_seed(0)
            built[name] = PAPERS[model].build(64, 10, **NETWORKS, **how)
        found = compare_objectives(
            built, its, epochs=epochs, x=data.test.x, y=data.test.y, bound_x=binarize(data.test.x[:40], seed=0),
            num_samples=5, learning_rate=0.01, progress=False,
        )  # fmt: skip
        return {row["guide"]: [row[name] for name in NAMES] for row in found.rows}

    return measure


def test_it_measures_what_the_library_does_and_says_so(run, by_hand, tmp_path):
    status, printed, complaint = run("--epochs 2 --guides diagonal rank-1 iaf-1-amortised planar")
    assert (status, complaint) == (0, "")
    iaf = {"flow": "iaf", "flow_length": 1, "flow_amortised": True}
    guides = {"diagonal": {}, "rank-1": {"rank": 1}, "iaf-1-amortised": iaf, "planar": {"flow": "planar"}}
    found = rows(tmp_path / "run")
    assert list(found) == list(guides)
    for name, row in by_hand(guides, 2).items():
        assert found[name] == pytest.approx(row, rel=1e-6, abs=1e-6)
    assert len({tuple(row) for row in found.values()}) == 4
    for name, row in found.items():
        (line,) = [line.split() for line in printed.splitlines() if line.startswith(f"{name} ")]
        assert line[1:6] == [*(f"{value:.2f}" for value in row[:4]), f"{row[4]:.3f}"]
    assert "4 guides of m2 on " in printed
    assert "on 40 test rows; accuracy on all 59" in printed
    folders = [f"guides/{name}/{file}" for name in guides for file in ("checkpoints/last.ckpt", "metrics.csv")]
    assert sorted(path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*.*")) == sorted(
        ["comparison.json", "settings.json", "figures/guides.png", *folders]
    )


def test_guides_are_added_and_epochs_too(run, tmp_path):
    assert run("--epochs 1 --guides diagonal rank-1")[0] == 0
    first, checkpoint = rows(tmp_path / "run"), tmp_path / "run" / "guides" / "diagonal" / "checkpoints" / "last.ckpt"
    written = checkpoint.stat().st_mtime_ns
    assert run("--epochs 1 --guides planar diagonal --resume")[0] == 0
    found = rows(tmp_path / "run")
    assert list(found) == ["planar", "diagonal"]
    assert found["diagonal"] == first["diagonal"]
    assert checkpoint.stat().st_mtime_ns == written
    assert run("--epochs 2 --guides diagonal --resume")[0] == 0
    longer = rows(tmp_path / "run")
    assert longer["diagonal"] != first["diagonal"]
    assert run("--epochs 2 --guides diagonal --overwrite")[0] == 0
    assert rows(tmp_path / "run") == longer
    assert not (tmp_path / "run" / "guides" / "planar").exists()
    before = times(tmp_path)
    status, _, complaint = run("--epochs 1 --guides diagonal --resume")
    assert status == 2
    assert "--epochs 1: the run in run has 2 behind it; ask for that or more" in complaint
    assert run("--epochs 2 --guides diagonal --resume --learning-rate 0.1")[0] == 2
    assert times(tmp_path) == before


def test_a_killed_comparison_resumes_to_the_same_numbers(run, archive, tmp_path):
    flags = "--epochs 6 --guides diagonal planar"
    assert run(flags)[0] == 0
    whole, curves = rows(tmp_path / "run"), numbers(tmp_path / "run" / "guides" / "planar")
    assert run("--overwrite --epochs 1 --guides diagonal")[0] == 0
    command = [sys.executable, str(EXAMPLES / "compare_guides.py"), *SMALL.split(), "--data", archive, *flags.split()]
    process = subprocess.Popen(
        [*map(str, command), "--out", "run", "--overwrite", "--quiet"], cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    last, deadline = tmp_path / "run" / "guides" / "planar" / "checkpoints" / "last.ckpt", time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(rows(tmp_path / "run")) == ["diagonal"]
    assert run(f"{flags} --resume")[0] == 0
    assert rows(tmp_path / "run") == whole
    assert numbers(tmp_path / "run" / "guides" / "planar") == curves


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--guides diagonal real-nvp", "--guides: 'real-nvp' is not diagonal, rank-R, or a flow, FLOW[-LENGTH]"),
        ("--guides rank", "--guides: 'rank' is not diagonal"),
        ("--guides rank-0", "--guides: 'rank-0' is not diagonal"),
        ("--guides rank-2-amortised", "--guides: 'rank-2-amortised' is not diagonal"),
        ("--guides sylvester-amortised", "flow must have an amortised form, got 'sylvester'"),
        ("--guides iaf --z-dim 1", "flow must suit a latent of width 1, got 'iaf', which needs 2 or more"),
        ("--guides", "argument --guides: expected at least one argument"),
        ("--model m1", "argument --model: invalid choice: 'm1'"),
        ("--model untapped --guides planar", "flow must have an inverse for untapped"),
        ("--bound-rows 0", "argument --bound-rows: must be at least 1, got 0"),
        ("--flow iaf", "unrecognized arguments: --flow iaf"),
        ("--resume", "run holds no run; leave --resume out"),
    ],
)
def test_wrong_use_ends_with_2_and_one_line_and_writes_nothing(run, tmp_path, flags, message):
    status, printed, complaint = run(flags)
    assert (status, printed, complaint.count("\n")) == (2, "", 1)
    assert message in complaint
    assert files(tmp_path) == []


def test_the_learning_rate_decays_as_in_the_other_scripts(run, tmp_path):
    assert run("--epochs 2 --guides diagonal --decay-every 1 --decay 0.5")[0] == 0
    rates = [float(row["learning_rate"]) for row in numbers(tmp_path / "run" / "guides" / "diagonal")]
    assert rates == [0.01, 0.005]


@pytest.mark.parametrize("model", ["cagem", "latent-classifier", "m2-adversarial", "untapped", "agm-dgm"])
def test_other_models(run, by_hand, tmp_path, model):
    status, printed, complaint = run(f"--model {model} --epochs 1 --guides diagonal iaf-1")
    assert (status, complaint) == (0, "")
    expected = by_hand({"diagonal": {}, "iaf-1": {"flow": "iaf", "flow_length": 1}}, 1, model)
    assert rows(tmp_path / "run") == {name: pytest.approx(row, rel=1e-6, abs=1e-6) for name, row in expected.items()}
    assert f"2 guides of {model}" in printed


def test_help_explains_the_words_for_guides(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for part in ("rank-R", "FLOW-LENGTH", "-amortised", "--bound-samples", "(default: 2000)", "'spline-coupling-2'"):
        assert part in text
