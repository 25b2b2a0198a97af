"""Each conditional's density and draws are its distribution's."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from semipyro.distributions import (
    LIKELIHOODS,
    MLP,
    BernoulliNet,
    BlockNormalNet,
    BoundedNormalNet,
    CategoricalNet,
    GreyBernoulli,
    NormalNet,
    OfFirst,
    StandardNormal,
    UniformBox,
    WithFeatures,
    averaged,
    central_value,
    class_probabilities,
    likelihood_net,
    most_probable,
)
from semipyro.distributions.conditionals import MIN_SCALE
from semipyro.distributions.parts import Blocks
from semipyro.papers import PAPERS
from torch import Tensor, nn

from helpers.comparisons import SIGMAS, close_arrays
from helpers.paper_networks import random_weights

ROUNDING = 1e-12
N, K, S = 6, 3, 2


pytestmark = pytest.mark.usefixtures("float64")


# Conditionals


def scipy_bernoulli(d: Any, x: Tensor) -> Any:
    return stats.bernoulli.logpmf(x.numpy(), d.mean.numpy()).sum(-1)


def scipy_normal(d: Any, x: Tensor) -> Any:
    return stats.norm.logpdf(x.numpy(), d.mean.numpy(), d.stddev.numpy()).sum(-1)


def scipy_categorical(d: Any, x: Tensor) -> Any:
    p = np.broadcast_to(d.probs.numpy(), x.shape).reshape(-1, x.shape[-1])
    rows = [stats.multinomial.logpmf(a, 1, b) for a, b in zip(x.numpy().reshape(p.shape), p, strict=True)]
    return np.reshape(rows, x.shape[:-1])


def scipy_standard_normal(d: Any, x: Tensor) -> Any:
    return stats.norm.logpdf(x.numpy()).sum(-1)


def scipy_box(d: Any, x: Tensor) -> Any:
    return stats.uniform.logpdf(x.numpy(), -1.5, 3.5).sum(-1)


CONDITIONALS: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], Any]]] = {
    "bernoulli": (lambda: BernoulliNet((4, 3), 2, hidden=(5,)), scipy_bernoulli),
    "normal": (lambda: NormalNet((4, 3), 2, hidden=(5,)), scipy_normal),
    "normal, fixed scale": (lambda: NormalNet((4, 3), 2, scale=0.3, hidden=(5,)), scipy_normal),
    "categorical": (lambda: CategoricalNet((4, 3), 2, hidden=(5,)), scipy_categorical),
    "standard normal": (lambda: StandardNormal(2), scipy_standard_normal),
    "box": (lambda: UniformBox(2, -1.5, 2.0), scipy_box),
}


@torch.no_grad()
def made(name: str) -> Any:
    return random_weights(CONDITIONALS[name][0]())


@pytest.mark.parametrize("name", CONDITIONALS)
def test_density_is_scipys(name: str) -> None:
    """log p of draws, summed over one event dimension, for batch shapes (N,), (K, N) and (K, S, N)."""
    net = made(name)
    for x, y in (((N, 4), (N, 3)), ((N, 4), (K, 1, 3)), ((S, N, 4), (K, 1, 1, 3))):
        with torch.no_grad():
            d = net(torch.randn(x), torch.randn(y))
            value = d.sample((2,))
            assert d.event_shape == (2,)
            if "standard" not in name and name != "box":
                assert d.batch_shape == torch.broadcast_shapes(x[:-1], y[:-1])
            assert close_arrays(d.log_prob(value), CONDITIONALS[name][1](d, value), 1e-10)


@pytest.mark.parametrize("name", [*CONDITIONALS, "bounded normal"])
def test_draws_have_the_moments_of_the_distribution(name: str) -> None:
    """Mean and variance of 20 000 draws within 5 standard errors (the mean by symmetry where there is no formula)."""
    if name == "bounded normal":
        d = BoundedNormalNet((4,), 2, -1.0, 3.0, hidden=())(torch.zeros(1, 4))  # biases start at zero
        draws, mean, variance = d.sample((20_000,))[:, 0].detach(), torch.ones(2), None
    else:
        d = made(name)(torch.randn(1, 4), torch.randn(1, 3))
        draws = d.expand((1,)).sample((20_000,))[:, 0].detach()
        mean, variance = d.mean.reshape(-1).detach(), d.variance.reshape(-1).detach()
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - mean).abs() <= SIGMAS * error).all()
    if variance is not None:
        squares = (draws - mean) ** 2
        assert ((squares.mean(0) - variance).abs() <= SIGMAS * squares.std(0) / len(draws) ** 0.5 + ROUNDING).all()


@pytest.mark.parametrize("name", ["normal", "normal, fixed scale", "bounded normal"])
def test_draws_are_reparametrised(name: str) -> None:
    """A draw carries the gradient of its parameters: the bound needs it."""
    net = BoundedNormalNet((4, 3), 2, -1.0, 1.0) if name == "bounded normal" else made(name)
    net(torch.randn(N, 4), torch.randn(N, 3)).rsample().sum().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in net.parameters())


@pytest.mark.parametrize(
    ("build", "parameter"),
    [
        (lambda: BernoulliNet((3,), 2, hidden=()), lambda d: torch.logit(d.mean)),
        (lambda: NormalNet((3,), 2, hidden=()), lambda d: d.mean),
        (lambda: NormalNet((3,), 2, hidden=()), lambda d: (d.stddev - MIN_SCALE).log()),
        (lambda: CategoricalNet((3,), 3, hidden=()), lambda d: d.probs.log() - d.probs.log()[..., :1]),
        (lambda: BoundedNormalNet((3,), 2, -1.0, 3.0, hidden=()), lambda d: torch.logit((central_value(d) + 1) / 4)),
    ],
    ids=["logits", "mean", "log scale", "log odds", "mean in the box"],
)
def test_heads_are_linear_in_the_last_hidden_layer(build: Callable[[], Any], parameter: Callable[[Any], Any]) -> None:
    """Without a hidden layer the natural parameter is affine in the condition: f(a + b) + f(0) = f(a) + f(b)."""
    net, a, b = random_weights(build()), torch.randn(N, 3), torch.randn(N, 3)
    with torch.no_grad():
        f = {name: parameter(net(c)) for name, c in {"a": a, "b": b, "0": 0 * a, "a+b": a + b}.items()}
    assert close_arrays(f["a+b"] + f["0"], f["a"] + f["b"], 1e-9)
    assert (f["a"] - f["0"]).abs().max() > 1e-3


def test_fixed_scale() -> None:
    """`scale` fixes σ everywhere, and leaves no weights for it."""
    d = NormalNet((4,), 2, scale=0.3, hidden=(5,))(torch.randn(N, 4))
    assert close_arrays(d.stddev, 0.3 * torch.ones(N, 2))
    count = [sum(p.numel() for p in NormalNet((4,), 2, hidden=(5,), **s).parameters()) for s in ({}, {"scale": 0.3})]
    assert count[0] - count[1] == 5 * 2 + 2


@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)], ids=str)
@pytest.mark.parametrize("likelihood", [False, True])
def test_scales_start_at_one(hidden: tuple[int, ...], likelihood: bool) -> None:
    """σ = 1 + MIN_SCALE for any condition, however large; the means differ, and log σ learns from the first step."""
    net = likelihood_net("normal", (4, 3), 2, hidden=hidden) if likelihood else NormalNet((4, 3), 2, hidden=hidden)
    conditions = 100 * torch.randn(N, 4), torch.randn(N, 3)
    d = net(*conditions)
    assert torch.equal(d.stddev.detach(), torch.full((N, 2), 1 + MIN_SCALE))
    assert (d.mean.std(0) > 1e-3).all()
    (-d.log_prob(torch.zeros(N, 2))).mean().backward()
    mean, scale = net.mlp.last.weight.grad.split(2)
    assert (mean.abs().sum(1) > 0).all()
    assert (scale.abs().sum(1) > 0).all()
    torch.optim.SGD(net.parameters(), lr=1e-8).step()
    assert net(*conditions).stddev.std(0).min() > 0


@pytest.mark.parametrize("name", PAPERS)
def test_every_gaussian_of_every_paper_starts_with_scales_of_one(name: str) -> None:
    """Where σ is learnt: no paper's networks go round the start that keeps two-layer models alive."""
    objective = PAPERS[name].build(5, 3, z_dim=2, hidden=(4,))
    nets = [net for net in objective.modules() if isinstance(net, NormalNet) and net.scale is None]
    assert nets
    for net in nets:
        dim = net.mlp.last.weight.shape[0] // 2
        assert not net.mlp.last.weight[dim:].any()
        assert not net.mlp.last.bias.any()
        assert net.mlp.last.weight[:dim].all()


