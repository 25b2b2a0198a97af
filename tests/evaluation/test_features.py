"""M1's features: the mean and standard deviation of q(z | x) for every row, and draws from them."""

import pytest
import torch
from semipyro.inference.evaluation.features import draw_features, features
from semipyro.papers import PAPERS


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
