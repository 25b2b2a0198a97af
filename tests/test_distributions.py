"""The networks are the maps they claim to be, and each conditional's density and draws are its distribution's."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import OneHotCategorical
from scipy import stats
from semipyro.distributions import (
    ACTIVATIONS,
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
from semipyro.distributions.mlp import BatchNorm, SumLinear
from semipyro.distributions.parts import Blocks
from semipyro.inference.relaxation import RelaxLabels, StraightThrough, StraightThroughBernoulli, smoothed
from semipyro.papers import PAPERS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

ROUNDING = 1e-12
SIGMAS = 5
N, K, S = 6, 3, 2


pytestmark = pytest.mark.usefixtures("float64")


def close(a: Any, b: Any, tolerance: float = ROUNDING) -> bool:
    return bool(np.allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance))


# MLP

SHAPES = {
    "N": [(N,), (N,)],
    "K N": [(N,), (K, 1)],
    "S N": [(S, N), (N,)],
    "K S N": [(S, N), (K, 1, 1)],
    "one row": [(N,), ()],
    "three inputs": [(N,), (K, 1, 1), (S, N)],
}


def random_weights(net: nn.Module) -> Any:
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net


def reference(net: MLP, layers: list[nn.Module]) -> nn.Sequential:
    """The same weights in plain torch, in their order."""
    plain = nn.Sequential(*layers)
    plain.load_state_dict(dict(zip(plain.state_dict(), net.state_dict().values(), strict=True)))
    return plain


def concatenated(inputs: list[Tensor]) -> Tensor:
    shape = torch.broadcast_shapes(*(x.shape[:-1] for x in inputs))
    return torch.cat([x.expand(*shape, -1) for x in inputs], -1)


@pytest.mark.parametrize("hidden", [(), (7,), (7, 6)], ids=str)
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_mlp_is_an_mlp_of_the_concatenation(shapes: list[tuple[int, ...]], hidden: tuple[int, ...]) -> None:
    """One linear map per input equals one of the concatenation: values, and gradients of weights and inputs."""
    widths = [4, 3, 2][: len(shapes)]
    net = random_weights(MLP(widths, 5, hidden=hidden))
    sizes = [sum(widths), *hidden, 5]
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.Softplus())][:-1]
    plain = reference(net, layers)
    inputs = [torch.randn(*shape, width, requires_grad=True) for shape, width in zip(shapes, widths, strict=True)]
    mine, theirs = net(*inputs), plain(concatenated(inputs))
    assert mine.shape == theirs.shape
    assert close(mine.detach(), theirs.detach())
    cotangent = torch.randn_like(mine)
    g_mine = torch.autograd.grad(mine, [*net.parameters(), *inputs], cotangent)
    g_theirs = torch.autograd.grad(theirs, [*plain.parameters(), *inputs], cotangent)
    assert all(close(a, b, 1e-11) for a, b in zip(g_mine, g_theirs, strict=True))


def test_an_input_of_width_none_is_not_read() -> None:
    """Whatever is given there, nothing too, the output is that of the network without it."""
    net, x, y = MLP((4, None, 3), 2, hidden=(5,)), torch.randn(N, 4), torch.randn(K, 1, 3)
    without = MLP((4, 3), 2, hidden=(5,))
    without.load_state_dict(net.state_dict())
    expected = without(x, y)
    for anything in (None, torch.randn(N, 9), torch.full((S, 1, 1, 2), math.nan)):
        assert torch.equal(net(x, anything, y), expected)


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_batch_norm_is_over_all_leading_dimensions(shapes: list[tuple[int, ...]]) -> None:
    """Training: the statistics of all rows, whatever their shape; evaluation: the running statistics."""
    widths = [4, 3, 2][: len(shapes)]
    net = random_weights(MLP(widths, 5, hidden=(7,), batch_norm=True))
    plain = reference(net, [nn.Linear(sum(widths), 7), nn.BatchNorm1d(7), nn.Softplus(), nn.Linear(7, 5)])
    inputs = [torch.randn(*shape, width) for shape, width in zip(shapes, widths, strict=True)]
    rows = concatenated(inputs)
    for training in (True, True, False):
        net.train(training), plain.train(training)
        expected = plain(rows.reshape(-1, rows.shape[-1])).reshape(*rows.shape[:-1], 5)
        assert close(net(*inputs).detach(), expected.detach(), 1e-11)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_named_activations(activation: str) -> None:
    """A name is the torch function of that name; a callable that makes the module does the same."""
    net = MLP((4,), 2, hidden=(5,), activation=activation)
    made = MLP((4,), 2, hidden=(5,), activation=lambda: next(m for m in net.rest if not list(m.parameters())))
    made.load_state_dict(net.state_dict())
    x = torch.randn(N, 4)
    function = getattr(torch.nn.functional, activation, None) or getattr(torch, activation)
    weight, bias, out_weight, out_bias = net.state_dict().values()
    expected = function(x @ weight.T + bias) @ out_weight.T + out_bias
    assert close(net(x).detach(), expected)
    assert torch.equal(made(x), net(x))


def test_batch_norm_by_the_statistics_of_other_rows() -> None:
    """weight (x − m) / √(v + ε) + bias with m and v of other rows, and its gradient, also for those rows."""
    layer = BatchNorm(4)
    nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    x, others = torch.randn(6, 3, 4, requires_grad=True), (5 + 2 * torch.randn(9, 4)).requires_grad_()
    learnt, weights = (x, others, layer.weight, layer.bias), torch.randn(6, 3, 4)

    def gradients(output: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((weights * output).sum(), learnt, allow_unused=True)

    mean, variance = others.mean(0), others.var(0, correction=0)
    expected = layer.weight * (x - mean) / (variance + layer.eps).sqrt() + layer.bias
    layer.given = layer.statistics(others)
    assert close(layer(x).detach(), expected.detach())
    for found, by_hand in zip(gradients(layer(x)), gradients(expected), strict=True):
        assert close(found, by_hand)
    layer.given = mean.detach(), variance.detach()
    assert close(layer(x).detach(), expected.detach())
    assert gradients(layer(x))[1] is None
    layer.given = None
    assert not close(layer(x).detach(), expected.detach())


def test_batch_norm_of_a_single_row() -> None:
    """One row has no variance: in training, too, it is normalised by the running statistics, which it leaves alone."""
    net = MLP((3,), 2, hidden=(4,), batch_norm=True)
    net(5 + torch.randn(50, 3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    row = torch.randn(1, 3)
    assert close(net(row).detach(), net.eval()(row).detach())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not close(net.train()(row.repeat(2, 1) + torch.eye(2, 3))[:1].detach(), net.eval()(row).detach())


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("hidden", [(), (7,), (7, 6)], ids=str)
def test_the_last_layer_is_the_output(hidden: tuple[int, ...], batch_norm: bool) -> None:
    """`last` is the layer whose bias moves the output by as much, whatever stands before it."""
    net, x = random_weights(MLP((4, 3), 5, hidden=hidden, batch_norm=batch_norm)).eval(), (torch.randn(N, 4), None)
    x = (x[0], torch.randn(N, 3))
    before, shift = net(*x), torch.arange(5.0)
    assert isinstance(net.last, SumLinear)
    assert (net.last is net.first) == (hidden == ())
    assert net.last.weight.shape == (5, hidden[-1] if hidden else 7)
    net.last.bias.data += shift
    assert close((net(*x) - before).detach(), shift.expand(N, 5))


def flops(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_the_first_layer_does_not_expand() -> None:
    """x (N, D) beside K labels costs one product of x, not K: counted in floating-point operations."""
    D, H, out = 50, 8, 4
    net, x, y = MLP((D, K), out, hidden=(H,)), torch.randn(N, D), torch.eye(K)[:, None]
    products = N * D * H + K * K * H + K * N * H * out
    assert flops(lambda: net(x, y)) == 2 * products
    assert flops(lambda: net(x.expand(K, N, D), y)) > 2 * products  # the counter sees an expansion


def test_an_unlabelled_bound_reads_x_once_per_network() -> None:
    """The same of M2's whole bound: q(y | x) and q(z | x, y) multiply x once each, p(x | y, z) each z of K classes."""
    D, H, L = 50, 8, 2
    objective = PAPERS["m2"].build(D, K, z_dim=L, hidden=(H,))
    q_y = N * D * H + N * H * K
    q_z = N * D * H + K * K * H + K * N * H * 2 * L
    p_x = K * K * H + K * N * L * H + K * N * H * D
    assert flops(lambda: objective(None, None, torch.ones(N, D))) <= 2 * (q_y + q_z + p_x)