def test_parameter_free_conditionals_ignore_conditions() -> None:
    """StandardNormal and UniformBox are the same for any conditions, and for none; they move with `.double()`."""
    for build in (lambda: StandardNormal(2), lambda: UniformBox(2, 0.0, 1.0)):
        z = torch.full((N, 2), 0.4)
        assert torch.equal(build()().log_prob(z), build()(torch.randn(N, 9), torch.randn(3)).log_prob(z))
        assert build().float()().sample().dtype == torch.float32
        assert build().double()().sample().dtype == torch.float64


# GreyBernoulli


@pytest.mark.parametrize("D", [1, 2, 3, 4])
def test_grey_density_is_the_mean_over_binarisations(D: int) -> None:
    """log p(x) of grey x = Σ_b Bern(b; x) log Bern(b; μ), over all 2^D binary images b."""
    x, net = torch.rand(N, D), random_weights(BernoulliNet((3,), D, hidden=()))
    with torch.no_grad():
        d = net(torch.randn(N, 3))
    mu, expected = d.mean, torch.zeros(N)
    for b in itertools.product((0.0, 1.0), repeat=D):
        b = torch.tensor(b)
        weight = torch.where(b == 1, x, 1 - x).prod(-1)
        expected += weight * torch.where(b == 1, mu, 1 - mu).log().sum(-1)
    assert close_arrays(d.log_prob(x), expected, 1e-10)


