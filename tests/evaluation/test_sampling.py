"""Draws of a trained model: any of its sites with the others given, and rows of a class."""

from typing import Any

import pytest
import torch
from pyro.distributions import Normal, OneHotCategorical
from semipyro.distributions import BernoulliNet, StandardNormal
from semipyro.inference import sample
from semipyro.inference.evaluation.sampling import sample_classes
from semipyro.models import (
    ADGM,
    AGMDGM,
    GMDGM,
    M2,
    SDGM,
    VAE,
    CaGeM,
    LatentClassifier,
    SimplifiedLatentClassifier,
)
from semipyro.papers import PAPERS
from torch import Tensor

from helpers.comparisons import SIGMAS, standard_error
from helpers.conditionals import Conditional, Copy, Sign
from helpers.paper_networks import networks

pytestmark = pytest.mark.usefixtures("float64")


# sample


def showing_its_parts() -> M2:
    """M2 whose x is [y, z], up to 1e-9."""

    def p_x(y: Tensor, z: Tensor) -> Any:
        return Normal(torch.cat([y, z], -1), 1e-9).to_event(1)

    return M2(p_x=Conditional(p_x), y_dim=3, z_dim=2, y_prior=[0.5, 0.2, 0.3])


def test_sample_runs_the_model_forward() -> None:
    """Frequencies of y are π, z is standard normal and independent of y, all within 5 standard errors."""
    n = 5000
    x = sample(showing_its_parts(), n)
    assert x.shape == (n, 5)
    y, z, prior = x[:, :3].round(), x[:, 3:], torch.tensor([0.5, 0.2, 0.3])
    assert ((y.mean(0) - prior).abs() < SIGMAS * (prior * (1 - prior) / n).sqrt()).all()
    assert (z.mean(0).abs() < SIGMAS / n**0.5).all()
    assert (((z**2).mean(0) - 1).abs() < SIGMAS * (2 / n) ** 0.5).all()
    products = z[:, :, None] * (y - prior)[:, None]
    assert (products.mean(0).abs() < SIGMAS * standard_error(products)).all()


def test_sample_keeps_what_is_given() -> None:
    """y and latents are used as they are, and what is not given is drawn."""
    y, z = torch.eye(3)[[2, 0, 1, 1]], torch.arange(8.0).view(4, 2)
    both = sample(showing_its_parts(), 4, y, latents={"z": z})
    assert torch.allclose(both, torch.cat([y, z], -1), atol=1e-6)
    only_y = sample(showing_its_parts(), 4, y)
    assert torch.allclose(only_y[:, :3], y, atol=1e-6)
    assert not torch.allclose(only_y[:, 3:], sample(showing_its_parts(), 4, y)[:, 3:])
    only_z = sample(showing_its_parts(), 4, latents={"z": z})
    assert torch.allclose(only_z[:, 3:], z, atol=1e-6)


READ_BY_X: dict[type, tuple[str, ...]] = {  # the conditions of p(x | …), in their order
    VAE: ("z",),
    M2: ("y", "z"),
    ADGM: ("y", "z"),
    SDGM: ("a", "y", "z"),
    GMDGM: ("z",),
    AGMDGM: ("z",),
    CaGeM: ("y", "z1"),
    LatentClassifier: ("y", "z"),
    SimplifiedLatentClassifier: ("z",),
}


@pytest.mark.parametrize("name", PAPERS)
def test_mean_of_a_sample(name: str) -> None:
    """mean=True is the mean of p(x | …) at the latents; the draws have that mean, and a Bernoulli's are in {0, 1}."""
    model, n = networks(name, K=3).model.eval(), 3000
    widths = {site: StandardNormal(width) for site, width in {"z": 8, "a": 2, "z1": 8}.items()}
    given = {site: widths[site]().sample((1,)).expand(n, -1) for site in READ_BY_X[type(model)] if site != "y"}
    y = torch.eye(3)[[1]].expand(n, 3) if PAPERS[name].classifies else None
    expected = model.p_x(*({**given, "y": y}[site] for site in READ_BY_X[type(model)])).mean.detach()
    means = sample(model, n, y, latents=given, mean=True)
    draws = sample(model, n, y, latents=given)
    assert torch.equal(means, expected)
    assert not means.requires_grad
    assert not draws.requires_grad
    assert (set(draws.unique().tolist()) <= {0.0, 1.0}) == isinstance(model.p_x, BernoulliNet)
    assert ((draws.mean(0) - expected[0]).abs() <= SIGMAS * standard_error(draws)).all()


@pytest.mark.parametrize("name", PAPERS)
def test_sample_is_seeded_and_keeps_modes(name: str) -> None:
    """The same seed gives the same draws; training mode and type are kept."""
    for dtype in (torch.float32, torch.float64):
        model = PAPERS[name].build(5, 3, z_dim=2, hidden=(4,)).model.to(dtype).train()
        torch.manual_seed(4)
        first = sample(model, 20)
        torch.manual_seed(4)
        assert torch.equal(sample(model, 20), first)
        assert first.dtype == dtype
        assert model.training


# sample_classes


class OneClassMore(Sign):
    """The class is the sign of z, and never the third."""

    def forward(self, z):
        logits = super().forward(z).logits
        return OneHotCategorical(logits=torch.cat([logits, logits[..., :1] * 0 - 1e6], -1))


def test_a_class_that_never_comes_up(monkeypatch):
    monkeypatch.setattr("semipyro.inference.evaluation.sampling.ROUNDS", 2)
    model = PAPERS["latent-classifier"].build(1, 3, z_dim=1, hidden=(3,), likelihood="normal").model
    model.p_y, model.p_x = OneClassMore(), Copy()
    with pytest.raises(ValueError, match="hardly ever draws class number 2: too few in 4,000 rows"):
        sample_classes(model, torch.tensor([0, 2]), 3)
