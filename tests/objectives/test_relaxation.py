"""Stand-ins for discrete draws: straight-through Bernoulli draws of x, and relaxed labels."""

import math
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import OneHotCategorical
from semipyro.distributions import (
    GreyBernoulli,
)
from semipyro.inference.objectives.relaxation import RelaxLabels, StraightThrough, StraightThroughBernoulli, smoothed
from torch import Tensor

from helpers.comparisons import SIGMAS, close_arrays

pytestmark = pytest.mark.usefixtures("float64")


def test_straight_through_draws_are_bernoulli_draws() -> None:
    """Exactly 0 or 1, with the mean and the density of the Bernoulli distribution, in any shape."""
    p = torch.tensor([0.02, 0.5, 0.9])
    d = StraightThroughBernoulli(probs=p)
    draws = d.rsample((20_000,))
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert ((draws.mean(0) - p).abs() < SIGMAS * (p * (1 - p) / 20_000).sqrt()).all()
    assert ((draws[:-1] * draws[1:]).mean(0) - p**2).abs().max() < SIGMAS * 20_000**-0.5  # independent of each other
    assert d.has_rsample
    wide = d.expand((4, 3))
    assert type(wide) is StraightThroughBernoulli
    assert wide.rsample((2,)).shape == (2, 4, 3)
    x = torch.rand(4, 3)
    assert torch.equal(wide.log_prob(x), GreyBernoulli(probs=p).log_prob(x))