def test_grey_density_comes_from_logits() -> None:
    """Sure and wrong by 200 nats a pixel stays a number; and probs and logits are the same distribution."""
    d = GreyBernoulli(logits=torch.tensor([200.0, -200.0])).to_event(1)
    assert close_arrays(d.log_prob(torch.tensor([0.0, 1.0])), -400.0)
    assert close_arrays(d.log_prob(torch.tensor([0.5, 1.0])), -300.0)
    p, x = torch.tensor([0.3, 0.9]), torch.tensor([0.2, 1.0])
    assert close_arrays(GreyBernoulli(probs=p).log_prob(x), GreyBernoulli(logits=torch.logit(p)).log_prob(x))


def test_grey_draws_are_binary_and_expand() -> None:
    """Draws are images of zeros and ones; `expand` keeps the density for grey values."""
    d = GreyBernoulli(probs=torch.tensor([0.3, 0.9]))
    assert set(d.sample((50,)).unique().tolist()) == {0.0, 1.0}
    x = torch.rand(4, 2)
    assert torch.equal(d.expand((4, 2)).log_prob(x), d.log_prob(x))
    assert type(d.expand((4, 2))) is GreyBernoulli


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0])
def test_grey_values_outside_the_range_are_errors(value: float) -> None:
    """255 for 1 is the usual slip: the message names the range."""
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        BernoulliNet((3,), 2)(torch.zeros(N, 3)).log_prob(torch.full((N, 2), value))


# BoundedNormalNet


def test_bounded_density_integrates_to_one() -> None:
    """The density over (low, high), by quadrature on a grid that is fine at the steep ends."""
    low, high = -1.5, 2.0
    net = random_weights(BoundedNormalNet((3,), 1, low, high, hidden=()))
    with torch.no_grad():
        d = net(0.5 * torch.randn(1, 3))
        t = torch.linspace(-20, 20, 40_001)
        z = low + (high - low) * torch.sigmoid(t)
        density = d.log_prob(z[:, None]).exp()
    assert float(torch.trapezoid(density, z)) == pytest.approx(1, abs=1e-6)


def test_bounded_density_is_the_change_of_variables() -> None:
    """log q(z) = log N(z̃; μ, σ²) − Σ_i [log(b − a) + log σ(z̃_i) + log σ(−z̃_i)]: eqs. (14)-(16), corrected."""
    low, high = -1.5, 2.0
    net = random_weights(BoundedNormalNet((3,), 4, low, high, hidden=(5,)))
    with torch.no_grad():
        d = net(torch.randn(N, 3))
        normal = d.base_dist.base_dist
        t = 2 * torch.randn(N, 4)
        z = low + (high - low) * torch.sigmoid(t)
        jacobian = math.log(high - low) + nn.functional.logsigmoid(t) + nn.functional.logsigmoid(-t)
        log_normal = stats.norm.logpdf(t.numpy(), normal.mean.numpy(), normal.stddev.numpy()).sum(-1)
        assert close_arrays(d.log_prob(z), log_normal - jacobian.sum(-1).numpy(), 1e-8)
        printed = (
            math.log(high - low) + torch.sigmoid(1 - torch.sigmoid(t)).log() + torch.sigmoid(torch.sigmoid(t)).log()
        )
        assert (jacobian - printed).abs().max() > 0.1  # the formula as it stands in the paper
        assert d.event_shape == (4,)