@pytest.mark.parametrize("shapes", [[(N, 5), (N, 3)], [(N, 4), (N, 4)], [(N, 3), (N, 4)]], ids=str)
def test_wrong_widths_are_errors(shapes: list[tuple[int, ...]]) -> None:
    """Another width, or the inputs in another order."""
    with pytest.raises(ValueError, match=r"must have shape \(\.\.\., \d\)"):
        MLP((4, 3), 2)(*(torch.zeros(shape) for shape in shapes))


def test_autocast_computes_in_another_type_and_returns_its_own() -> None:
    """bfloat16 inside: the output is float32 again and near the float32 output."""
    net, x = MLP((4, 3), 2, hidden=(16,)).float(), (torch.randn(N, 4).float(), torch.randn(K, 1, 3).float())
    exact = net(*x)
    net.autocast_dtype = torch.bfloat16
    rough = net(*x)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


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
            assert close(d.log_prob(value), CONDITIONALS[name][1](d, value), 1e-10)


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
    assert close(f["a+b"] + f["0"], f["a"] + f["b"], 1e-9)
    assert (f["a"] - f["0"]).abs().max() > 1e-3


def test_fixed_scale() -> None:
    """`scale` fixes σ everywhere, and leaves no weights for it."""
    d = NormalNet((4,), 2, scale=0.3, hidden=(5,))(torch.randn(N, 4))
    assert close(d.stddev, 0.3 * torch.ones(N, 2))
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
    assert close(d.log_prob(x), expected, 1e-10)


