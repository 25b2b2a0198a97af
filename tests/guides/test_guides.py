"""What every guide is asked: `classify` gives the posterior of y, `encode` the posterior mean of a latent."""

import pytest
import torch

from helpers.linear_gaussian_cases import m1, m2

pytestmark = pytest.mark.usefixtures("float64")


def test_classify_and_encode_are_the_posteriors() -> None:
    """classify(x) = q(y | x), batch shape (N,); encode(x) = the mean of q(z | x, y) at the most probable y."""
    case = m2(perturb=True)
    guide, x = case.objective.guide, case.rows[2]
    found = guide.classify(x, num_samples=3)
    assert found.batch_shape == (len(x),)
    assert torch.allclose(found.probs, guide.q_y(x).probs, atol=1e-15)
    y = torch.eye(3)[found.probs.argmax(-1)]
    assert torch.equal(guide.encode(x), guide.q_z(x, y).mean)
    assert torch.equal(guide.encode(x, site="z"), guide.encode(x))
    vae = m1(perturb=True).objective.guide
    assert torch.equal(vae.encode(x), vae.q_z(x).mean)