@pytest.mark.parametrize("centre", [-60.0, 0.0, 20.0, 60.0])
def test_bounded_draws_stay_in_the_box(centre: float) -> None:
    """float32 draws far out in the sigmoid: inside the box, scored by change of variables and by the prior."""
    net = BoundedNormalNet((1,), 2, -1.5, 1.5, hidden=()).float()
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(next(p for p in net.parameters() if p.ndim == 1)[:2], centre)
    d = net(torch.ones(500, 1, dtype=torch.float32))
    torch.manual_seed(1)
    z = d.sample()
    torch.manual_seed(1)
    unbounded = d.base_dist.base_dist.sample().double()
    assert ((z >= -1.5) & (z <= 1.5)).all()
    prior = UniformBox(2, -1.5, 1.5).float()().log_prob(z)
    assert close_arrays(prior, torch.full_like(prior, -2 * math.log(3)), 1e-5)
    jacobian = math.log(3) + nn.functional.logsigmoid(unbounded) + nn.functional.logsigmoid(-unbounded)
    exact = torch.distributions.Normal(centre, 1 + MIN_SCALE).log_prob(unbounded) - jacobian
    assert (d.log_prob(z) - exact.sum(-1)).abs().max() < 1e-4


# Conditionals made of others


def test_of_first_reads_the_first_coordinates_alone() -> None:
    """p(y | z) = net(z_1, …, z_dim): the same whatever the others are, for any batch shape."""
    net = CategoricalNet((3,), 4, hidden=(5,))
    conditional = OfFirst(net, 3)
    for shape in ((N,), (K, N), (K, S, N)):
        z = torch.randn(*shape, 5)
        assert torch.equal(conditional(z).logits, net(z[..., :3]).logits)
        other = torch.cat([z[..., :3], torch.full((*shape, 2), math.nan)], -1)
        assert torch.equal(conditional(other).logits, conditional(z).logits)
        assert conditional(z).batch_shape == shape
    z = torch.randn(N, 5, requires_grad=True)
    conditional(z).logits[:, 0].sum().backward()
    assert (z.grad[:, :3] != 0).any()
    assert not z.grad[:, 3:].any()
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 3\), got shape \(6, 2\)"):
        conditional(torch.randn(N, 2))


def test_with_features_reads_the_features_and_x() -> None:
    """p(y | f(x), x), f first; f learns through it."""
    features, net = random_weights(MLP((4,), 2, hidden=(5,))), random_weights(CategoricalNet((2, 4), 3, hidden=(5,)))
    conditional, x = WithFeatures(features, net), torch.randn(K, N, 4)
    found = conditional(x)
    assert found.batch_shape == (K, N)
    assert torch.equal(found.logits, net(features(x), x).logits)
    with torch.no_grad():
        features.last.bias += 1
    assert not torch.equal(conditional(x).logits, found.logits)
    conditional(x).logits[..., 0].sum().backward()
    assert all((p.grad != 0).any() for p in conditional.parameters())


U, V = 2, 3


def block_net() -> BlockNormalNet:
    """q([u, v] | x, y), u of two coordinates and v of three, with σ far from 1."""
    net = BlockNormalNet((4, None, 3), (U, V), hidden=(5,))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


def two_gaussians(net: BlockNormalNet, z: Tensor, *conditions: Tensor) -> Tensor:
    """log N(u; μ(c), σ²(c)) + log N(v; μ(u, c), σ²(u, c)), by their formula."""
    total = torch.zeros(())
    u, v = z[..., :U], z[..., U:]
    for part, value, given in ((net.first, u, conditions), (net.second, v, (u, *conditions))):
        loc, log_scale = part.mlp(*given).chunk(2, -1)
        scale = log_scale.exp() + MIN_SCALE
        total = total + (-(((value - loc) / scale) ** 2) / 2 - scale.log() - math.log(2 * math.pi) / 2).sum(-1)
    return total


