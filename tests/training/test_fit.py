"""`fit` takes the steps of a loop that is written by hand, with every setting; what it reports, and what it refuses."""

import copy
import importlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest
import torch
from semipyro.data import batches, load
from semipyro.inference import ELBO, accuracy, evaluate, fit, load_weights
from semipyro.papers import PAPERS
from torch import nn

from helpers.training_runs import Batches, Line, Scripted, X, comparable, line_batches, m2_run, weights

TESTS = Path(__file__).resolve().parents[1]


def by_hand(objective, epochs, *, decay=0.0, clip_norm=None, clip_value=None, schedule=lambda epoch: 1.0, warmup=0):
    """The loop of `fit.py`'s docstring, with each setting written out."""
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.01)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 0.01 * schedule(epoch)
        objective.kl_weight.fill_(min(1.0, (epoch + 1) / warmup) if warmup else 1.0)
        for batch in line_batches():
            optimizer.zero_grad()
            matrices = [p for p in objective.parameters() if p.ndim > 1]
            prior = decay / 2 * sum(w.square().sum() for w in matrices)
            (objective(*batch)["loss"] + prior).backward()
            if clip_norm:
                nn.utils.clip_grad_norm_(objective.parameters(), clip_norm)
            if clip_value:
                nn.utils.clip_grad_value_(objective.parameters(), clip_value)
            optimizer.step()


@pytest.mark.parametrize(
    ("settings", "hand"),
    [
        ({}, {}),
        ({"weight_decay": 0.1}, {"decay": 0.1}),
        ({"gradient_clip_norm": 0.05}, {"clip_norm": 0.05}),
        ({"gradient_clip_norm": 0.5, "gradient_clip_value": 0.01}, {"clip_norm": 0.5, "clip_value": 0.01}),
        ({"schedule": lambda epoch: 0.5**epoch}, {"schedule": lambda epoch: 0.5**epoch}),
        ({"kl_warmup": 3}, {"warmup": 3}),
    ],
    ids=["plain", "weight decay", "norm clipped", "norm then elements clipped", "schedule", "warm-up"],
)
def test_fit_takes_the_steps_of_the_plain_loop(settings, hand):
    one = Line()
    two, unchanged = copy.deepcopy(one), copy.deepcopy(one)
    fit(one, line_batches(), epochs=4, learning_rate=0.01, progress=False, **settings)
    by_hand(two, 4, **hand)
    torch.testing.assert_close(weights(one), weights(two), rtol=1e-5, atol=1e-6)
    if hand:  # the setting matters: without it the weights are others
        by_hand(unchanged, 4)
        assert (weights(unchanged) - weights(two)).abs().max() > 1e-4


def test_a_module_that_imports_a_jupyter_kernel_does_not_bring_a_progress_bar(capsys):
    """A process that runs notebooks imports one; a bar there would only fill its log."""
    importlib.import_module("ipykernel.kernelapp")
    fit(Line(), line_batches(), epochs=1)
    assert capsys.readouterr().err == ""


def test_inside_a_jupyter_kernel_there_is_a_progress_bar(capsys, monkeypatch):
    shell = types.SimpleNamespace(kernel=None)
    monkeypatch.setattr(importlib.import_module("IPython"), "get_ipython", lambda: shell)
    fit(Line(), line_batches(), epochs=1)
    assert "epoch 1/1" in capsys.readouterr().err


def test_history_holds_the_means_over_the_epoch_and_warm_up_ends_where_it_started():
    objective = Line()
    objective.kl_weight.fill_(0.5)
    frozen = copy.deepcopy(objective)
    history = fit(objective, line_batches(), epochs=3, learning_rate=1e-9, kl_warmup=2, progress=False)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert [row["kl_weight"] for row in history] == [0.25, 0.5, 0.5]
    assert objective.kl_weight.item() == 0.5
    for row in history:
        frozen.kl_weight.fill_(row["kl_weight"])
        assert row["unlabelled"] == pytest.approx(frozen(None, None, X)["unlabelled"].item(), rel=1e-5)
        assert row["loss"] == -row["unlabelled"]


