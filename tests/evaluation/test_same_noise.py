"""The same noise for every row, so that the prediction of a row does not depend on the rows beside it."""

import torch
from semipyro.inference.evaluation.same_noise import SameNoise


def test_the_same_noise_for_every_row():
    torch.manual_seed(0)
    with SameNoise():
        noise = torch.distributions.Normal(torch.zeros(4, 7, 3), 1.0).rsample((2,))
    assert noise.shape == (2, 4, 7, 3)
    assert torch.equal(noise, noise[:, :, :1].expand_as(noise))
    assert len(noise[:, :, 0].unique()) == 24
    assert len(torch.distributions.Normal(torch.zeros(4, 7, 3), 1.0).rsample((2,)).unique()) > 24