@pytest.mark.parametrize("shapes", [((N,), (N,)), ((N,), (K, 1)), ((S, N), (K, 1, 1))], ids=str)
def test_blocks_are_two_gaussians(shapes: tuple[tuple[int, ...], ...]) -> None:
    """log q(u | c) + log q(v | u, c), for values of any sample shape, with the gradients of both networks."""
    net, c = block_net(), (torch.randn(*shapes[0], 4), None, torch.randn(*shapes[1], 3))
    d, batch_shape = net(*c), torch.broadcast_shapes(*shapes)
    assert (d.batch_shape, d.event_shape, d.event_dim) == (batch_shape, (U + V,), 1)
    for value in (torch.randn(*batch_shape, U + V), torch.randn(7, *batch_shape, U + V)):
        found, expected = net(*c).log_prob(value), two_gaussians(net, value, *c)
        assert found.shape == value.shape[:-1]
        assert close_arrays(found.detach(), expected.detach())
        mine, theirs = (torch.autograd.grad(each.sum(), list(net.parameters())) for each in (found, expected))
        assert all(close_arrays(a, b, 1e-10) for a, b in zip(mine, theirs, strict=True))
        swapped = torch.cat([value[..., V:], value[..., :V]], -1)
        assert not close_arrays(d.log_prob(swapped).detach(), expected.detach())


def test_blocks_integrate_to_one() -> None:
    """∫∫ q(u) q(v | u) du dv = 1 on a grid, though v's mean and scale follow u; and E v of it is the draws' mean."""
    net = BlockNormalNet((4,), (1, 1), hidden=(5,))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    line = torch.linspace(-15, 15, 1501)
    with torch.no_grad():
        d = net(torch.randn(4))
        density = d.log_prob(torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)).exp()
        draws = d.sample((20_000,))
    step = float(line[1] - line[0])
    assert float(density.sum()) * step**2 == pytest.approx(1, abs=1e-8)
    assert (density.sum(1) * step).max() < 1.5
    mean = torch.stack([(density.sum(1) * line).sum(), (density.sum(0) * line).sum()]) * step**2
    assert ((draws.mean(0) - mean).abs() < SIGMAS * draws.std(0) / len(draws) ** 0.5).all()
    both = (density * line[:, None] * line).sum() * step**2 - mean.prod()
    products = (draws - mean).prod(-1)
    assert abs(products.mean() - both) < SIGMAS * products.std() / len(draws) ** 0.5
    assert abs(both) > 10 * products.std() / len(draws) ** 0.5  # u and v are not independent


def test_draws_of_blocks() -> None:
    """Shapes; the same seed gives the same draw with and without gradients; a gradient for every parameter of both."""
    net, c = block_net(), (torch.randn(N, 4), None, torch.randn(K, 1, 3))
    d = net(*c)
    for sample_shape in ((), (S,), (S, 2)):
        assert d.rsample(sample_shape).shape == (*sample_shape, K, N, U + V)
        assert d.log_prob(d.sample(sample_shape)).shape == (*sample_shape, K, N)
    torch.manual_seed(3)
    drawn = d.sample((S,))
    assert not drawn.requires_grad
    torch.manual_seed(3)
    again = d.rsample((S,))
    assert torch.equal(drawn, again)
    assert (drawn[0] != drawn[1]).all()
    again[..., U:].sum().backward()  # v alone: u reaches it through q(v | u)
    assert all((p.grad != 0).any() for p in net.parameters())


def test_expanded_blocks() -> None:
    """`expand` keeps the density, draws every row anew, and stays a `Blocks`."""
    net = block_net()
    c = (torch.randn(1, 4), None, torch.randn(1, 3))
    d = net(*c)
    for shape in ((5,), (S, 5)):
        wide = d.expand(shape)
        assert type(wide) is Blocks
        assert (wide.batch_shape, wide.event_shape) == (shape, (U + V,))
        value = torch.randn(*shape, U + V)
        assert close_arrays(wide.log_prob(value).detach(), two_gaussians(net, value, *c).detach())
        draws = wide.rsample().detach().flatten(0, -2)
        assert len(draws.unique(dim=0)) == len(draws)
        assert close_arrays(wide.mean.detach(), d.mean.detach().expand(*shape, U + V))