def test_an_epoch_s_mean_weighs_a_smaller_last_batch_by_its_rows():
    objective = Line()
    (row,) = fit(objective, [(None, None, X[:16]), (None, None, X[16:])], epochs=1, learning_rate=1e-9, progress=False)
    assert row["unlabelled"] == pytest.approx(objective(None, None, X)["unlabelled"].item(), rel=1e-5)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not():
    histories = []
    for seed in (1, 1, 2):
        objective, rows, held_out = m2_run()
        torch.manual_seed(seed)
        histories.append(comparable(fit(objective, rows, epochs=2, validation=held_out, progress=False)))
    assert histories[0] == histories[1]
    assert histories[0] != histories[2]


def test_validation_is_what_evaluate_measures_with_the_whole_kl():
    objective, rows, (x, y) = m2_run()
    with pytest.warns(UserWarning, match=r"ends at epoch 1, and its warm-up at epoch 10 .* minimises 0\.1 of the KL"):
        (row,) = fit(objective, rows, epochs=1, validation=(x, y), kl_warmup=10, progress=False)
    assert row["kl_weight"] == pytest.approx(0.1)
    assert row["validation_accuracy"] == accuracy(objective.guide.classify, x, y)
    measured = [evaluate(objective, x, y) for _ in range(20)]
    for term in ("labelled", "unlabelled"):
        values = torch.tensor([m[term] for m in measured])
        assert abs(row[f"validation_{term}"] - values.mean()) < 5 * values.std()
    assert row["validation_classification"] == pytest.approx(measured[0]["classification"], rel=1e-5)


def test_validation_bounds_can_have_rows_of_their_own():
    objective, rows, (x, y) = m2_run()
    torch.manual_seed(0)
    other = torch.zeros_like(x)
    (row,) = fit(objective, rows, epochs=1, validation=(x, y), validation_bound_x=other, progress=False)
    assert row["validation_accuracy"] == accuracy(objective.guide.classify, x, y)
    expected = [evaluate(objective, other)["unlabelled"] for _ in range(10)]
    assert row["validation_unlabelled"] == pytest.approx(sum(expected) / 10, abs=0.5)


