"""Runs that are resumed from their checkpoint end as if they had never stopped; any other checkpoint is refused."""

import csv

import numpy as np
import pytest
import torch
from semipyro.data import batches, load, mask_labels
from semipyro.inference import fit, load_weights
from semipyro.papers import PAPERS
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from helpers.training_runs import Line, Scripted, X, comparable, line_batches, m2_run, weights


def test_a_resumed_run_ends_with_the_numbers_of_one_that_never_stopped(tmp_path):
    """Weights, optimiser, order, noise and best epoch are the same, though other random numbers were drawn between."""
    whole, rows, held_out = m2_run()
    expected = fit(whole, rows, epochs=5, validation=held_out, out=tmp_path / "a", progress=False)
    first, rows, held_out = m2_run()
    fit(first, rows, epochs=2, validation=held_out, out=tmp_path / "b", progress=False)
    torch.manual_seed(99)
    second = PAPERS["m2"].build(64, 10, hidden=(16,), z_dim=3)
    _, rows, held_out = m2_run()
    torch.rand(17)
    history = fit(second, rows, epochs=5, validation=held_out, out=tmp_path / "b", resume=True, progress=False)
    assert comparable(history) == comparable(expected)
    assert torch.equal(weights(whole), weights(second))
    best = [torch.load(tmp_path / run / "checkpoints" / "best.ckpt", weights_only=True) for run in "ab"]
    assert best[0]["history"][-1]["epoch"] == best[1]["history"][-1]["epoch"]
    with (tmp_path / "b" / "metrics.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3, 4, 5]


def test_a_finished_run_resumed_does_nothing_but_return_its_history(tmp_path):
    objective, rows, held_out = m2_run()
    history = fit(objective, rows, epochs=2, validation=held_out, out=tmp_path, progress=False)
    trained = weights(objective)
    again = fit(objective, rows, epochs=2, validation=held_out, out=tmp_path, resume=True, progress=False)
    assert again == history
    assert torch.equal(weights(objective), trained)


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    fit(Line(), line_batches(), epochs=1, out=tmp_path, progress=False)
    (tmp_path / "checkpoints" / ".last.ckpt.123.partial").write_bytes(b"half")
    fit(Line(), line_batches(), epochs=2, out=tmp_path, resume=True, progress=False)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_resume_before_the_first_checkpoint_starts_at_the_start(tmp_path):
    (tmp_path / "two").mkdir()
    one, two = Line(), Line()
    two.load_state_dict(one.state_dict())
    fit(one, line_batches(), epochs=2, out=tmp_path / "one", progress=False)
    fit(two, line_batches(), epochs=2, out=tmp_path / "two", resume=True, progress=False)
    assert torch.equal(weights(one), weights(two))


def test_a_run_that_stopped_early_stays_stopped_and_goes_on_with_more_patience(tmp_path):
    settings = {"epochs": 7, "validation": (X, None), "out": tmp_path, "progress": False}
    fit(Scripted(), line_batches(), patience=2, **settings)
    assert len(fit(Scripted(), line_batches(), patience=2, resume=True, **settings)) == 4
    assert len(fit(Scripted(), line_batches(), patience=4, resume=True, **settings)) == 6


def test_the_best_epoch_is_still_known_in_a_folder_that_was_moved(tmp_path):
    settings = {"validation": (X, None), "progress": False}
    fit(Scripted(), line_batches(), epochs=3, out=tmp_path / "here", **settings)
    (tmp_path / "here").rename(tmp_path / "there")
    objective = Scripted()
    fit(objective, line_batches(), epochs=5, out=tmp_path / "there", resume=True, restore_best=True, **settings)
    assert objective.epoch.item() == 2


def test_numbers_of_numpy_are_plain_in_the_checkpoint(tmp_path):
    objective = Line()
    settings = {
        "learning_rate": np.float64(1e-3),
        "schedule": lambda epoch: np.float64(0.5),
        "weight_decay": np.float32(1),
    }
    history = fit(objective, line_batches(), epochs=np.int64(2), out=tmp_path, progress=False, **settings)
    assert history[-1]["learning_rate"] == pytest.approx(5e-4)
    again = fit(Line(), line_batches(), epochs=2, out=tmp_path, resume=True, progress=False, **settings)
    assert again == history


@pytest.mark.parametrize("sized", [True, False])
def test_a_shuffling_loader_of_pytorch_s_own_is_resumed_exactly(tmp_path, sized):
    def loader():
        loaded = DataLoader(TensorDataset(X), batch_size=7, shuffle=True)
        return Mapped(loaded) if sized else Unsized(loaded)

    one, two = Line(), Line()
    two.load_state_dict(one.state_dict())
    settings = {"learning_rate": 0.1, "progress": False}
    torch.manual_seed(5)
    expected = fit(one, loader(), epochs=4, out=tmp_path / "a", **settings)
    torch.manual_seed(5)
    fit(two, loader(), epochs=2, out=tmp_path / "b", **settings)
    torch.manual_seed(77)
    assert comparable(fit(two, loader(), epochs=4, out=tmp_path / "b", resume=True, **settings)) == comparable(expected)


class Unsized:
    """An iterable that does not know its length."""

    def __init__(self, loader):
        self._loader = loader

    def __iter__(self):
        return ((None, None, x) for (x,) in self._loader)


class Mapped(Unsized):
    """An iterable that knows its length."""

    def __len__(self):
        return len(self._loader)


# What is refused


@pytest.fixture
def finished(tmp_path):
    """The folder of a finished run of two epochs."""
    fit(Line(), line_batches(), epochs=2, out=tmp_path, progress=False)
    return tmp_path


def resume(folder, objective=None, rows=None, **settings):
    return fit(
        objective or Line(), rows or line_batches(), epochs=3, out=folder, resume=True, progress=False, **settings
    )


def test_a_folder_with_another_run_is_refused(finished):
    with pytest.raises(ValueError, match="holds another run's metrics.csv and checkpoints; pass resume=True or choose"):
        fit(Line(), line_batches(), epochs=1, out=finished, progress=False)


def test_a_checkpoint_with_other_settings_says_which(finished):
    with pytest.raises(ValueError, match=r"other settings: learning_rate was 0.0003 and is now 0.1; weight_decay was"):
        resume(finished, learning_rate=0.1, weight_decay=0.5)
    rows = line_batches()
    rows.size = 7
    with pytest.raises(ValueError, match=r"batches.size was 10 and is now 7"):
        resume(finished, rows=rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "relu"}, "Softplus.*ReLU"),
        ({"likelihood": "normal", "scale": 0.3}, "BernoulliNet.*NormalNet"),
        ({"y_prior": [0.28] + 9 * [0.08]}, "objective.model.y_prior was"),
        ({"labelled_weight": 0.3}, "labelled_weight was 0.1 and is now 0.3"),
        ({"rows": {"seed": 4}}, "batches.seed was"),
        ({"rows": {"binarize": False}}, "batches.binarize was True and is now False"),
        ({"rows": {"labels": 4}}, "batches.fingerprint was"),
        ({"kl_weight": 0.5}, "kl_weight was 1.0 and is now 0.5"),
    ],
)
def test_a_run_is_not_resumed_with_other_parts(tmp_path, change, message):
    def run(rows=None, kl_weight=1.0, **networks):
        rows = {"seed": 0, "binarize": True, "labels": 5, **(rows or {})}
        digits = load("digits")
        y = mask_labels(digits.train.y, per_class=rows.pop("labels"))
        loader = batches(digits.train.x, y, labelled_batch_size=50, unlabelled_batch_size=500, **rows)
        objective = PAPERS["m2"].build(64, 10, hidden=(4,), z_dim=2, **networks)
        objective.kl_weight.fill_(kl_weight)
        return fit(objective, loader, epochs=2, out=tmp_path, resume=tmp_path.joinpath("x").exists(), progress=False)

    run()
    tmp_path.joinpath("x").touch()
    assert len(run()) == 2
    with pytest.raises(ValueError, match=f"(?s)other settings.*{message}"):
        run(**change)


