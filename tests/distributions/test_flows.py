"""Posteriors beyond the diagonal Gaussian: flows, low-rank Gaussians, and what is built of them.

A flow's density is compared with autograd's Jacobian, its draws with its density, its bound with the diagonal guide's
where the flow is the identity, and its gap with the closed form of a model whose posterior is a correlated Gaussian.
Everything is float64. What is drawn is compared within `SIGMAS` standard errors.
"""

import copy
import math
import pickle
import re
from collections.abc import Callable
from functools import partial
from statistics import NormalDist
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms
from scipy import stats
from semipyro.distributions import (
    FLOWS,
    BlockNormalNet,
    BoundedNormalNet,
    Flow,
    FlowNet,
    LowRankNormalNet,
    NormalNet,
    central_value,
)
from semipyro.distributions.conditionals import MIN_SCALE
from semipyro.guides import VAEGuide
from semipyro.inference import ELBO, Objective, log_likelihood
from semipyro.models import VAE
from semipyro.papers import PAPERS, posterior
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from helpers.comparisons import agrees, gradients
from helpers.conditionals import Conditional
from helpers.paper_networks import LATENTS, WIDTHS_BY_PAPER, rows

pytestmark = pytest.mark.usefixtures("float64")

N, K, S, D, L = 3, 3, 2, 5, 3
CASES = [(name, how) for name, family in FLOWS.items() for how in ((False, True) if family.amortised else (False,))]
INVERTIBLE = [(name, how) for name, how in CASES if FLOWS[name].invertible]
ONE_WAY = [(name, how) for name, how in CASES if not FLOWS[name].invertible]
ELEMENTWISE = [(transforms.spline, False), (transforms.planar, False)]  # callables; the first has no event dimension

ROUNDING = 1e-9
# Pyro adds 1e-8 to the determinant of a Sylvester transform, to the weights of a neural autoregressive one inside their
# logarithm, and to the squared norms of a block autoregressive one inside theirs.
ADDED = dict.fromkeys(["sylvester", "naf", "block-autoregressive"], 1e-6)

# One budget for all comparisons of draws with a density: all of them pass with a probability of 1 − 1e-4.
MOMENTS = 1 + 2
COMPARISONS = MOMENTS * len(CASES)
SIGMAS = -NormalDist().inv_cdf(1e-4 / (2 * COMPARISONS))


def every(cases: list[tuple[Any, bool]]) -> Any:
    def name(flow: Any, amortised: bool) -> str:
        return (f"callable {flow.__name__}" if callable(flow) else flow) + (", amortised" if amortised else "")

    return pytest.mark.parametrize(("flow", "amortised"), cases, ids=[name(*case) for case in cases])


def close(a: Tensor, b: Tensor, flow: Any = None, tolerance: float = ROUNDING) -> bool:
    tolerance = max(tolerance, ADDED.get(flow, 0)) if isinstance(flow, str) else tolerance
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance))


def shaken(net: Any, size: float = 0.15) -> Any:
    """The module with all its parameters moved, so that none of them is zero."""
    for parameter in net.parameters():
        parameter.data += size * torch.randn_like(parameter)
    return net


def made(flow: Any, amortised: bool = False, dim: int = L, length: int = 2) -> FlowNet:
    net = FlowNet((D, K), dim, flow=flow, length=length, amortised=amortised, hidden=(6,))
    if flow == "sylvester":  # one that starts within 1e-4 of the identity
        for parameter in net.transforms.parameters():
            parameter.data += 0.5
    return shaken(net)


