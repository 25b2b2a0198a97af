"""What the papers' bounds are written with in plain torch, and how they are compared with those that Pyro computes."""

import math
from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from semipyro.distributions import BlockNormalNet
from semipyro.inference import Objective
from semipyro.papers import PAPERS
from torch import Tensor, nn
from tractable import Conditional, FixedDraw

ROUNDING = 1e-10
SIGMAS = 5
PRIOR = [0.4, 0.15, 0.25, 0.2]  # K = 4
WIDTHS = {"z_dim": 8, "a_dim": 2, "z1_dim": 8, "z2_dim": 2, "zy_dim": 7}  # unlike K = 4, D = 5 and S = 3
LATENTS = {"q_a": "a_dim", "q_z": "z_dim", "q_z1": "z1_dim", "q_z2": "z2_dim"}  # factors whose draws are fixed
SETTINGS = {  # the widths that a paper has, where they are not z's alone
    **dict.fromkeys(["adgm-workshop", "adgm", "adgm-deterministic", "sdgm", "agm-dgm"], ("z_dim", "a_dim")),
    "cagem": ("z1_dim", "z2_dim"),
    "appendix-c": ("z_dim", "zy_dim"),
}


def close(a: Tensor | float, b: Tensor | float) -> bool:
    return bool(torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=ROUNDING, atol=ROUNDING))


def agrees(draws: Tensor, expected: Tensor | float, sigmas: float = SIGMAS) -> bool:
    """Whether the mean of independent draws is `expected`, within standard errors estimated from the draws."""
    return bool(((draws.mean(0) - expected).abs() <= sigmas * draws.std(0) / len(draws) ** 0.5).all())


# Objectives


def networks(name: str, *, D: int = 5, K: int = 4, S: int = 1, **settings: Any) -> Objective:
    """A paper's own networks with random weights and, where it has one, a prior of y that is not uniform."""
    widths = {width: WIDTHS[width] for width in SETTINGS.get(name, ("z_dim",))}
    plain = {"batch_norm": False} if name == "cagem" else {}  # with it, a row's terms would depend on the others
    objective = PAPERS[name].build(D, K, **{"hidden": (6,), "num_samples": S, **widths, **plain, **settings})
    for parameter in objective.parameters():
        nn.init.normal_(parameter, std=0.3)
    if hasattr(objective.model, "y_prior"):
        objective.model.y_prior.copy_(torch.tensor(PRIOR[:K]) / sum(PRIOR[:K]))
    return objective


def perceptrons(name: str, *, S: int = 1, **settings: Any) -> Objective:
    """The same with fixed draws of the continuous latents, so that every bound is a number without chance."""
    objective = networks(name, S=S, **settings)
    for factor, width in LATENTS.items():
        if hasattr(objective.guide, factor):
            fix(objective.guide, factor, S, {**WIDTHS, **settings}[width])
    return objective


def fix(guide: nn.Module, factor: str, S: int, width: int) -> None:
    """Fixes the S draws from a conditional."""
    net, noise = (
        getattr(guide, factor),
        torch.randn(S, width, generator=torch.Generator().manual_seed(len(factor) * width)),
    )
    if isinstance(net, BlockNormalNet):
        first, second = noise.split(net.dims, -1)
        net.first, net.second = FixedDraw(net.first, first), FixedDraw(net.second, second)
    else:
        setattr(guide, factor, FixedDraw(net, noise))


def rows(N_l: int = 6, N_u: int = 7, D: int = 5, K: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.bernoulli(torch.full((N_l + N_u, D), 0.5), generator=generator)
    y = torch.eye(K)[torch.randint(K, (N_l,), generator=generator)]
    return x[:N_l], y, x[N_l:]


def swapped(net: nn.Module, first: int = 0, second: int = 1) -> nn.Module:
    """The conditional with two of its arguments exchanged."""

    def exchanged(*conditions: Tensor) -> Any:
        order = list(conditions)
        order[first], order[second] = order[second], order[first]
        return net(*order)

    conditional = Conditional(exchanged)
    conditional.net = net  # its parameters stay the objective's
    return conditional


def with_swap(objective: Objective, factor: str, i: int, j: int) -> None:
    """Exchanges arguments i and j of a factor such as "guide.q_z", in place."""
    side, name = factor.split(".")
    owner: nn.Module = getattr(objective, side)
    net = getattr(owner, name)
    changed = FixedDraw(swapped(net.net, i, j), net.noise.rows) if isinstance(net, FixedDraw) else swapped(net, i, j)
    setattr(owner, name, changed)


# Densities


def log_normal(z: Tensor, mean: Tensor | float, scale: Tensor | float) -> Tensor:
    """log N(z; mean, scale²), summed over dimensions."""
    scale = torch.as_tensor(scale)
    return (-(((z - mean) / scale) ** 2) / 2 - scale.log() - math.log(2 * math.pi) / 2).sum(-1)


def log_bernoulli(x: Tensor, p: Any) -> Tensor:
    """x log μ + (1 − x) log(1 − μ), summed over dimensions."""
    logits = p.base_dist.logits
    return (x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum(-1)


def log_gaussian(z: Tensor, p: Any) -> Tensor:
    """log N(z; μ, σ²) for the μ and σ of a conditional's Gaussian."""
    return log_normal(z, p.base_dist.loc, p.base_dist.scale)


def log_classes(p: Any) -> Tensor:
    """The logarithm of a conditional's class probabilities: (..., K)."""
    return p.logits - torch.logsumexp(p.logits, -1, keepdim=True)


def drawn(conditional: FixedDraw, s: int, *conditions: Tensor) -> tuple[Tensor, Tensor]:
    """Draw s of a Gaussian conditional, μ + σ ε_s, and its log-density."""
    normal = conditional.net(*conditions).base_dist
    z = normal.loc + normal.scale * conditional.noise.rows[s]
    return z, log_normal(z, normal.loc, normal.scale)


def each_class(K: int, n: int) -> list[Tensor]:
    """The classes as one-hot rows, one after the other: K of (n, K)."""
    return [torch.eye(K)[k].expand(n, K) for k in range(K)]


# Comparison


def gradients(loss: Tensor, objective: Objective) -> dict[str, Tensor]:
    """The gradient of every parameter, by name; zero where there is none."""
    named = dict(objective.named_parameters())
    values = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {name: torch.zeros_like(named[name]) if g is None else g for name, g in zip(named, values, strict=True)}


def moving(loss: Tensor, objective: Objective) -> set[str]:
    """The factors of which a parameter has a gradient, such as "guide.q_y"."""
    return {".".join(name.split(".")[:2]) for name, g in gradients(loss, objective).items() if (g != 0).any()}


def differences(
    objective: Objective, batch: tuple[Any, Any, Any], hand: dict[str, Tensor], but: Collection[str] = ()
) -> list[str]:
    """Which terms, but for these, and whose gradients are not what was computed by hand."""
    for module in objective.modules():
        if isinstance(module, FixedDraw):
            module.noise.turn = 0
    terms = objective(*batch)
    assert set(terms) == set(hand)
    mine, theirs = gradients(hand["loss"], objective), gradients(terms["loss"], objective)
    found = [name for name in terms if name not in but and not close(terms[name], hand[name])]
    return found + [name for name in mine if not close(mine[name], theirs[name])]