def test_straight_through_gradients_are_those_of_a_concrete_draw() -> None:
    """d/d logit of sigmoid((logit + l) / τ) at the noise l of the same draw, whatever was rounded."""
    logits = torch.randn(500, requires_grad=True)
    torch.manual_seed(2)
    draw = StraightThroughBernoulli(logits=logits).rsample()
    torch.manual_seed(2)
    noise = torch.logit(torch.rand(500))
    soft = torch.sigmoid((logits + noise) / StraightThroughBernoulli.temperature)
    weight = torch.randn(500)
    mine, theirs = (torch.autograd.grad((weight * each).sum(), logits)[0] for each in (draw, soft))
    assert torch.equal(draw.detach(), soft.detach().round())
    assert close_arrays(mine, theirs)
    assert (mine != 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_straight_through_draws_of_extreme_logits(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sure pixels stay what they are, and no uniform number, not 0 and not the largest below 1, gives infinity."""
    logits = torch.tensor([-1e6, -200.0, 200.0, 1e6], dtype=dtype, requires_grad=True)
    draw = StraightThroughBernoulli(logits=logits).rsample((1000,))
    assert torch.equal(draw.detach(), torch.tensor([0, 0, 1, 1], dtype=dtype).expand(1000, 4))
    middle = torch.zeros(2, dtype=dtype, requires_grad=True)
    monkeypatch.setattr(torch, "rand_like", lambda like: torch.tensor([0.0, 1.0 - 2**-24]).to(like))
    draw = StraightThroughBernoulli(logits=middle).rsample()
    draw.sum().backward()
    assert draw.tolist() == [0.0, 1.0]
    assert torch.isfinite(middle.grad).all()


def bernoulli_images() -> None:
    with pyro.plate("data", 5):
        pyro.sample("x", GreyBernoulli(logits=torch.ones(3)).to_event(1))
        pyro.sample("other", pyro.distributions.Bernoulli(logits=torch.ones(3)).to_event(1))


def test_straight_through_changes_the_site_x_alone() -> None:
    """The same density there; other sites as they were."""
    nodes: Any = poutine.trace(StraightThrough()(bernoulli_images)).get_trace().nodes
    assert isinstance(nodes["x"]["fn"].base_dist, StraightThroughBernoulli)
    assert nodes["x"]["fn"].has_rsample
    assert not nodes["other"]["fn"].has_rsample
    x = torch.rand(5, 3)
    assert close_arrays(nodes["x"]["fn"].log_prob(x), GreyBernoulli(logits=torch.ones(3)).to_event(1).log_prob(x))
    assert nodes["x"]["value"].shape == (5, 3)


@pytest.mark.parametrize("smoothing", [0.05, 0.5])
def test_smoothed_labels(smoothing: float) -> None:
    """1 − ε at the class and ε / (K − 1) at each of the others: still probabilities."""
    y = torch.eye(4)[[2, 0]]
    found = smoothed(y, smoothing)
    rest = smoothing / 3
    expected = [[rest, rest, 1 - smoothing, rest], [1 - smoothing, rest, rest, rest]]
    assert close_arrays(found, expected)
    assert close_arrays(found.sum(-1), torch.ones(2))


LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)


def relaxed_site(temperature: float, y: Any = None) -> Any:
    """The site y of a program under `RelaxLabels`, beside a site that it leaves alone."""

    def program() -> None:
        with pyro.plate("data", 2):
            d = OneHotCategorical(logits=LOGITS)
            pyro.sample("y", d, obs=y, infer={"enumerate": "parallel", "kept": True})
            pyro.sample("other", d, infer={"enumerate": "parallel"})

    trace = poutine.trace(RelaxLabels(temperature)(program)).get_trace()
    trace.compute_log_prob()
    return trace.nodes


def log_concrete(y: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """log Γ(K) + (K − 1) log τ + Σ_k [log π_k − (τ + 1) log y_k] − K log Σ_k π_k y_k^−τ."""
    K, log_p = y.shape[-1], torch.log_softmax(logits, -1)
    inner = (log_p - (temperature + 1) * y.log()).sum(-1) - K * torch.logsumexp(log_p - temperature * y.log(), -1)
    return math.lgamma(K) + (K - 1) * math.log(temperature) + inner


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_relaxed_labels_are_concrete_draws(temperature: float) -> None:
    """A draw is the softmax of Gumbel noise, scored by the Concrete density; y alone is no longer enumerated."""
    torch.manual_seed(4)
    nodes = relaxed_site(temperature)
    y = nodes["y"]["value"]
    torch.manual_seed(4)
    uniform = torch.rand_like(LOGITS)
    gumbel = -(-uniform.log()).log()
    assert close_arrays(y, torch.softmax((torch.log_softmax(LOGITS, -1) + gumbel) / temperature, -1), 1e-6)
    assert close_arrays(nodes["y"]["log_prob"], log_concrete(y, LOGITS, temperature), 1e-9)
    assert nodes["y"]["infer"] == {"kept": True}
    assert nodes["other"]["infer"]["enumerate"] == "parallel"
    assert type(nodes["other"]["fn"]) is OneHotCategorical


def test_given_labels_have_their_concrete_density() -> None:
    """A y on the simplex is observed as it is; the density of a sharp one is larger under probabilities like it."""
    y = smoothed(torch.eye(3)[[0, 1]], 0.05)
    nodes = relaxed_site(1.0, y)
    assert nodes["y"]["is_observed"]
    assert torch.equal(nodes["y"]["value"], y)
    assert close_arrays(nodes["y"]["log_prob"], log_concrete(y, LOGITS, 1.0), 1e-9)


def test_the_concrete_density_is_a_density() -> None:
    """K = 2: ∫ p(y, 1 − y) dy = 1, by quadrature in the log-odds of y; the formula above is one too."""
    t = torch.linspace(-60, 60, 40_001)
    y = torch.stack([torch.sigmoid(t), torch.sigmoid(-t)], -1)
    for temperature in (0.5, 1.0, 2.0):
        density = log_concrete(y, torch.tensor([1.0, -0.5]), temperature).exp() * y.prod(-1)  # dy = y (1 − y) dt
        assert float(torch.trapezoid(density, t)) == pytest.approx(1, abs=1e-6)


def test_a_cold_draw_is_scored_under_both_densities() -> None:
    """At τ = 0.001 y is rounded to a one-hot long before its density loses its meaning: guide and model keep log y.

    The log-ratio of the two densities is then that of the exact logarithms, which the draw's noise gives.
    """
    temperature, other = 0.001, torch.tensor([[0.0, 1.0, 0.5], [1.0, -1.0, 0.0]])
    relax = RelaxLabels(temperature)

    def site(logits: Tensor) -> None:
        with pyro.plate("data", 2):
            pyro.sample("y", OneHotCategorical(logits=logits))

    torch.manual_seed(6)
    q = poutine.trace(relax(site)).get_trace(LOGITS)
    p = poutine.trace(relax(poutine.replay(site, q))).get_trace(other)
    q.compute_log_prob(), p.compute_log_prob()
    assert (q.nodes["y"]["value"] == 0).any()
    torch.manual_seed(6)
    gumbel = -(-torch.rand_like(LOGITS).log()).log()
    log_y = torch.log_softmax((torch.log_softmax(LOGITS, -1) + gumbel) / temperature, -1)

    def log_density(logits: Tensor) -> Tensor:
        log_p = torch.log_softmax(logits, -1)
        inner = (log_p - (temperature + 1) * log_y).sum(-1) - 3 * torch.logsumexp(log_p - temperature * log_y, -1)
        return math.lgamma(3) + 2 * math.log(temperature) + inner

    for trace, logits in ((q, LOGITS), (p, other)):
        assert close_arrays(trace.nodes["y"]["log_prob"], log_density(logits), 1e-6)