def test_grey_density_comes_from_logits() -> None:
    """Sure and wrong by 200 nats a pixel stays a number; and probs and logits are the same distribution."""
    d = GreyBernoulli(logits=torch.tensor([200.0, -200.0])).to_event(1)
    assert close(d.log_prob(torch.tensor([0.0, 1.0])), -400.0)
    assert close(d.log_prob(torch.tensor([0.5, 1.0])), -300.0)
    p, x = torch.tensor([0.3, 0.9]), torch.tensor([0.2, 1.0])
    assert close(GreyBernoulli(probs=p).log_prob(x), GreyBernoulli(logits=torch.logit(p)).log_prob(x))


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
        assert close(d.log_prob(z), log_normal - jacobian.sum(-1).numpy(), 1e-8)
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
    assert close(prior, torch.full_like(prior, -2 * math.log(3)), 1e-5)
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
        assert close(found.detach(), expected.detach())
        mine, theirs = (torch.autograd.grad(each.sum(), list(net.parameters())) for each in (found, expected))
        assert all(close(a, b, 1e-10) for a, b in zip(mine, theirs, strict=True))
        swapped = torch.cat([value[..., V:], value[..., :V]], -1)
        assert not close(d.log_prob(swapped).detach(), expected.detach())


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
        assert close(wide.log_prob(value).detach(), two_gaussians(net, value, *c).detach())
        draws = wide.rsample().detach().flatten(0, -2)
        assert len(draws.unique(dim=0)) == len(draws)
        assert close(wide.mean.detach(), d.mean.detach().expand(*shape, U + V))


def test_the_mean_of_blocks_is_that_of_v_at_the_mean_of_u() -> None:
    """What `encode` gives: (μ(c), μ(μ(c), c)), also for blocks that have no mean in closed form."""
    net, c = block_net(), (torch.randn(N, 4), None, torch.randn(N, 3))
    u = net.first(*c).mean
    assert torch.equal(net(*c).mean, torch.cat([u, net.second(u, *c).mean], -1))
    assert torch.equal(central_value(net(*c)), net(*c).mean)
    first, second = (BoundedNormalNet((width,), dim, 0.0, 4.0, hidden=()) for width, dim in ((4, U), (U, V)))
    boxed = Blocks(first(torch.zeros(N, 4)), second, V)  # biases start at zero: 2 is in the middle of the box
    middle = torch.full((N, U), 2.0)
    assert close(boxed.mean.detach(), torch.cat([middle, central_value(second(middle)).detach()], -1))


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
    assert close(found.logits, averaged_in_probabilities(logits))
    assert close(found.probs.sum(-1), torch.ones(N))
    assert close(found.logits, torch.log_softmax(logits.log_softmax(-1).mean(0), -1)) == (draws == 1)