def test_the_mean_of_blocks_is_that_of_v_at_the_mean_of_u() -> None:
    """What `encode` gives: (μ(c), μ(μ(c), c)), also for blocks that have no mean in closed form."""
    net, c = block_net(), (torch.randn(N, 4), None, torch.randn(N, 3))
    u = net.first(*c).mean
    assert torch.equal(net(*c).mean, torch.cat([u, net.second(u, *c).mean], -1))
    assert torch.equal(central_value(net(*c)), net(*c).mean)
    first, second = (BoundedNormalNet((width,), dim, 0.0, 4.0, hidden=()) for width, dim in ((4, U), (U, V)))
    boxed = Blocks(first(torch.zeros(N, 4)), second, V)  # biases start at zero: 2 is in the middle of the box
    middle = torch.full((N, U), 2.0)
    assert close_arrays(boxed.mean.detach(), torch.cat([middle, central_value(second(middle)).detach()], -1))


# Helpers


def averaged_in_probabilities(logits: Tensor) -> Tensor:
    """log of the mean probability, in Python's own numbers."""
    return torch.softmax(logits, -1).mean(0).log()


@pytest.mark.parametrize("draws", [1, 2, 50])
def test_averaged_is_the_log_of_the_mean_probability(draws: int) -> None:
    """(S, N) to (N,); one draw is itself; the mean of the logits is something else."""
    logits = 3 * torch.randn(draws, N, 4)
    found = averaged(torch.distributions.OneHotCategorical(logits=logits))
    assert found.batch_shape == (N,)
    assert close_arrays(found.logits, averaged_in_probabilities(logits))
    assert close_arrays(found.probs.sum(-1), torch.ones(N))
    assert close_arrays(found.logits, torch.log_softmax(logits.log_softmax(-1).mean(0), -1)) == (draws == 1)


def test_averaged_of_extreme_logits() -> None:
    """Probabilities of e^-1000 are averaged too: log(½(e^-1000 + e^-2000)) = -1000 - log 2, with finite gradients."""
    logits = torch.tensor([[[0.0, -1000.0, -1e4]], [[0.0, -2000.0, -1e5]]], requires_grad=True)
    found = averaged(torch.distributions.OneHotCategorical(logits=logits))
    assert close_arrays(found.logits.detach(), [[0.0, -1000 - math.log(2), -1e4 - math.log(2)]])
    found.log_prob(torch.tensor([[0.0, 0.0, 1.0]])).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 0, 2] != 0
    sure = torch.tensor([[[1e4, 0.0]], [[0.0, 1e4]]])  # two draws that contradict each other
    assert close_arrays(averaged(torch.distributions.OneHotCategorical(logits=sure)).probs, [[0.5, 0.5]])


def test_central_value() -> None:
    """The mean, or the image of the base's mean."""
    assert torch.equal(central_value(StandardNormal(3)()), torch.zeros(3))
    p = torch.tensor([0.2, 0.7])
    assert torch.equal(central_value(GreyBernoulli(probs=p).to_event(1)), p)
    d = BoundedNormalNet((4,), 2, 1.0, 5.0, hidden=())(torch.zeros(1, 4))
    assert close_arrays(central_value(d).detach(), 3 * torch.ones(1, 2))


def test_most_probable() -> None:
    """The largest probability, one-hot."""
    d = torch.distributions.OneHotCategorical(torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]))
    assert torch.equal(most_probable(d), torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))


def test_class_probabilities() -> None:
    """None is uniform; a list and a tensor are kept as they are, in float64 too."""
    assert close_arrays(class_probabilities(None, 4), torch.full((4,), 0.25))
    assert close_arrays(class_probabilities([0.2, 0.5, 0.3], 3), [0.2, 0.5, 0.3], 1e-15)
    assert torch.equal(class_probabilities(torch.tensor([0.1, 0.9]), 2), torch.tensor([0.1, 0.9]))
    for wrong in ([0.5, 0.6], [1.5, -0.5], [0.2, 0.3, 0.5], [[0.5, 0.5]], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="prob"):
            class_probabilities(wrong, 2)


def test_likelihoods_by_name() -> None:
    """Names are networks of that distribution, a callable is used as it is, another name is an error."""
    assert isinstance(likelihood_net("bernoulli", (3,), 2), BernoulliNet)
    normal = likelihood_net("normal", (3,), 2, scale=0.5, hidden=(4,))
    assert close_arrays(normal(torch.zeros(N, 3)).stddev, torch.full((N, 2), 0.5))
    assert isinstance(likelihood_net(CategoricalNet, (3,), 2), CategoricalNet)
    assert set(LIKELIHOODS) >= {"bernoulli", "normal"}
    with pytest.raises(ValueError, match="bernoulli"):
        likelihood_net("poisson", (3,), 2)
