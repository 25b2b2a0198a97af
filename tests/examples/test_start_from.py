"""`--start-from`: a model that starts as the VAE of an earlier run, whatever y is."""

import pytest
import torch
from semipyro.data import load
from semipyro.papers import PAPERS

from helpers.example_runs import call, imported

NETWORKS = {"z_dim": 3, "hidden": [12], "likelihood": "bernoulli"}


@pytest.fixture(scope="module")
def pretraining():
    with imported("shared.pretraining") as module:
        yield module


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """The folder of a run of M1 on the digits."""
    folder = tmp_path_factory.mktemp("vae")
    with imported("ss_vae_m1") as script:
        done = call(script, f"--hidden 12 --z-dim 3 --epochs 1 --no-figures --out {folder / 'm1'}", folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "m1"


@pytest.mark.parametrize("paper", ["m2", "latent-classifier", "simplified"])
def test_the_model_is_the_vae_whatever_y_is(pretraining, vae, paper):
    objective = PAPERS[paper].build(64, 10, **NETWORKS)
    x, y = load("digits").test.x[:10], torch.eye(10)
    z = torch.randn(10, 3)
    source = pretraining.load_run(vae)
    pretraining.start_from(vae, objective)
    p_x = objective.model.p_x(z) if paper == "simplified" else objective.model.p_x(y, z)
    q_z = objective.guide.q_z(x, y) if paper == "m2" else objective.guide.q_z(x)
    torch.testing.assert_close(p_x.mean, source.model.p_x(z).mean)
    torch.testing.assert_close(q_z.mean, source.guide.q_z(x).mean)
    torch.testing.assert_close(q_z.stddev, source.guide.q_z(x).stddev)


def test_the_classifier_keeps_its_own_start(pretraining, vae):
    objective = PAPERS["m2"].build(64, 10, **NETWORKS)
    before = [parameter.clone() for parameter in objective.guide.q_y.parameters()]
    pretraining.start_from(vae, objective)
    for old, new in zip(before, objective.guide.q_y.parameters(), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--hidden 13 --z-dim 3", "has other layers (mlp.first.weight is (12, 3), here (13, 13)): both need the same"),
        ("--hidden 12 --z-dim 4", "has other layers"),
        ("--hidden 12 12 --z-dim 3", "has other networks: both need as many --hidden layers"),
        ("--hidden 12 --z-dim 3 --rank 2", "has other layers"),
    ],
)
def test_another_network_is_refused_before_a_folder_is_made(vae, tmp_path, flags, complaint):
    with imported("ss_vae_m2") as script:
        done = call(script, f"{flags} --epochs 1 --start-from {vae} --out {tmp_path / 'm2'}", tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert not (tmp_path / "m2").exists()


def test_a_folder_without_a_run_is_named(tmp_path):
    with imported("ss_vae_m2") as script:
        done = call(script, f"--epochs 1 --start-from {tmp_path / 'none'} --out {tmp_path / 'm2'}", tmp_path)
    assert done.returncode == 2
    assert str(tmp_path / "none") in done.stderr
