"""The training of one objective on rows, some of which have labels."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

from ..data import Batches, batches
from ..inference import Objective, fit
from .labels import HeldOut

STEPS, LEAST_EPOCHS = 2000, 20  # where `epochs` is None, there are as many epochs as it takes to have both

History: TypeAlias = list[dict[str, float]]  # a mapping per epoch, as `inference.fit` returns them


def train(
    objective: Objective,
    x: Tensor,
    y: Tensor | None,
    held_out: HeldOut | None,
    *,
    num_classes: int,
    epochs: int | None,
    batch_size: int,
    patience: int,
    seed: int,
    transform: Callable[[Tensor], Tensor] | None = None,
    **settings: Any,
) -> History:
    """Trains the objective, in place.

    Args:
        objective: with its model and guide.
        x: (N, D), in single precision.
        y: (N,) codes, -1 where unknown; None for an objective without labels.
        held_out: rows to stop by. The training stops when their accuracy no longer rises, or where they have no
            labels, their bound; the weights of the best epoch are kept.
        num_classes: K.
        epochs: passes over the rows; None for as many as give 2,000 steps, 20 at least.
        batch_size: rows in a batch, and as many labelled rows beside them.
        patience: epochs without a new best, before the training stops.
        seed: of the batches.
        transform: what becomes of the rows of every batch.
        settings: further keywords of `inference.fit`.
    """
    rows = make_batches(x, y, num_classes=num_classes, batch_size=batch_size, transform=transform, seed=seed)
    epochs = max(LEAST_EPOCHS, math.ceil(STEPS / len(rows))) if epochs is None else epochs
    if held_out is not None:
        monitor = "unlabelled" if held_out[1] is None else "accuracy"
        settings |= {"monitor": monitor, "patience": patience, "restore_best": True}
    return fit(objective, rows, epochs=epochs, validation=held_out, **settings)


def make_batches(x: Tensor, y: Tensor | None, *, num_classes: int, batch_size: int, **settings: Any) -> Batches:
    """Batches of all rows without their labels, and beside them as many rows with labels, where there are some."""
    if y is None or not bool((y >= 0).any()):
        return batches(
            x, None, labelled_batch_size=0, unlabelled_batch_size=batch_size, include_labelled=True, **settings
        )
    missing = sorted(set(range(num_classes)) - set(y.tolist()))
    return batches(
        x, y, labelled_batch_size=batch_size, unlabelled_batch_size=batch_size, include_labelled=True,
        num_classes=num_classes, hidden_classes=missing, **settings,
    )  # fmt: skip
