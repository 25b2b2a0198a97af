"""What a resumed run has in common with the run before: what its parts declare, and no more."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pyro.distributions import transforms
from semipyro import contract
from semipyro.data import batches
from semipyro.inference import fit
from semipyro.inference.training.checkpoint import read_checkpoint
from semipyro.papers import PAPERS

OLD = Path(__file__).parent / "version_0_1"  # a run of two epochs by version 0.1, and what a third one gave there


def blobs():
    """The rows and labels of the run of version 0.1."""
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(centre, 1, (30, 3)) for centre in (-3, 3)])
    y = torch.full((60,), -1)
    y[:4], y[-4:] = 0, 1
    return torch.as_tensor(x, dtype=torch.float32), y


def built(**settings):
    torch.manual_seed(0)
    return PAPERS["m2"].build(3, 2, z_dim=2, hidden=(4,), likelihood="normal", **settings)


def train(out, epochs=3, objective=None, **settings):
    x, y = blobs()
    rows = batches(x, y, labelled_batch_size=4, unlabelled_batch_size=20, seed=0)
    return fit(
        objective or built(), rows, epochs=epochs, out=out, device="cpu", validation=(x, y), progress=False, **settings
    )


@pytest.fixture
def old_run(tmp_path):
    """A copy of the folder that version 0.1 wrote."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def test_a_run_of_version_0_1_goes_on_to_the_numbers_that_it_would_have_had(old_run):
    history = train(old_run, resume=True)
    with (OLD / "whole.csv").open() as file:
        expected = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for row, then in zip(history, expected, strict=True):
        for name in then.keys() - {"seconds", "epoch"}:
            assert row[name] == pytest.approx(float(then[name]), rel=1e-4), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labelled_weight": 0.7}, "objective.labelled_weight was 0.1 and is now 0.7"),
        ({"y_prior": [0.3, 0.7]}, "objective.model.y_prior was"),
        ({"activation": "tanh"}, "Softplus.*Tanh"),
    ],
)
def test_a_run_of_version_0_1_with_other_settings_is_refused(old_run, change, message):
    with pytest.raises(ValueError, match=message):
        train(old_run, objective=built(**change), resume=True)


def test_a_run_over_some_classes_is_another_run(tmp_path):
    train(tmp_path, epochs=1, objective=built(summed_classes=1))
    with pytest.raises(ValueError, match="objective.summed_classes was 1 and is now None"):
        train(tmp_path, epochs=2, objective=built(), resume=True)


def test_an_attribute_that_is_not_declared_breaks_no_run(tmp_path):
    train(tmp_path, epochs=1)
    objective = built()
    objective.model.remark, objective.guide.q_z.remark = "a note", 3
    assert len(train(tmp_path, epochs=2, objective=objective, resume=True)) == 2


def test_a_declared_one_does(tmp_path):
    def with_remark(remark):
        objective = built()
        objective.model.declared_settings = ("y_dim", "remark")
        objective.model.remark = remark
        return objective

    train(tmp_path, epochs=1, objective=with_remark("a note"))
    with pytest.raises(ValueError, match="objective.model.remark was 'a note' and is now 'another'"):
        train(tmp_path, epochs=2, objective=with_remark("another"), resume=True)


@pytest.mark.parametrize("name", PAPERS)
def test_every_part_of_a_paper_can_be_kept_as_plain_data(name, tmp_path):
    """Each name that a part declares is an attribute, and its value is the same after a checkpoint."""
    objective = PAPERS[name].build(3, 2, hidden=(4,), z_dim=3)
    declared = {path: contract.settings(part) for path, part in objective.named_modules()}
    assert {"num_samples", "kl_weight"} <= declared[""].keys()
    x, y = torch.rand(12, 3), torch.arange(12) % 2
    rows = batches(x, y, labelled_batch_size=4, unlabelled_batch_size=12, include_labelled=True, num_classes=2)
    fit(objective, rows, epochs=1, out=tmp_path, device="cpu", progress=False)
    kept = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["fit_settings"]
    for path, found in declared.items():
        for setting, value in found.items():
            key = f"objective.{path}.{setting}".replace("..", ".")
            assert kept[key] == value, key


def test_a_flow_s_own_settings_are_compared(tmp_path):
    """A flow of the user's own, whose transforms have settings that Pyro keeps as attributes."""

    def with_bound(bound):
        return built(flow=lambda dim: transforms.spline(dim, bound=bound))

    train(tmp_path, epochs=1, objective=with_bound(3.0))
    with pytest.raises(ValueError, match="transform_settings was .*3.0.* and is now .*1.0"):
        train(tmp_path, epochs=2, objective=with_bound(1.0), resume=True)
    assert len(train(tmp_path, epochs=2, objective=with_bound(3.0), resume=True)) == 2


def test_a_flow_of_version_0_1_is_resumed(tmp_path):
    """Its checkpoint has no settings of transforms, and of those that it has, the common ones are compared."""
    train(tmp_path, epochs=1, objective=built(flow="iaf"))
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["format"], checkpoint["digest"], checkpoint["fit_settings"]["objective.guide.q_z.transform_settings"]
    checkpoint["fit_settings"]["objective.guide.q_z.base.an_attribute_that_is_gone"] = 3
    torch.save(checkpoint, path)
    assert len(train(tmp_path, epochs=2, objective=built(flow="iaf"), resume=True)) == 2


def test_what_cannot_be_kept_is_refused_before_the_first_epoch(tmp_path):
    objective = built()
    objective.model.declared_settings, objective.model.remark = ("remark",), lambda: 0
    with pytest.raises(ValueError, match="remark of M2 must be numbers or text"):
        train(tmp_path / "run", epochs=1, objective=objective)
    assert not (tmp_path / "run").exists()
