"""Samples of given classes, from any model: also where the class depends on a latent."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.nn.functional import one_hot

from .evaluation import ROWS, module_tensor, sample

ROUNDS = 1000  # of draws from the model, at most, in search of a class


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
