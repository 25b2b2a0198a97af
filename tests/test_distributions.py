"""The networks are the maps they claim to be, and each conditional's density and draws are its distribution's."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from semipyro.distributions import (
    ACTIVATIONS,
    LIKELIHOODS,
    MLP,
    BernoulliNet,
    BoundedNormalNet,
    CategoricalNet,
    GreyBernoulli,
    NormalNet,
    StandardNormal,
    UniformBox,
    central_value,
    class_probabilities,
    likelihood_net,
    most_probable,
)
from semipyro.distributions.conditionals import MIN_SCALE
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


# Helpers


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