def test_bad_validation_rows_are_refused_before_the_first_epoch():
    objective, rows, (x, y) = m2_run()
    for bad, message in (
        (x[:, :5], r"shape \(..., 64\), got shape \(2, 5\)"),
        (x + 2, "must lie in"),
        (x, "labels 0 to 9"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(
                objective,
                rows,
                epochs=1,
                validation=(bad, y + 20 if bad is x else y),
                report=pytest.fail,
                progress=False,
            )


def test_early_stopping_and_the_best_epoch_s_weights(tmp_path):
    objective = Scripted()
    history = fit(
        objective, line_batches(), epochs=7, validation=(X, None), patience=2, restore_best=True, out=tmp_path,
        progress=False,
    )  # fmt: skip
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert objective.epoch.item() == 2
    assert not objective.training
    last = Scripted()
    load_weights(last, tmp_path / "checkpoints" / "last.ckpt")
    assert last.epoch.item() == 4


def test_a_training_that_stops_early_in_its_warm_up_says_so():
    settings = {"validation": (X, None), "patience": 2, "progress": False}
    with pytest.warns(UserWarning, match="ends at epoch 4, and its warm-up at epoch 6"):
        fit(Scripted(), line_batches(), epochs=7, kl_warmup=6, **settings)
    assert len(fit(Scripted(), line_batches(), epochs=7, kl_warmup=4, **settings)) == 4  # and nothing is said


def test_restore_best_works_without_a_folder():
    objective = Scripted()
    fit(objective, line_batches(), epochs=4, validation=(X, None), restore_best=True, progress=False)
    assert objective.epoch.item() == 2


class Breaks(Line):
    """Gives NaN, or an infinite gradient, in its 4th step: the second of the second epoch."""

    def __init__(self, how):
        super().__init__()
        self.how, self.calls = how, 0

    def terms(self, x_labelled, y_labelled, x_unlabelled):
        terms = super().terms(x_labelled, y_labelled, x_unlabelled)
        self.calls += 1
        if self.calls == 4:
            zero = 0.0 * self.model[0].weight.sum()
            terms["unlabelled"] = terms["unlabelled"] + {"nan": zero / 0.0, "gradient": zero.abs().sqrt()}[self.how]
        return terms


@pytest.mark.parametrize(("how", "what"), [("nan", "unlabelled and loss is NaN"), ("gradient", "gradient of loss is")])
def test_a_loss_that_breaks_names_epoch_step_and_term_and_leaves_the_last_checkpoint(tmp_path, how, what):
    objective = Breaks(how)
    with pytest.raises(FloatingPointError, match=rf"epoch 2, step 2: .*{what}"):
        fit(objective, line_batches(), epochs=5, learning_rate=0.01, out=tmp_path, progress=False)
    assert torch.isfinite(weights(objective)).all()
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert [row["epoch"] for row in saved["history"]] == [1]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["last.ckpt"]


def test_frozen_parameters_stay():
    objective, rows, _ = m2_run()
    objective.model.requires_grad_(False)
    before = [p.clone() for p in objective.model.parameters()]
    fit(objective, rows, epochs=1, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, objective.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        ({"epochs": -3}, "epochs .* got -3"),
        ({"epochs": 2.5}, "epochs .* got 2.5"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive and finite, got nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be positive and finite, got inf"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"kl_warmup": -1}, "kl_warmup .* at least 0"),
        ({"gradient_clip_norm": -1.0}, "gradient_clip_norm must be positive"),
        ({"gradient_clip_value": 0.0}, "gradient_clip_value must be positive"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, mps, got 'tpu'"),
        ({"precision": "16"}, "precision must be one of 32, bf16, auto, got '16'"),
        ({"patience": 3}, "need validation="),
        ({"restore_best": True}, "need validation="),
        ({"resume": True}, "resume=True and .* need out="),
        ({"devices": 2}, "devices other than 1 need out="),
        ({"resume": True, "out": "no/such/run"}, "the folder of the run to resume"),
        ({"out": __file__}, "out must be a folder"),
        ({"validation": (X, torch.zeros(3, dtype=torch.long))}, "y must be 20 integer labels"),
        ({"validation": (X, torch.full((20,), -5))}, "y must hold labels 0 to K-1, or -1 where unlabelled, got -5"),
        ({"validation": (X * float("nan"), None)}, "x holds NaN or infinity in 20 of 20 rows"),
        ({"validation": (X, None), "validation_bound_x": X[:3]}, "bound_x must have the shape of x"),
        ({"validation": (X, None), "monitor": "accuracy"}, "monitor must be one of unlabelled, got 'accuracy'"),
        ({"validation": (X, None), "monitor": "elbow"}, "monitor must be one of unlabelled, got 'elbow'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        fit(Line(), line_batches(), **{"epochs": 1, "progress": False, **settings})


@pytest.mark.parametrize("name", PAPERS)
def test_weights_that_diverge_name_epoch_step_and_bound(name):
    """Which of NaN and infinity comes first is a paper's own; in either case training stops, and says where."""
    _, rows, held_out = m2_run()
    objective = PAPERS[name].build(64, 10, hidden=(16,), z_dim=3)
    with pytest.raises(FloatingPointError, match=r"epoch 1, step \d: .*(NaN in the \w+ bound|is NaN or infinite)"):
        fit(objective, rows, epochs=3, learning_rate=1e20, validation=held_out, progress=False)


def test_a_second_fit_trains_again():
    """Batch norm's statistics move once a batch, though the first fit left the objective in evaluation mode."""
    objective, rows, held_out = m2_run(batch_norm=True)
    for times in (1, 2):
        fit(objective, rows, epochs=1, validation=held_out, progress=False)
        assert not objective.training
        counts = {int(b) for name, b in objective.named_buffers() if name.endswith("num_batches_tracked")}
        assert counts == {times * len(rows)}


class Sometimes(Line):
    """Has a second term in the batches with labelled rows only."""

    def terms(self, x_labelled, y_labelled, x_unlabelled):
        terms = super().terms(x_labelled, y_labelled, x_unlabelled)
        return terms if x_labelled is None else {**terms, "labelled": terms["unlabelled"] * 0 - 3.0}


def test_a_term_that_some_batches_lack_is_averaged_over_those_that_have_it():
    y = torch.eye(2)[[0] * 5]
    rows = Batches((X[:5], y, X[:10]), (None, None, X[10:]))
    (row,) = fit(Sometimes(), rows, epochs=1, progress=False)
    assert row["labelled"] == -3.0


def test_each_row_is_reported_once():
    rows = []
    assert fit(Line(), line_batches(), epochs=3, report=rows.append, progress=False) == rows


def test_ctrl_c_is_a_keyboard_interrupt_and_the_next_one_too(tmp_path):
    def interrupt(row):
        if row["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    try:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                fit(Line(), line_batches(), epochs=3, report=interrupt, progress=False)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_generator_is_no_batches():
    with pytest.raises(ValueError, match="gone through again every epoch"):
        fit(Line(), (batch for batch in line_batches()), epochs=2, progress=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="'cuda' is not available"):
        fit(Line(), line_batches(), epochs=1, device="cuda")


def test_no_batches():
    with pytest.raises(ValueError, match="batches gave no batch"):
        fit(Line(), [], epochs=1, progress=False)


SCRIPT = """
import sys
import torch
sys.path.insert(0, {tests!r})
from helpers.training_runs import Line, line_batches, weights
from semipyro.inference import fit

if __name__ == "__main__":
    torch.manual_seed(0)
    objective = Line()
    history = fit(objective, line_batches(), epochs=3, learning_rate=0.01, **{settings!r})
    print(repr([len(history), history[-1]["loss"], weights(objective).tolist()]))
"""


def run_script(tmp_path, **settings):
    """What a process of its own prints on standard output and standard error."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT.format(tests=str(TESTS), settings=settings)))
    done = subprocess.run(
        [sys.executable, "-W", "default", str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one quiet process prints."""
    return run_script(tmp_path_factory.mktemp("alone"), progress=False)


def test_nothing_is_said_when_quiet_and_a_bar_is_drawn_when_asked(alone, tmp_path):
    out, err = alone
    assert out.count("\n") == 1
    assert err == ""
    out, err = run_script(tmp_path, progress=True)
    assert out.count("\n") == 1
    assert "epoch 3/3: 100%" in err
    assert "6/6" in err
    assert "GPU" not in err
    assert "lightning" not in err.lower()
    out, err = run_script(tmp_path)  # neither a terminal nor a notebook
    assert err == ""


@pytest.mark.parametrize("strategy", ["ddp", "ddp_fork"])
def test_two_processes_take_the_steps_of_one(alone, tmp_path, strategy):
    """Each process computes on half of every batch; the averaged gradient is that of the whole."""
    alone = eval(alone[0])
    out, _ = run_script(
        tmp_path, progress=False, devices=2, strategy=strategy, device="cpu", out=str(tmp_path / strategy)
    )
    printed = re.findall(r"\[\d+, [^\[]*\[[^\]]*\]\]", out)  # with ddp the script runs twice, and both have the numbers
    assert len(printed) == (2 if strategy == "ddp" else 1)
    for numbers in printed:
        epochs, loss, found = eval(numbers)
        assert epochs == alone[0]
        assert loss == pytest.approx(alone[1], rel=1e-5)
        assert found == pytest.approx(alone[2], rel=1e-4, abs=1e-6)
    assert len((tmp_path / strategy / "metrics.csv").read_text().splitlines()) == 4


def test_an_unsupervised_model_is_monitored_by_its_bound(tmp_path):
    digits = load("digits")
    rows = batches(digits.train.x, labelled_batch_size=0, unlabelled_batch_size=200, binarize=True)
    objective = PAPERS["m1"].build(64, hidden=(16,), z_dim=3)
    assert isinstance(objective, ELBO)
    history = fit(
        objective,
        rows,
        epochs=3,
        validation=(digits.validation.x, None),
        out=tmp_path,
        progress=False,
        learning_rate=1e-2,
    )
    bounds = [row["validation_unlabelled"] for row in history]
    assert bounds == sorted(bounds)
    saved = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved["history"][-1]["validation_unlabelled"] == max(bounds)