def drawn(d: Any, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """A draw z, its log-density, and the base's draw u of which it was made."""
    state = torch.get_rng_state()
    z = d.rsample(shape)
    torch.set_rng_state(state)
    return z, d.log_prob(z), d.base_dist.rsample(shape)


def each_label() -> Tensor:
    """All labels, as an enumerated y: (K, 1, K)."""
    return torch.eye(K)[:, None]


# 1. The density of a draw


def by_jacobian(d: Flow, u: Tensor) -> Tensor:
    """log N(u; μ, σ²) − log |det ∂f / ∂u| of every row, with autograd's Jacobian."""
    columns = jacobian(lambda v: d.push(v)[0].flatten(0, -2).sum(0), u, create_graph=True)  # L, ..., L
    return d.base_dist.log_prob(u) - torch.linalg.slogdet(columns.movedim(0, -2))[1]


CONDITIONS: dict[str, Callable[[FlowNet], Flow]] = {
    "N": lambda net: net(torch.randn(N, D), torch.randn(N, K)),
    "K N": lambda net: net(torch.randn(N, D), each_label()),
    "K S N": lambda net: net(torch.randn(S, N, D), each_label()[:, None]),
    "K 1 N expanded": lambda net: net(torch.randn(N, D), each_label()[:, None]).expand((K, S, N)),
    "one row expanded": lambda net: net(torch.randn(D), torch.randn(K)).expand((S, N)),
}
BATCH = {"N": (N,), "K N": (K, N), "K S N": (K, S, N), "K 1 N expanded": (K, S, N), "one row expanded": (S, N)}


@every([*CASES, *ELEMENTWISE])
def test_density_is_the_change_of_variables(flow: Any, amortised: bool) -> None:
    """log q(f(u)) = log N(u) − log |det ∂f / ∂u| for all batch shapes, and z is f(u); also for further draws."""
    net = made(flow, amortised)
    for name, condition in CONDITIONS.items():
        d = condition(net)
        for shape in ((), (2,)):
            z, log_q, u = drawn(d, *shape)
            assert d.event_shape == (L,)
            assert d.batch_shape == BATCH[name]
            assert z.shape == (*shape, *BATCH[name], L)
            assert torch.equal(d.push(u)[0], z)
            assert close(log_q.detach(), by_jacobian(d, u).detach(), flow), name
            assert (z - u).abs().max() > 1e-3


@every([*CASES, *ELEMENTWISE])
def test_density_has_the_gradient_of_the_change_of_variables(flow: Any, amortised: bool) -> None:
    """In every parameter of the base, of the features and of the transforms, through the draw as well."""
    net = made(flow, amortised)
    d = CONDITIONS["K N"](net)
    _, log_q, u = drawn(d)
    weight = torch.randn_like(log_q)
    names, parameters = zip(*net.named_parameters(), strict=True)
    mine, exact = (
        torch.autograd.grad((weight * value).sum(), parameters, allow_unused=True, retain_graph=True)
        for value in (log_q, by_jacobian(d, u))
    )
    for name, parameter, a, b in zip(names, parameters, mine, exact, strict=True):
        a, b = (torch.zeros_like(parameter) if g is None else g for g in (a, b))
        assert close(a, b, flow, 1e-8), name


@every([*CASES, *ELEMENTWISE])
def test_base_is_the_diagonal_gaussian_and_rows_are_apart(flow: Any, amortised: bool) -> None:
    """u ~ N(μ(c), diag σ²(c)) of `net.base`, and no row's f moves another's."""
    net = made(flow, amortised)
    x, y = torch.randn(N, D), torch.randn(N, K)
    d, base = net(x, y), net.base(x, y)
    assert torch.equal(d.base_dist.mean, base.mean)
    assert torch.equal(d.base_dist.stddev, base.stddev)
    assert isinstance(net.base, NormalNet)
    moved = jacobian(lambda v: d.push(v)[0], base.mean.detach())  # N, L, N, L
    assert not moved[~torch.eye(N, dtype=torch.bool)[:, None, :, None].expand_as(moved)].any()


@pytest.mark.parametrize("dim", [1, 2, 4])
@every(CASES)
def test_every_width_from_the_least(flow: str, amortised: bool, dim: int) -> None:
    """At the least L at which a flow can be built its density is that of a draw, too."""
    if dim < FLOWS[flow].least_dim:
        pytest.skip(f"{flow} does nothing in {dim} dimension")
    d = CONDITIONS["K N"](made(flow, amortised, dim))
    z, log_q, u = drawn(d)
    assert z.shape == (K, N, dim)
    assert close(log_q.detach(), by_jacobian(d, u).detach(), flow)


# 2. Draws against the density


class WrongSign(Flow):
    """A flow whose log-determinant has the wrong sign."""

    def push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = super().push(u)
        return z, -log_det


@torch.no_grad()
def deviations(d: Any, draws: int = 20_000) -> Tensor:
    """In standard errors, how far draws z ~ q are from E_q h(z) g(z) / q(z) = ∫ h g, g = 1 or a coordinate.

    h is a bump on a parallelepiped around a draw near the mean. No inverse of f is needed, and no tail.
    """
    pilot = d.rsample((2_000,))[:, 0]
    centre = pilot[(pilot - pilot.mean(0)).norm(dim=1).argmin()]
    reach = 0.5 * torch.linalg.cholesky(pilot.T.cov())
    z = d.rsample((draws,))
    t = torch.linalg.solve_triangular(reach, (z[:, 0] - centre).T, upper=False)  # L, draws
    bump = (0.5 + 0.5 * (math.pi * t).cos()).where(t.abs() < 1, 0).prod(0) / reach.diagonal().prod()
    weight = bump * (-d.log_prob(z)[:, 0]).exp()
    estimates = weight * torch.cat([torch.ones(1, draws), t])  # 1 + L, draws
    expected = torch.tensor([1.0] + [0.0] * len(centre))
    return (estimates.mean(1) - expected) / estimates.std(1) * draws**0.5


@every(CASES)
def test_draws_have_the_density(flow: str, amortised: bool) -> None:
    """E_q h / q = 1 and E_q h t / q = E_h t = 0; not so where the log-determinant's sign is wrong."""
    d = made(flow, amortised, dim=2)(torch.randn(1, D), torch.randn(1, K))
    found = deviations(d)
    assert len(found) == MOMENTS
    assert found.abs().max() < SIGMAS
    if flow != "householder":  # its log-determinant is zero
        assert deviations(WrongSign(d.base_dist, d.transforms)).abs().max() > SIGMAS


@every(CASES)
def test_no_flow_has_a_bounded_image(flow: str, amortised: bool) -> None:
    """Along every axis f(u) goes far where u does: importance weights miss what lies beyond the end of q."""
    far = 100 * torch.eye(L)
    f = made(flow, amortised)(torch.randn(D), torch.randn(K)).push
    assert ((f(far)[0] - f(-far)[0]).norm(dim=-1) > 10).all()


# 3. The identity


SOFTPLUS_1 = math.log(math.e - 1)  # where softplus is 1


def fill(part: nn.Module, **values: Tensor) -> None:
    """Sets the parameters of a transform, or, in an amortised one, its network's output for any input."""
    if "nn" in dict(part.named_children()):
        constant(part.nn, *values.values())
    else:
        for name, value in values.items():
            getattr(part, name).data.copy_(value)


def constant(network: Any, *values: Tensor) -> None:
    """Sets a network's output, which is `values` one after the other, for any input."""
    network.layers[-1].weight.data.zero_()
    network.layers[-1].bias.data.copy_(torch.cat([value.flatten() for value in values]))


def planar(part: Any, dim: int) -> None:
    """û = u + (−1 + softplus(uᵀw) − uᵀw) w / |w|² is zero for u = c w where softplus(c |w|²) = 1."""
    w = torch.linspace(0.5, 1.0, dim)
    fill(part, bias=torch.tensor([0.3]), u=SOFTPLUS_1 * w / (w @ w), w=w)


def radial(part: Any, dim: int) -> None:
    """β = −softplus(α′) + softplus(β′) = 0."""
    same = torch.tensor([0.3])
    fill(part, x0=torch.ones(dim), alpha_prime=same, beta_prime=same)


def householder(part: Any, dim: int) -> None:
    """A reflection; two by the same vector are the identity."""
    fill(part, u_unnormed=torch.linspace(-1.0, 1.5, dim))


def sylvester(part: Any, dim: int) -> None:
    """R = 0."""
    part.R_dense.data.zero_()
    part.R_diag.data.zero_()


def affine(part: Any, dim: int) -> None:
    """μ = 0 and log σ = 0, the outputs of the part's network."""
    network = part.nn if hasattr(part, "nn") else part.arn
    constant(network, torch.zeros_like(network.layers[-1].bias))


def naf(part: Any, dim: int) -> None:
    """σ⁻¹(Σ_i w_i σ(a_i u + b_i)) with a = 1, b = 0 and any weights w."""
    network = part.nn if hasattr(part, "nn") else part.arn
    units = (part.kwargs if hasattr(part, "nn") else vars(part))["hidden_units"]
    constant(network, torch.full((units, dim), SOFTPLUS_1), torch.randn(units, dim), torch.zeros(units, dim))


def spline(dim: int, bins: int = 8) -> list[Tensor]:
    """Bins as high as wide, slopes of 1 at the knots, any λ: (dim, bins) each, (dim, bins − 1) slopes.

    But for the first and the last bin: at ±3 Pyro sets the slope to 0.999, and no parameters undo that. So these two
    have the least width, 0.006, and no draw of the tests falls there.
    """
    width = torch.cat([torch.tensor([-40.0]), torch.randn(bins - 2), torch.tensor([-40.0])]).expand(dim, -1)
    slope = torch.full((dim, bins - 1), math.log(math.exp(0.999) - 1))  # softplus is 0.999, and Pyro adds 0.001
    return [width, width, slope, torch.randn(dim, bins)]


def spline_coupling(part: Any, dim: int) -> None:
    lower = part.lower_spline
    for name, value in zip(("widths", "heights", "derivatives", "lambdas"), spline(dim // 2), strict=True):
        getattr(lower, f"unnormalized_{name}").data.copy_(value)
    constant(part.upper_spline.nn, *spline(dim - dim // 2))


def spline_autoregressive(part: Any, dim: int) -> None:
    constant(part.nn if hasattr(part, "nn") else part.arn, *(value.T for value in spline(dim)))


def block_autoregressive(part: Any, dim: int, small: float = 1e-4) -> None:
    """tanh(tanh(s u)) / s, which is the identity only in the limit of small s: off by about s² u³ / 1.5.

    Where u is added to the network's output, that output vanishes in the limit. A layer's rows are weights exp(0) = 1,
    one for each of the unit's own inputs, over their norm, times exp(g).
    """
    for layer, scale in zip(part.layers, (small, 1.0, 1 / small if part.residual is None else small), strict=True):
        own = layer.in_features // dim
        layer._weight.data.zero_()
        layer._diag_weight.data.fill_(math.log(scale / own**0.5))
        layer.bias.data.zero_()


IDENTITY: dict[str, Callable[[Any, int], None]] = {
    "planar": planar,
    "radial": radial,
    "householder": householder,
    "sylvester": sylvester,
    "iaf": affine,
    "naf": naf,
    "coupling": affine,
    "spline-coupling": spline_coupling,
    "spline-autoregressive": spline_autoregressive,
    "block-autoregressive": block_autoregressive,
}


def make_identity(net: FlowNet, flow: str, dim: int) -> None:
    for part in net.transforms:
        IDENTITY[flow](part, dim)


def test_every_flow_has_its_identity() -> None:
    assert IDENTITY.keys() == FLOWS.keys()


@every(CASES)
def test_the_order_is_reversed_between_two_transforms(flow: str, amortised: bool) -> None:
    """Where each transform is the identity: two of a family with an order reverse u, three and all others leave it."""
    for length in (2, 3) if flow != "householder" else (2, 4):
        net = made(flow, amortised, dim=4, length=length)
        make_identity(net, flow, 4)
        u = torch.randn(N, 4)
        z, log_det = net(torch.randn(N, D), torch.randn(N, K)).push(u)
        ordered = flow in ("iaf", "naf", "coupling", "spline-coupling", "spline-autoregressive", "block-autoregressive")
        assert close(z.detach(), u.flip(-1) if ordered and length == 2 else u, flow)
        assert close(log_det.detach(), torch.zeros(N), flow)


@pytest.mark.parametrize("paper", ["m1", "m2"])
@every(CASES)
def test_an_identity_gives_the_bound_of_the_diagonal_guide(paper: str, flow: str, amortised: bool) -> None:
    """All terms, and the gradient of every parameter that the two guides share, at the same draws."""
    settings = {"z_dim": 4, "hidden": (6,), "num_samples": S}
    length = 3 if FLOWS[flow].ordered else 2
    plain = shaken(PAPERS[paper].build(D, K, **settings))
    flowing = PAPERS[paper].build(D, K, **settings, flow=flow, flow_length=length, flow_amortised=amortised)
    shared = {name: name.replace("guide.q_z.", "guide.q_z.base.") for name in plain.state_dict()}
    missing = flowing.load_state_dict({shared[n]: w for n, w in plain.state_dict().items()}, strict=False)
    assert not missing.unexpected_keys
    make_identity(flowing.guide.q_z, flow, 4)
    found = []
    for objective in (plain, flowing):
        torch.manual_seed(1)
        terms = objective(*rows(N, N, D, K))
        found.append((terms, gradients(terms["loss"], objective)))
    (expected, g_expected), (terms, g_terms) = found
    assert terms.keys() == expected.keys()
    for name in terms:
        assert close(terms[name].detach(), expected[name].detach(), flow), name
    for name in g_expected:
        assert close(g_terms[shared[name]], g_expected[name], flow, 1e-8), name


# 4. Every row of the table with every posterior


POSTERIORS: dict[str, dict[str, Any]] = {
    **{f"{name}{', amortised' * how}": {"flow": name, "flow_amortised": how} for name, how in CASES},
    "rank": {"rank": 2},
}
SMALL = {"z_dim": 4, "hidden": (8,), "num_samples": S}
SMALLER = {
    **{name: {"a_dim": 3} for name, widths in WIDTHS_BY_PAPER.items() if "a_dim" in widths},
    "appendix-c": {"zy_dim": 2},
    "cagem": {"batch_norm": False},  # with it, a bias before it has no gradient
}


def posterior_nets(objective: Objective) -> list[Any]:
    """The networks of the guide's continuous latents."""
    nets = [getattr(objective.guide, factor) for factor in LATENTS if hasattr(objective.guide, factor)]
    nets = [net.normal if isinstance(net, BoundedNormalNet) else net for net in nets]
    return [part for net in nets for part in ((net.first, net.second) if isinstance(net, BlockNormalNet) else (net,))]


@pytest.mark.parametrize("settings", POSTERIORS.values(), ids=POSTERIORS)
@pytest.mark.parametrize("paper", PAPERS)
def test_every_paper_takes_every_posterior(paper: str, settings: dict[str, Any]) -> None:
    """In every continuous latent: finite terms, a gradient for every parameter, and all that a guide and model do."""
    build = partial(PAPERS[paper].build, D, K, **SMALL, **SMALLER.get(paper, {}), **settings)
    flow = settings.get("flow")
    if paper == "untapped" and flow and not FLOWS[flow].invertible:
        with pytest.raises(ValueError, match=f"flow must have an inverse for untapped, .*, got '{flow}'"):
            build()
        return
    objective = build()
    nets = posterior_nets(objective)
    assert nets
    for net in nets:
        assert type(net) is (FlowNet if flow else LowRankNormalNet)
        assert flow is None or (net.features is not None) == settings["flow_amortised"]
    x, y, x_unlabelled = rows(N, N, D, K)
    terms = objective(x, y, x_unlabelled)
    assert all(bool(term.isfinite()) for term in terms.values())
    grads = gradients(terms["loss"], objective)
    assert {name for name, g in grads.items() if not g.isfinite().all() or g.abs().max() < 1e-12} == set()
    with torch.no_grad():
        assert objective.guide.encode(x).shape == (N, 4)
        if PAPERS[paper].classifies:
            q = objective.guide.classify(x, num_samples=2)
            assert q.probs.shape == (N, K)
        bound = log_likelihood(objective.model, objective.guide, x, num_samples=3)
    assert bound.shape == (N,)
    assert bound.isfinite().all()


def test_untapped_names_the_flows_that_it_takes() -> None:
    """All those with an inverse, and no other."""
    with pytest.raises(ValueError, match="choose one of") as error:
        PAPERS["untapped"].build(D, K, flow="planar")
    named = str(error.value).split("choose one of ")[1].split(", ")
    assert set(named) == {name for name, _ in INVERTIBLE}
    for name in named:
        PAPERS["untapped"].build(D, K, flow=name)


def test_settings_of_the_posterior_arrive() -> None:
    """Length, form and rank; no setting is the papers' diagonal Gaussian."""
    assert type(PAPERS["m2"].build(D, K, **SMALL).guide.q_z) is NormalNet
    assert posterior() is NormalNet
    assert PAPERS["m2"].build(D, K, **SMALL, rank=3).guide.q_z.rank == 3
    for settings, length, amortised in (({}, 2, False), ({"flow_length": 5, "flow_amortised": True}, 5, True)):
        net = PAPERS["m2"].build(D, K, **SMALL, flow="planar", **settings).guide.q_z
        assert (len(net.transforms), net.features is not None) == (length, amortised)


@every(CASES)
def test_every_transform_has_its_own_parameters(flow: str, amortised: bool) -> None:
    """Their number grows with the length; plain ones are no functions of the conditions."""
    count = [sum(p.numel() for p in made(flow, amortised, length=t).transforms.parameters()) for t in (1, 2, 3)]
    assert 0 < count[0] == count[1] - count[0] == count[2] - count[1]
    assert (made(flow, amortised).features is None) != amortised


# 5. Amortised flows see the conditions


@every(CASES)
def test_an_amortised_flow_differs_between_labels(flow: str, amortised: bool) -> None:
    """With a base that does not read y: f(u) is another for each y where f is amortised, and for each x."""
    net = made(flow, amortised)
    net.base.mlp.first.weight.data[:, D:] = 0
    x, u = torch.randn(N, D), torch.randn(N, L)
    d = net(x, each_label())  # K, N
    assert torch.equal(d.base_dist.mean[0], d.base_dist.mean[1])
    z, log_det = (value.detach() for value in d.push(u.expand(K, N, L)))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert ((z[a] - z[b]).abs().amax(-1) > 1e-6).all() == amortised
        assert close(z[a], z[b]) != amortised
        if flow != "householder":
            assert ((log_det[a] - log_det[b]).abs() > 1e-6).all() == amortised
            assert close(log_det[a], log_det[b]) != amortised
    other = net(torch.randn(N, D), each_label()).push(u.expand(K, N, L))[0].detach()
    assert close(other, z) != amortised


@pytest.mark.parametrize("amortised", [False, True])
def test_labels_of_a_bound_have_their_own_flow(amortised: bool) -> None:
    """A row given as each class in turn is what enumeration sees: the same weights, one class at a time."""
    objective = shaken(PAPERS["m2"].build(D, K, **{**SMALL, "num_samples": 1}, flow="iaf", flow_amortised=amortised))
    x = rows(N, N, D, K)[2]
    torch.manual_seed(1)
    d = objective.guide.q_z(x, each_label())
    z, log_q, u = drawn(d)
    for k in range(K):
        alone = objective.guide.q_z(x, torch.eye(K)[k].expand(N, K))
        image, log_det = alone.push(u[k])
        assert close(image.detach(), z[k].detach())
        assert close((alone.base_dist.log_prob(u[k]) - log_det).detach(), log_q[k].detach())


# 6. The gap to a posterior that is a correlated Gaussian


class Correlated:
    """p(z) = N(0, I), p(x | z) = N(W z, σ² I): p(z | x) = N(Λ⁻¹ Wᵀ x / σ², Λ⁻¹), Λ = I + Wᵀ W / σ²."""

    sigma = 0.6

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(2)
        common = torch.randn(4, 1, generator=generator)
        self.W = common + 0.5 * torch.randn(4, L, generator=generator)  # columns that resemble each other
        self.precision = torch.eye(L) + self.W.T @ self.W / self.sigma**2
        self.gap = (self.precision.diagonal().log().sum() - self.precision.logdet()) / 2  # of the best diagonal q

    def posterior(self, x: Tensor) -> Any:
        mean = torch.linalg.solve(self.precision, self.W.T @ x.T / self.sigma**2).T
        return dist.MultivariateNormal(mean, precision_matrix=self.precision)

    def log_p_x(self, x: Tensor) -> Tensor:
        covariance = self.W @ self.W.T + self.sigma**2 * torch.eye(4)
        return dist.MultivariateNormal(torch.zeros(4), covariance).log_prob(x)

    def draw(self, n: int) -> Tensor:
        return torch.randn(n, L) @ self.W.T + self.sigma * torch.randn(n, 4)

    def objective(self, q_z: nn.Module) -> ELBO:
        p_x = Conditional(lambda z: dist.Normal(z @ self.W.T, self.sigma).to_event(1))
        return ELBO(VAE(p_x=p_x, z_dim=L), VAEGuide(q_z=q_z))

    def best_diagonal(self, x: Tensor) -> Any:
        return dist.Normal(self.posterior(x).mean, self.precision.diagonal() ** -0.5).to_event(1)

    @torch.no_grad()
    def gaps(self, q_z: nn.Module, draws: int = 50, each: int = 2000) -> Tensor:
        """log p(x) − ELBO(x), averaged over rows: independent estimates, (draws,)."""
        objective = self.objective(q_z)
        batches = [self.draw(each) for _ in range(draws)]
        return torch.stack([self.log_p_x(x).mean() - objective(None, None, x)["unlabelled"] for x in batches])


def test_gap_of_the_best_diagonal_guide() -> None:
    """½ (Σ log Λ_ii − log |Λ|) is the divergence, no other diagonal Gaussian has less, and the ELBO shows it."""
    model, x = Correlated(), torch.randn(N, 4)
    exact, best = model.posterior(x), model.best_diagonal(x).base_dist

    def kl(mean: Tensor, scale: Tensor) -> Tensor:
        return torch.distributions.kl_divergence(dist.MultivariateNormal(mean, scale_tril=scale.diag_embed()), exact)

    assert close(kl(best.mean, best.stddev), model.gap.expand(N))
    assert model.gap > 0.5
    for size in (0.9, 0.99, 1.01, 1.1):
        for unit in range(L):
            one = torch.ones(L).index_fill(0, torch.tensor(unit), size)
            assert (kl(best.mean, best.stddev * one) > model.gap).all()
            assert (kl(best.mean + one - 1, best.stddev) > model.gap).all()
    gaps = model.gaps(Conditional(model.best_diagonal))
    assert agrees(gaps, model.gap, SIGMAS)
    assert not agrees(gaps, 0.95 * model.gap, SIGMAS)
    assert model.gaps(Conditional(model.posterior)).abs().max() < ROUNDING


def trained(q_z: nn.Module, model: Correlated, steps: int) -> nn.Module:
    """The net after these many steps of Adam on the bound, whose rate falls to zero."""
    objective = model.objective(q_z)
    optimiser = torch.optim.Adam(q_z.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps + 1, pct_start=0.1)
    x = model.draw(5_000)
    for _ in range(steps):
        optimiser.zero_grad()
        objective(None, None, x[torch.randint(len(x), (200,))])["loss"].backward()
        optimiser.step()
        schedule.step()
    return q_z


@pytest.mark.parametrize(
    "build", [partial(LowRankNormalNet, rank=2), partial(FlowNet, flow="iaf")], ids=["low rank", "iaf"]
)
def test_correlated_guides_close_the_gap(build: Callable[..., nn.Module]) -> None:
    """Trained alone, to within 0.01 nats: a low-rank Gaussian, and a plain flow that sees x in its base only."""
    model = Correlated()
    gaps = model.gaps(trained(build((4,), L, hidden=()), model, 600))
    gap, error = gaps.mean(), gaps.std() / len(gaps) ** 0.5
    assert gap + SIGMAS * error < 0.01, f"a gap of {gap:.5f} nats, with a standard error of {error:.5f}"
    assert gap > -SIGMAS * error


# 7. Values from elsewhere, caches and copies


def message_of(error: Any) -> str:
    """The flow that the message of a flow without an inverse names in its place."""
    found = re.search(r"must be the flow's last draw, .* has no inverse, .* such as '(\S+)'", str(error.value))
    assert found
    return found[1]


def elsewhere(d: Any, z: Tensor) -> dict[str, Tensor]:
    """Values that are not the distribution's last draw, though one of them is equal to it."""
    return {
        "a copy": z.clone(),
        "a view": z.view_as(z),
        "without gradient": z.detach(),
        "a draw by sample": d.sample(),
        "a point": torch.zeros(L),
    }


@every(INVERTIBLE)
def test_an_invertible_flow_scores_any_value(flow: str, amortised: bool) -> None:
    """As it scores the draw; whatever its shape, for other draws by the change of variables, with the same gradient."""
    net = made(flow, amortised)
    for condition in CONDITIONS.values():
        d = condition(net)
        z, log_q, _ = drawn(d)
        for value in elsewhere(d, z).values():
            assert d.log_prob(value).shape == d.batch_shape
        assert close(d.log_prob(z.clone()), log_q, tolerance=1e-8)
        earlier, log_q, _ = drawn(d, 2)
        d.rsample()
        assert close(d.log_prob(earlier), log_q, tolerance=1e-8)
        with torch.no_grad():
            z, log_q, _ = drawn(d)
        assert close(d.log_prob(z.clone()).detach(), log_q, tolerance=1e-8)
    d = CONDITIONS["K N"](net)
    z, log_q, _ = drawn(d)
    weight = torch.randn_like(log_q)
    mine, inverse = (
        torch.autograd.grad((weight * value).sum(), list(net.parameters()), allow_unused=True, retain_graph=True)
        for value in (log_q, d.log_prob(z.clone()))
    )
    for a, b in zip(mine, inverse, strict=True):
        assert (a is None and b is None) or close(torch.zeros_like(b) if a is None else a, b, tolerance=1e-6)


@every(ONE_WAY)
def test_a_flow_without_inverse_scores_its_last_draw_alone(flow: str, amortised: bool) -> None:
    """Again and again, and under `no_grad`; any other value is an error that names a flow which can."""
    d = CONDITIONS["K N"](made(flow, amortised))
    z, log_q, _ = drawn(d)
    for value in elsewhere(d, z).values():
        with pytest.raises(ValueError, match="has no inverse") as error:
            d.log_prob(value)
        assert FLOWS[message_of(error)].invertible
    assert d.log_prob(z) is log_q
    with torch.no_grad():
        second, log_q, _ = drawn(d)
        assert torch.equal(d.log_prob(second), log_q)
    for value in (z, second.clone()):
        with pytest.raises(ValueError, match="has no inverse"):
            d.log_prob(value)


@every(CASES)
def test_no_density_outlives_its_parameters(flow: str, amortised: bool) -> None:
    """After a step, an old draw has the density of the new parameters, or none."""
    net, conditions = made(flow, amortised), (torch.randn(N, D), torch.randn(N, K))
    d = net(*conditions)
    z, log_q, _ = drawn(d)
    if FLOWS[flow].invertible:
        d.log_prob(z.clone())  # leaves no inverse behind
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    (log_q.sum() + (z**2).sum()).backward()
    optimiser.step()
    fresh = FlowNet((D, K), L, flow=flow, amortised=amortised, hidden=(6,))
    fresh.load_state_dict(net.state_dict())
    for value in (z, z.detach()):
        if FLOWS[flow].invertible:
            new = net(*conditions).log_prob(value)
            assert torch.equal(new, fresh(*conditions).log_prob(value.clone()))
            assert (new - log_q).abs().min() > 1e-4
        else:
            with pytest.raises(ValueError, match="has no inverse"):
                net(*conditions).log_prob(value)


def used(net: FlowNet, flow: str, how: str) -> None:
    """What leaves a graph behind: a draw and a backward pass, the density of a value, or the image of the mean."""
    d = net(torch.randn(N, D), torch.randn(N, K))
    if how == "central value":
        central_value(d)
        return
    z = d.rsample()
    value = z.clone() if how == "a value from elsewhere" and FLOWS[flow].invertible else z
    (d.log_prob(value).sum() + z.sum()).backward()


@pytest.mark.parametrize("how", ["a draw", "a value from elsewhere", "central value"])
@every(CASES)
def test_a_net_is_copied_right_after_its_use(flow: str, amortised: bool, how: str) -> None:
    """By `deepcopy`, by `pickle`, and by its state: the copy draws the same, and owns its parameters."""
    net = made(flow, amortised)
    conditions = torch.randn(N, D), torch.randn(N, K)
    loaded = FlowNet((D, K), L, flow=flow, amortised=amortised, hidden=(6,))
    used(net, flow, how)
    loaded.load_state_dict(net.state_dict())
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), loaded]
    found = []
    for each in (net, *copies):
        torch.manual_seed(1)
        z, log_q, _ = drawn(each(*conditions))
        found.append((z, log_q))
    assert all(torch.equal(z, found[0][0]) and torch.equal(log_q, found[0][1]) for z, log_q in found[1:])
    for other in copies:
        owned = {id(p) for p in other.parameters()}
        z, log_q, _ = drawn(other(*conditions))
        (log_q.sum() + (z**2).sum()).backward()
        assert owned.isdisjoint(id(p) for p in net.parameters())
        assert any(p.grad is not None and p.grad.any() for p in other.transforms.parameters())


@every(CASES)
def test_the_central_value_is_the_image_of_the_bases_mean(flow: str, amortised: bool) -> None:
    d = CONDITIONS["K N"](made(flow, amortised))
    assert close(central_value(d).detach(), d.push(d.base_dist.mean)[0].detach())


# 8. Errors, and flows that are given as callables


ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown": (lambda: FlowNet((D,), L, flow="glow"), "flow must be one of planar, .* or a callable .*, got 'glow'"),
    "length": (lambda: FlowNet((D,), L, length=0), "length must be an integer of at least 1, got 0"),
    "amortised callable": (
        lambda: FlowNet((D,), L, flow=transforms.planar, amortised=True),
        "flow must have an amortised form, got .*, which has none; choose one of planar, ",
    ),
    "flow and rank": (lambda: posterior(flow="iaf", rank=2), "flow or rank must be None, got flow='iaf' and rank=2"),
    "flow and rank of a paper": (
        lambda: PAPERS["m2"].build(D, K, flow="iaf", rank=2),
        "flow or rank must be None, got flow='iaf' and rank=2",
    ),
    "rank": (lambda: LowRankNormalNet((D,), L, rank=0), "rank must be an integer of at least 1, got 0"),
    "rank of a paper": (lambda: PAPERS["m2"].build(D, K, rank=0), "rank must be an integer of at least 1, got 0"),
    "unknown of a paper": (lambda: PAPERS["m1"].build(D, flow="glow"), "flow must be one of .* got 'glow'"),
    "unknown of untapped": (lambda: PAPERS["untapped"].build(D, K, flow="glow"), "flow must be one of .* got 'glow'"),
    "length of a paper": (
        lambda: PAPERS["m1"].build(D, flow="iaf", flow_length=0),
        "length must be an integer of at least 1, got 0",
    ),
    "width of a paper": (
        lambda: PAPERS["appendix-c"].build(D, K, z_dim=4, flow="iaf"),
        "flow must suit a latent of width 1, got 'iaf', which needs 2 or more; choose one of planar, ",
    ),
    "another width": (
        lambda: FlowNet((D,), L)(torch.zeros(N, K)),
        r"must have shape \(\.\.\., 5\), got shape \(3, 3\)",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


def choices(call: Callable[[], Any], message: str) -> list[str]:
    """The names that an error offers in place of what was asked for."""
    with pytest.raises(ValueError, match=message) as error:
        call()
    return str(error.value).split("choose one of ")[1].split(", ")


@pytest.mark.parametrize("flow", [name for name, family in FLOWS.items() if family.least_dim > 1])
def test_a_flow_that_does_nothing_in_one_dimension_names_those_that_do(flow: str) -> None:
    for name in choices(lambda: FlowNet((D,), 1, flow=flow), f"width 1, got '{flow}', which needs 2 or more"):
        z, _, u = drawn(made(name, dim=1)(torch.randn(N, D), torch.randn(N, K)))
        assert ((z - u).diff(dim=0).abs() > 1e-6).all()  # more than a shift


@pytest.mark.parametrize("flow", [name for name, family in FLOWS.items() if not family.amortised])
@pytest.mark.parametrize("dim", [1, 2])
def test_a_flow_without_an_amortised_form_names_those_with_one(flow: str, dim: int) -> None:
    if dim < FLOWS[flow].least_dim:
        pytest.skip(f"{flow} does nothing in one dimension")
    for name in choices(
        lambda: FlowNet((D,), dim, flow=flow, amortised=True), f"flow must have an amortised form, got '{flow}'"
    ):
        assert FlowNet((D,), dim, flow=name, amortised=True).features is not None


def test_a_callable_is_the_flow_that_it_makes() -> None:
    """Pyro's helper is the family of its name; one transform is made for each of the length, of the right width."""
    named, given = made("planar", length=3), FlowNet((D, K), L, flow=transforms.planar, length=3, hidden=(6,))
    given.load_state_dict(named.state_dict())
    conditions, found = (torch.randn(N, D), torch.randn(N, K)), []
    for net in (named, given):
        torch.manual_seed(1)
        found.append(drawn(net(*conditions))[:2])
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    widths: list[int] = []
    FlowNet((D,), L, flow=lambda dim: widths.append(dim) or transforms.planar(dim), length=2)
    assert widths == [L, L]


def test_an_elementwise_callable_is_summed_over_units() -> None:
    """Splines without a network: their log-determinants are one per unit, and any value is scored."""
    d = CONDITIONS["K N"](made(transforms.spline))
    z, log_q, u = drawn(d)
    base = d.base_dist.base_dist.log_prob(u).sum(-1)
    slopes = jacobian(lambda v: d.push(v)[0].flatten(0, -2).sum(0), u).diagonal(dim1=0, dim2=-1)  # ..., L
    assert close(log_q.detach(), (base - slopes.log().sum(-1)).detach())
    assert close(d.log_prob(z.clone()), log_q, tolerance=1e-8)


# 9. Low-rank Gaussians, and what is built of posteriors


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_low_rank_gaussian_is_the_gaussian_of_its_covariance(rank: int) -> None:
    """log q, mean and variance are scipy's for W Wᵀ + diag σ², of all batch shapes; W has `rank` columns."""
    net = shaken(LowRankNormalNet((D, K), L, rank=rank, hidden=(6,)))
    for name, condition in CONDITIONS.items():
        with torch.no_grad():
            d = condition(net)
            z = d.rsample()
        assert z.shape == (*BATCH[name], L)
        W, variance = d.cov_factor, d.cov_diag
        assert W.shape[-2:] == (L, rank)
        covariance = W @ W.mT + torch.diag_embed(variance)
        covariance = covariance.expand(*BATCH[name], L, L).flatten(0, -3)
        means = d.mean.expand(*BATCH[name], L).flatten(0, -2)
        expected = [
            stats.multivariate_normal.logpdf(value, mean, cov)
            for value, mean, cov in zip(z.flatten(0, -2).numpy(), means.numpy(), covariance.numpy(), strict=True)
        ]
        assert close(d.log_prob(z).flatten(), torch.tensor(expected))
        assert close(d.variance.expand(*BATCH[name], L).flatten(0, -2), covariance.diagonal(dim1=-2, dim2=-1))
        for value in elsewhere(d, z).values():
            assert d.log_prob(value).shape == d.batch_shape


def test_low_rank_gaussian_reads_its_network() -> None:
    """μ, log(σ − 10⁻⁴) and W are the network's outputs; at the start σ is 1, and W small but not zero."""
    net, x = LowRankNormalNet((D,), L, rank=2, hidden=(6,)), torch.randn(N, D)
    d = net(x)
    assert torch.equal(d.cov_diag.sqrt(), torch.full((N, L), 1 + MIN_SCALE))
    assert 0 < d.cov_factor.abs().max() < 0.5
    assert torch.equal(central_value(d), d.mean)
    d, output = shaken(net)(x), net.mlp(x)
    assert torch.equal(d.mean, output[:, :L])
    assert close((d.cov_diag.sqrt() - MIN_SCALE).log(), output[:, L : 2 * L])
    assert torch.equal(d.cov_factor.flatten(-2), output[:, 2 * L :])


def test_low_rank_draws_have_its_covariance() -> None:
    """Mean and covariance of 20 000 draws, within standard errors."""
    d = shaken(LowRankNormalNet((D,), L, rank=2, hidden=(6,)))(torch.randn(1, D))
    z = d.rsample((20_000,))[:, 0].detach()
    centred = z - d.mean[0].detach()
    assert agrees(z, d.mean[0].detach(), SIGMAS)
    assert agrees(centred[:, :, None] * centred[:, None], d.covariance_matrix[0].detach(), SIGMAS)


BLOCKS: dict[str, Any] = {
    "low rank": partial(LowRankNormalNet, rank=1),
    **{f"{name}{', amortised' * how}": partial(FlowNet, flow=name, amortised=how) for name, how in CASES},
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_score_their_own_draws(name: str) -> None:
    """log q(u) + log q(v | u, c) of the very draws u and v, one block after the other, for all batch shapes."""
    net = shaken(BlockNormalNet((D, K), (2, 3), block=BLOCKS[name], hidden=(6,)))
    assert {type(net.first), type(net.second)} == {BLOCKS[name].func}
    invertible = name == "low rank" or FLOWS[name.split(",")[0]].invertible
    x = torch.randn(N, D)
    for y, shape in ((torch.randn(N, K), ()), (each_label(), ()), (each_label(), (S,))):
        d = net(x, y)
        torch.manual_seed(1)
        z = d.rsample(shape)
        log_q = d.log_prob(z)
        torch.manual_seed(1)
        first = net.first(x, y)
        u = first.rsample(shape)
        second = net.second(u, x, y)
        v = second.rsample()
        assert torch.equal(z, torch.cat([u, v], -1))
        assert close(log_q, first.log_prob(u) + second.log_prob(v))
        if invertible:
            assert close(d.log_prob(z.clone()), log_q, tolerance=1e-7)
        else:
            with pytest.raises(ValueError, match="has no inverse"):
                d.log_prob(z.clone())
        assert d.mean.shape == (*d.batch_shape, 5)
    expanded = net(x, each_label()[:, None]).expand((K, S, N))
    z = expanded.rsample()
    assert z.shape == (K, S, N, 5)
    assert expanded.log_prob(z).shape == (K, S, N)


LOW, HIGH = -1.0, 2.0


@every(CASES)
def test_bounded_flow_is_the_change_of_variables(flow: str, amortised: bool) -> None:
    """log q of a draw in the box, with autograd's Jacobian of the whole map from the Gaussian; one event dimension."""
    unbounded = partial(FlowNet, flow=flow, amortised=amortised)
    net = shaken(BoundedNormalNet((D, K), L, LOW, HIGH, unbounded=unbounded, hidden=(6,)))
    for name, condition in CONDITIONS.items():
        d = condition(net)
        state = torch.get_rng_state()
        z = d.rsample()
        log_q = d.log_prob(z)
        torch.set_rng_state(state)
        u = d.base_dist.base_dist.rsample()

        def whole(u: Tensor, inner: Flow = d.base_dist) -> Tensor:
            return LOW + (HIGH - LOW) * torch.sigmoid(inner.push(u)[0])

        columns = jacobian(lambda v: whole(v).flatten(0, -2).sum(0), u)
        expected = d.base_dist.base_dist.log_prob(u) - torch.linalg.slogdet(columns.movedim(0, -2))[1]
        assert d.event_shape == (L,)
        assert z.shape == (*BATCH[name], L)
        assert close(z, whole(u))
        assert close(log_q.detach(), expected.detach(), flow), name
        assert ((z > LOW) & (z < HIGH)).all()
        if FLOWS[flow].invertible:
            assert close(d.log_prob(z.clone()), log_q, tolerance=1e-7)
        else:
            with pytest.raises(ValueError, match="has no inverse"):
                d.log_prob(z.clone())
    assert close(central_value(d), whole(d.base_dist.base_dist.mean))
