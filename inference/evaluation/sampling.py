"""Samples of any model, also of given classes where the class depends on a latent."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ...modules import evaluating, module_tensor
from ..objectives.checks import check_one_hot
from .measures import ROWS

ROUNDS = 1000  # of draws from the model, at most, in search of a class


def sample(
    model: nn.Module,
    n: int,
    y: Tensor | None = None,
    *,
    latents: Mapping[str, Tensor] | None = None,
    mean: bool = False,
) -> Tensor:
    """n draws of x from the model run forward, (n, D).

    Args:
        model: p, called as `model(x)`.
        n: how many.
        y: one-hot (n, K) classes; None to draw them.
        latents: values of other sites, by name, such as {"z": (n, L)}.
        mean: return the mean of p(x | …) given the latents, and not a draw.

    Raises:
        ValueError: n is not a positive integer, y or a latent does not have n rows, or the model has no such site.
    """
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n must be a positive integer, got {n!r}")
    if y is not None:
        check_one_hot(y, "y", rows=n, num_classes=getattr(model, "y_dim", None))
    like = module_tensor(model)
    given = {
        name: value.to(like.device) for name, value in {**(latents or {}), **({} if y is None else {"y": y})}.items()
    }
    for name, value in given.items():
        if len(value) != n:
            raise ValueError(f"{name} has {len(value)} rows, but n = {n}")
    forward = poutine.condition(poutine.uncondition(model), data=given)
    with evaluating(model):
        nodes: Any = poutine.trace(forward).get_trace(like.new_empty(n, 0)).nodes
    if unknown := given.keys() - nodes.keys():
        raise ValueError(f"the model has no site {' or '.join(sorted(unknown))}, only {', '.join(_sites(nodes))}")
    site = nodes["x"]
    return site["fn"].mean if mean else site["value"]


def sample_classes(model: Any, y: Tensor, num_classes: int) -> Tensor:
    """A draw from p(x | y_n) for each n, (N, D).

    Where y depends on a latent, p(x | y) is reached by drawing y too, until every class has come up often enough.

    Args:
        model: p.
        y: (N,), integers.
        num_classes: K.

    Raises:
        ValueError: the model hardly ever draws one of the classes.
    """
    if "y_prior" in dict(model.named_buffers()):
        return sample(model, len(y), one_hot(y, num_classes).to(module_tensor(model)))
    found, missing = torch.zeros(len(y), 0), torch.ones(len(y), dtype=torch.bool)
    like, rows = module_tensor(model), max(len(y), ROWS)
    for _ in range(ROUNDS):
        nodes: Any = poutine.trace(poutine.uncondition(model)).get_trace(like.new_empty(rows, 0)).nodes
        x, drawn_y = nodes["x"]["value"], _class_of(model, nodes)
        found = found if found.shape[1] else x.new_zeros(len(y), x.shape[1])
        for k in y[missing].unique():
            wanted, those = (missing & (y == k)).nonzero().flatten(), (drawn_y == k).nonzero().flatten()
            found[wanted[: len(those)]] = x[those[: len(wanted)]]
            missing[wanted[: len(those)]] = False
        if not missing.any():
            return found
    label = y[missing][0].item()
    raise ValueError(f"the model hardly ever draws class number {label}: too few in {ROUNDS * rows:,} rows")


def _class_of(model: Any, nodes: Mapping[str, Any]) -> Tensor:
    """The classes that were drawn beside x, or are drawn now, where x does not depend on them, (N,)."""
    y = nodes["y"]["value"] if "y" in nodes else model.p_y(nodes["z"]["value"]).sample()
    return y.argmax(-1)


def _sites(nodes: Mapping[str, Any]) -> list[str]:
    return [name for name, node in nodes.items() if node["type"] == "sample" and name != "data"]
