"""MLPs, compared with the same layers in PyTorch: values, gradients, batch norm, cost and types."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from semipyro.distributions import (
    ACTIVATIONS,
    MLP,
)
from semipyro.distributions.mlp import BatchNorm, SumLinear
from semipyro.papers import PAPERS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.comparisons import close_arrays
from helpers.paper_networks import random_weights

N, K, S = 6, 3, 2
SHAPES = {
    "N": [(N,), (N,)],
    "K N": [(N,), (K, 1)],
    "S N": [(S, N), (N,)],
    "K S N": [(S, N), (K, 1, 1)],
    "one row": [(N,), ()],
    "three inputs": [(N,), (K, 1, 1), (S, N)],
}

pytestmark = pytest.mark.usefixtures("float64")


def reference(net: MLP, layers: list[nn.Module]) -> nn.Sequential:
    """The same weights in layers of PyTorch, in their order."""
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
    assert close_arrays(mine.detach(), theirs.detach())
    cotangent = torch.randn_like(mine)
    g_mine = torch.autograd.grad(mine, [*net.parameters(), *inputs], cotangent)
    g_theirs = torch.autograd.grad(theirs, [*plain.parameters(), *inputs], cotangent)
    assert all(close_arrays(a, b, 1e-11) for a, b in zip(g_mine, g_theirs, strict=True))


def test_an_input_of_width_none_is_not_read() -> None:
    """The output is that of a network without this input, whatever is given for it, even None."""
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
        assert close_arrays(net(*inputs).detach(), expected.detach(), 1e-11)


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
    assert close_arrays(net(x).detach(), expected)
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
    assert close_arrays(layer(x).detach(), expected.detach())
    for found, by_hand in zip(gradients(layer(x)), gradients(expected), strict=True):
        assert close_arrays(found, by_hand)
    layer.given = mean.detach(), variance.detach()
    assert close_arrays(layer(x).detach(), expected.detach())
    assert gradients(layer(x))[1] is None
    layer.given = None
    assert not close_arrays(layer(x).detach(), expected.detach())


def test_batch_norm_of_a_single_row() -> None:
    """One row has no variance: in training, too, it is normalised by the running statistics, which it leaves alone."""
    net = MLP((3,), 2, hidden=(4,), batch_norm=True)
    net(5 + torch.randn(50, 3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    row = torch.randn(1, 3)
    assert close_arrays(net(row).detach(), net.eval()(row).detach())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not close_arrays(net.train()(row.repeat(2, 1) + torch.eye(2, 3))[:1].detach(), net.eval()(row).detach())


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
    assert close_arrays((net(*x) - before).detach(), shift.expand(N, 5))


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