def test_averaged_of_extreme_logits() -> None:
    """Probabilities of e^-1000 are averaged too: log(½(e^-1000 + e^-2000)) = -1000 - log 2, with finite gradients."""
    logits = torch.tensor([[[0.0, -1000.0, -1e4]], [[0.0, -2000.0, -1e5]]], requires_grad=True)
    found = averaged(torch.distributions.OneHotCategorical(logits=logits))
    assert close(found.logits.detach(), [[0.0, -1000 - math.log(2), -1e4 - math.log(2)]])
    found.log_prob(torch.tensor([[0.0, 0.0, 1.0]])).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 0, 2] != 0
    sure = torch.tensor([[[1e4, 0.0]], [[0.0, 1e4]]])  # two draws that contradict each other
    assert close(averaged(torch.distributions.OneHotCategorical(logits=sure)).probs, [[0.5, 0.5]])


def test_central_value() -> None:
    """The mean, or the image of the base's mean."""
    assert torch.equal(central_value(StandardNormal(3)()), torch.zeros(3))
    p = torch.tensor([0.2, 0.7])
    assert torch.equal(central_value(GreyBernoulli(probs=p).to_event(1)), p)
    d = BoundedNormalNet((4,), 2, 1.0, 5.0, hidden=())(torch.zeros(1, 4))
    assert close(central_value(d).detach(), 3 * torch.ones(1, 2))


def test_most_probable() -> None:
    """The largest probability, one-hot."""
    d = torch.distributions.OneHotCategorical(torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]))
    assert torch.equal(most_probable(d), torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))


def test_class_probabilities() -> None:
    """None is uniform; a list and a tensor are kept as they are, in float64 too."""
    assert close(class_probabilities(None, 4), torch.full((4,), 0.25))
    assert close(class_probabilities([0.2, 0.5, 0.3], 3), [0.2, 0.5, 0.3], 1e-15)
    assert torch.equal(class_probabilities(torch.tensor([0.1, 0.9]), 2), torch.tensor([0.1, 0.9]))
    for wrong in ([0.5, 0.6], [1.5, -0.5], [0.2, 0.3, 0.5], [[0.5, 0.5]], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="prob"):
            class_probabilities(wrong, 2)


def test_likelihoods_by_name() -> None:
    """Names are networks of that distribution, a callable is used as it is, another name is an error."""
    assert isinstance(likelihood_net("bernoulli", (3,), 2), BernoulliNet)
    normal = likelihood_net("normal", (3,), 2, scale=0.5, hidden=(4,))
    assert close(normal(torch.zeros(N, 3)).stddev, torch.full((N, 2), 0.5))
    assert isinstance(likelihood_net(CategoricalNet, (3,), 2), CategoricalNet)
    assert set(LIKELIHOODS) >= {"bernoulli", "normal"}
    with pytest.raises(ValueError, match="bernoulli"):
        likelihood_net("poisson", (3,), 2)


# Stand-ins for discrete draws


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
    assert close(mine, theirs)
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
    assert close(nodes["x"]["fn"].log_prob(x), GreyBernoulli(logits=torch.ones(3)).to_event(1).log_prob(x))
    assert nodes["x"]["value"].shape == (5, 3)


@pytest.mark.parametrize("smoothing", [0.05, 0.5])
def test_smoothed_labels(smoothing: float) -> None:
    """1 − ε at the class and ε / (K − 1) at each of the others: still probabilities."""
    y = torch.eye(4)[[2, 0]]
    found = smoothed(y, smoothing)
    rest = smoothing / 3
    expected = [[rest, rest, 1 - smoothing, rest], [1 - smoothing, rest, rest, rest]]
    assert close(found, expected)
    assert close(found.sum(-1), torch.ones(2))


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
    assert close(y, torch.softmax((torch.log_softmax(LOGITS, -1) + gumbel) / temperature, -1), 1e-6)
    assert close(nodes["y"]["log_prob"], log_concrete(y, LOGITS, temperature), 1e-9)
    assert nodes["y"]["infer"] == {"kept": True}
    assert nodes["other"]["infer"]["enumerate"] == "parallel"
    assert type(nodes["other"]["fn"]) is OneHotCategorical


def test_given_labels_have_their_concrete_density() -> None:
    """A y on the simplex is observed as it is; the density of a sharp one is larger under probabilities like it."""
    y = smoothed(torch.eye(3)[[0, 1]], 0.05)
    nodes = relaxed_site(1.0, y)
    assert nodes["y"]["is_observed"]
    assert torch.equal(nodes["y"]["value"], y)
    assert close(nodes["y"]["log_prob"], log_concrete(y, LOGITS, 1.0), 1e-9)


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
        assert close(trace.nodes["y"]["log_prob"], log_density(logits), 1e-6)
