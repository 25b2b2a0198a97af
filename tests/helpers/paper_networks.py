"""The papers' own networks, small and with random weights, and rows for them.

`networks` draws the latents as usual; `with_fixed_draws` draws the same numbers at every call, so that a bound can be
compared to rounding. The prior of y is not uniform, and the widths differ from each other, so that a bound that takes
one for another is not right by accident.
"""

from typing import Any

import torch
from semipyro.distributions import BlockNormalNet
from semipyro.inference import Objective
from semipyro.papers import PAPERS
from torch import Tensor, nn

from helpers.conditionals import FixedDraw, swapped

PRIOR = [0.4, 0.15, 0.25, 0.2]  # K = 4
WIDTHS = {"z_dim": 8, "a_dim": 2, "z1_dim": 8, "z2_dim": 2, "zy_dim": 7}  # unlike K = 4, D = 5 and S = 3
LATENTS = {"q_a": "a_dim", "q_z": "z_dim", "q_z1": "z1_dim", "q_z2": "z2_dim"}  # factors whose draws are fixed
WIDTHS_BY_PAPER = {  # the names of the widths that a paper has, where z_dim is not the only one
    **dict.fromkeys(["adgm-workshop", "adgm", "adgm-deterministic", "sdgm", "agm-dgm"], ("z_dim", "a_dim")),
    "cagem": ("z1_dim", "z2_dim"),
    "appendix-c": ("z_dim", "zy_dim"),
}


def networks(name: str, *, D: int = 5, K: int = 4, S: int = 1, **settings: Any) -> Objective:
    """A paper's own networks with random weights and, where it has one, a prior of y that is not uniform."""
    widths = {width: WIDTHS[width] for width in WIDTHS_BY_PAPER.get(name, ("z_dim",))}
    alone = {"batch_norm": False} if name == "cagem" else {}  # with it, a row's terms would depend on the others
    objective = PAPERS[name].build(D, K, **{"hidden": (6,), "num_samples": S, **widths, **alone, **settings})
    for parameter in objective.parameters():
        nn.init.normal_(parameter, std=0.3)
    if hasattr(objective.model, "y_prior"):
        objective.model.y_prior.copy_(torch.tensor(PRIOR[:K]) / sum(PRIOR[:K]))
    return objective


def with_fixed_draws(name: str, *, S: int = 1, **settings: Any) -> Objective:
    """The paper's `networks`, with fixed draws of the continuous latents: every bound is a number without chance."""
    objective = networks(name, S=S, **settings)
    for factor, width in LATENTS.items():
        if hasattr(objective.guide, factor):
            fix(objective.guide, factor, S, {**WIDTHS, **settings}[width])
    return objective


def fix(guide: nn.Module, factor: str, S: int, width: int) -> None:
    """Replaces a factor of the guide, in place, by one whose S draws are fixed."""
    net, generator = getattr(guide, factor), torch.Generator().manual_seed(len(factor) * width)
    noise = torch.randn(S, width, generator=generator)
    if isinstance(net, BlockNormalNet):
        first, second = noise.split(net.dims, -1)
        net.first, net.second = FixedDraw(net.first, first), FixedDraw(net.second, second)
    else:
        setattr(guide, factor, FixedDraw(net, noise))


def rows(N_l: int = 6, N_u: int = 7, D: int = 5, K: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Binary rows with labels, their one-hot labels, and binary rows without."""
    generator = torch.Generator().manual_seed(5)
    x = torch.bernoulli(torch.full((N_l + N_u, D), 0.5), generator=generator)
    y = torch.eye(K)[torch.randint(K, (N_l,), generator=generator)]
    return x[:N_l], y, x[N_l:]


def batch_of(name: str) -> tuple[Any, Any, Tensor]:
    """The `rows` that a paper takes: those without labels alone, where it has no classes."""
    return rows() if PAPERS[name].classifies else (None, None, rows()[2])


def with_swap(objective: Objective, factor: str, i: int, j: int) -> None:
    """Exchanges arguments i and j of a factor such as "guide.q_z", in place."""
    side, name = factor.split(".")
    owner: nn.Module = getattr(objective, side)
    net = getattr(owner, name)
    changed = FixedDraw(swapped(net.net, i, j), net.noise.rows) if isinstance(net, FixedDraw) else swapped(net, i, j)
    setattr(owner, name, changed)


def random_weights(net: nn.Module) -> Any:
    """The network itself, after its parameters were drawn from N(0, 0.5²)."""
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net