def test_fewer_epochs_than_are_done(finished):
    with pytest.raises(ValueError, match="2 epochs behind it, more than epochs=1"):
        fit(Line(), line_batches(), epochs=1, out=finished, resume=True, progress=False)


def test_a_checkpoint_of_other_networks_says_which(finished):
    wide = Line()
    wide.model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    with pytest.raises(ValueError, match=r"other networks: .*model.0.weight was \(4, 3\) and is now \(5, 3\)"):
        resume(finished, wide)
    with pytest.raises(ValueError, match=r"model.0.weight was \(4, 3\) and is now \(5, 3\)"):
        load_weights(wide, finished / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("damage", ["cut off", "other bytes", "other content", "pickled object"])
def test_a_damaged_checkpoint_is_refused(finished, damage):
    path = finished / "checkpoints" / "last.ckpt"
    content = path.read_bytes()
    if damage == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "other bytes":
        path.write_bytes(b"these are not weights")
    elif damage == "other content":
        torch.save({"weights": torch.ones(3)}, path)
    else:
        torch.save({"state_dict": {}, "fit_settings": Line()}, path)
    with pytest.raises(ValueError, match=r"last.ckpt is (cut off or )?not a checkpoint"):
        resume(finished)
    with pytest.raises(ValueError, match=r"last.ckpt is (cut off or )?not a checkpoint"):
        load_weights(Line(), path)


def test_a_missing_checkpoint():
    with pytest.raises(ValueError, match="there is no checkpoint nowhere.ckpt"):
        load_weights(Line(), "nowhere.ckpt")
