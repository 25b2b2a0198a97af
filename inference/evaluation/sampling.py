"""Samples of a model, of all classes or of given ones, also where the class depends on a latent."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.nn.functional import one_hot

from ... import contract
from ...checks import check_counts
from ...contract import Model
from ...modules import evaluating, module_tensor
from ...threads import ONE_AT_A_TIME
from ..objectives.checks import check_one_hot
from .measures import ROWS

ROUNDS = 1000  # of draws from the model, at most, in search of a class


@ONE_AT_A_TIME
def sample(
    model: Model,
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
    check_counts(n=n)
    if y is not None:
        check_one_hot(y, "y", rows=n, num_classes=contract.num_classes(model))
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
    _check_site(nodes, "x", *given)
    site = nodes["x"]
    return site["fn"].mean if mean else site["value"]


@ONE_AT_A_TIME
def sample_classes(model: Model, y: Tensor, num_classes: int) -> Tensor:
    """A draw from p(x | y_n) for each n, (N, D).

    Args:
        model: p.
        y: (N,), integers.
        num_classes: K.

    Raises:
        ValueError: the model hardly ever draws one of the classes.
    """
    found, missing = draw_classes(model, y, num_classes)
    if missing.any():
        label, drawn = y[missing][0].item(), ROUNDS * max(len(y), ROWS)
        raise ValueError(f"the model hardly ever draws class number {label}: too few in {drawn:,} rows")
    return found


@ONE_AT_A_TIME
def draw_classes(
    model: Model, y: Tensor, num_classes: int, *, mean: bool = False, rounds: int | None = None
) -> tuple[Tensor, Tensor]:
    """A draw from p(x | y_n) for each n, (N, D), and which rows were not found, (N,); these are NaN.

    Where p(y) is a constant, y is given to the model. Where y depends on a latent, the latent would then be drawn as
    if y were not known; so the latents, y and x are drawn together, until every class has come up often enough, and
    the rows with y = k are draws from p(x | y = k).

    Args:
        model: p.
        y: (N,), integers.
        num_classes: K.
        mean: the mean of p(x | …) given the latents that were drawn, and not a draw.
        rounds: after how many rounds, of 2,000 rows or N, the search for classes ends; ROUNDS unless given.

    Raises:
        ValueError: the model has no site y, or another number of classes.
    """
    like = module_tensor(model)
    if contract.class_prior(model) is not None:
        drawn = sample(model, len(y), one_hot(y, num_classes).to(like), mean=mean)
        return drawn, torch.zeros(len(y), dtype=torch.bool)
    found, missing = like.new_zeros(len(y), 0), torch.ones(len(y), dtype=torch.bool)
    with evaluating(model):
        for _ in range(ROUNDS if rounds is None else rounds):
            nodes = _forward(model, max(len(y), ROWS), like, num_classes)
            x = nodes["x"]["fn"].mean if mean else nodes["x"]["value"]
            found = found if found.shape[1] else torch.full_like(x[: len(y)], torch.nan)
            _take(found, missing, y, x, nodes["y"]["value"].argmax(-1))
            if not missing.any():
                break
    return found, missing


def _take(found: Tensor, missing: Tensor, y: Tensor, x: Tensor, drawn_y: Tensor) -> None:
    """Fills the missing rows with the x that were drawn beside their classes, as far as they go."""
    for k in y[missing].unique():
        wanted, those = (missing & (y == k)).nonzero().flatten(), (drawn_y == k).nonzero().flatten()
        found[wanted[: len(those)]] = x[those[: len(wanted)]]
        missing[wanted[: len(those)]] = False


def _forward(model: Model, n: int, like: Tensor, num_classes: int) -> Any:
    """The sites of n rows that the model draws; a ValueError unless a y of so many classes is among them."""
    nodes: Any = poutine.trace(poutine.uncondition(model)).get_trace(like.new_empty(n, 0)).nodes
    _check_site(nodes, "y")
    if (found := nodes["y"]["fn"].event_shape[0]) != num_classes:
        raise ValueError(f"num_classes must be {found}, as many as the model has, got {num_classes}")
    return nodes


def _check_site(nodes: Mapping[str, Any], *names: str) -> None:
    if unknown := sorted({*names} - nodes.keys()):
        raise ValueError(f"the model has no site {' or '.join(unknown)}, only {', '.join(_sites(nodes))}; "
                         f"{contract.PAGE} shows one that has them all")  # fmt: skip


def _sites(nodes: Mapping[str, Any]) -> list[str]:
    return [name for name, node in nodes.items() if node["type"] == "sample" and name != "data"]
