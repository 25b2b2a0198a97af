"""What is drawn beside training: samples of a class, M1's features, and the noise of predictions."""

import pytest
import torch
from semipyro.inference.evaluation.features import draw_features, features
from semipyro.inference.evaluation.same_noise import SameNoise
from semipyro.inference.evaluation.sampling import sample_classes
from semipyro.papers import PAPERS

from helpers.conditionals import Copy, Sign


def test_a_class_that_never_comes_up(monkeypatch):
    monkeypatch.setattr("semipyro.inference.evaluation.sampling.ROUNDS", 2)
    model = PAPERS["latent-classifier"].build(1, 3, z_dim=1, hidden=(3,), likelihood="normal").model
    model.p_y, model.p_x = Sign(), Copy()
    with pytest.raises(ValueError, match="hardly ever draws class number 2: too few in 4,000 rows"):
        sample_classes(model, torch.tensor([0, 2]), 3)


def test_features_are_draws_of_m1_s_posterior():
    torch.manual_seed(0)
    m1 = PAPERS["m1"].build(4, z_dim=2, hidden=(3,), likelihood="normal")
    x = torch.randn(5, 4)
    q_z = m1.guide.q_z(x)
    rows = features(m1.double(), x)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, torch.cat([q_z.mean, q_z.stddev], 1).detach())


def test_a_flow_has_no_features():
    m1 = PAPERS["m1"].build(4, z_dim=2, hidden=(3,), likelihood="normal", flow="iaf")
    with pytest.raises(ValueError, match=r"M1's q\(z \| x\) is a flow.*train M1 without a flow"):
        features(m1, torch.randn(5, 4))


def test_draws_of_features():
    rows = torch.tensor([[1.0, -2.0, 0.5, 0.0]]).expand(4000, -1)
    torch.manual_seed(0)
    z = draw_features(rows)
    assert (z[:, 0].mean() - 1).abs() < 5 * 0.5 / 4000**0.5
    assert (z[:, 0].std() - 0.5).abs() < 5 * 0.5 / 8000**0.5
    assert torch.equal(z[:, 1], rows[:, 1])


def test_the_same_noise_for_every_row():
    torch.manual_seed(0)
    with SameNoise():
        noise = torch.distributions.Normal(torch.zeros(4, 7, 3), 1.0).rsample((2,))
    assert noise.shape == (2, 4, 7, 3)
    assert torch.equal(noise, noise[:, :, :1].expand_as(noise))
    assert len(noise[:, :, 0].unique()) == 24
    assert len(torch.distributions.Normal(torch.zeros(4, 7, 3), 1.0).rsample((2,)).unique()) > 24
