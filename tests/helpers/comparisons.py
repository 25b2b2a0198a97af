"""How what was computed is compared with what was expected: numbers, draws, gradients and statistics.

What has no chance in it is compared to rounding, and a mean of draws within five standard errors.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from semipyro.inference import Objective
from torch import Tensor, nn

from helpers.conditionals import FixedDraw

ROUNDING = 1e-10
SIGMAS = 5


def close(a: Tensor | float, b: Tensor | float) -> bool:
    """Whether two tensors or numbers are equal but for rounding."""
    return bool(torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=ROUNDING, atol=ROUNDING))


def close_arrays(a: Any, b: Any, tolerance: float = 1e-12) -> bool:
    """The same for whatever NumPy takes, such as lists, with a tolerance that the test chooses."""
    return bool(np.allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance))


def agrees(draws: Tensor, expected: Tensor | float, sigmas: float = SIGMAS) -> bool:
    """Whether the mean of independent draws is `expected`, within standard errors estimated from the draws."""
    return bool(((draws.mean(0) - expected).abs() <= sigmas * draws.std(0) / len(draws) ** 0.5).all())


def standard_error(draws: Tensor) -> Tensor:
    """Of the mean of independent draws, estimated from them."""
    return draws.std(0) / len(draws) ** 0.5


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
    """The names of terms, other than those in `but`, and of parameters with a gradient, that are not as by hand."""
    for module in objective.modules():
        if isinstance(module, FixedDraw):
            module.noise.turn = 0
    terms = objective(*batch)
    assert set(terms) == set(hand)
    mine, theirs = gradients(hand["loss"], objective), gradients(terms["loss"], objective)
    found = [name for name in terms if name not in but and not close(terms[name], hand[name])]
    return found + [name for name in mine if not close(mine[name], theirs[name])]


def statistics(objective: nn.Module) -> dict[str, Tensor]:
    """Every running mean, variance and count of the batch norms."""
    names = ("running_mean", "running_var", "num_batches_tracked")
    return {name: value.clone() for name, value in objective.named_buffers() if name.endswith(names)}


def changed(before: dict[str, Tensor], objective: nn.Module) -> set[str]:
    """The names of the statistics that are not what `statistics` gave before."""
    after = statistics(objective)
    return {name for name in before if not torch.equal(before[name], after[name])}
