"""The Gaussians' log-densities are PyTorch's, in value and gradients, and all else is Pyro's."""

import pyro
import pytest
import torch
from pyro.distributions import Normal
from semipyro.distributions import NormalNet, StandardNormal
from semipyro.distributions.gaussian import DiagonalNormal, StandardGaussian
from torch import Tensor

pytestmark = pytest.mark.usefixtures("float64")
L = 4


def slopes(value: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(value.sin().sum(), of))  # weighs each row differently


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_a_diagonal_gaussian_is_pytorch_s(batch: tuple[int, ...]) -> None:
    """With μ and σ of one row, and z of several; and it is noticed where σ is another."""
    loc, scale = torch.randn(*batch[1:], L, requires_grad=True), (torch.rand(L) + 0.1).requires_grad_()
    z = torch.randn(*batch, L, requires_grad=True)
    ours, theirs = DiagonalNormal(Normal(loc, scale), 1), Normal(loc, scale).to_event(1)
    assert ours.log_prob(z).shape == batch
    assert torch.allclose(ours.log_prob(z), theirs.log_prob(z), rtol=1e-12)
    assert not torch.allclose(ours.log_prob(z), Normal(loc, 1.01 * scale).to_event(1).log_prob(z), rtol=1e-4)
    both = (slopes(each.log_prob(z), z, loc, scale) for each in (ours, theirs))
    assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(*both, strict=True))


def test_a_standard_gaussian_is_pytorch_s() -> None:
    z = torch.randn(3, L, requires_grad=True)
    ours, theirs = StandardNormal(L)(), Normal(torch.zeros(L), 1.0).to_event(1)
    assert isinstance(ours, StandardGaussian)
    assert torch.allclose(ours.log_prob(z), theirs.log_prob(z), rtol=1e-12)
    assert torch.allclose(slopes(ours.log_prob(z), z)[0], slopes(theirs.log_prob(z), z)[0], rtol=1e-10)


@pytest.mark.parametrize("made", [lambda: StandardNormal(L)(), lambda: NormalNet((2,), L)(torch.ones(2))])
def test_in_a_plate_it_stays_what_it_is(made: object) -> None:
    """Expansion by a plate keeps the kind, and with it mean, scale and draws."""
    assert callable(made)
    given = made()
    expanded = given.expand((5,))
    assert type(expanded) is type(given)
    assert (expanded.batch_shape, expanded.event_shape) == ((5,), (L,))
    assert torch.equal(expanded.mean, given.mean.expand(5, L))
    draws = given.expand((100_000,)).sample()
    assert torch.allclose(draws.std(0), given.base_dist.scale.expand(L), atol=0.02)


@pytest.mark.parametrize("made", [lambda: StandardNormal(L)(), lambda: NormalNet((2,), L)(torch.ones(2))])
def test_nan_is_an_error_while_validation_is_on(made: object) -> None:
    assert callable(made)
    with pytest.raises(ValueError, match="within the support"):
        made().log_prob(torch.full((L,), torch.nan))
    with pyro.validation_enabled(False):
        assert made().log_prob(torch.full((L,), torch.nan)).isnan()
