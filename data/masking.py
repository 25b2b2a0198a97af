"""Hiding labels, class by class."""

from collections.abc import Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..checks import check_counts
from .checks import classes, generator, labels
from .splits import class_sizes, pick


def mask_labels(
    y: Any,
    *,
    per_class: int | None = None,
    fraction: float | None = None,
    hidden_classes: Iterable[int] = (),
    seed: int = 0,
) -> Tensor:
    """Keep a class-balanced random draw of the labels, and hide the others.

    The same seed with a larger ``per_class`` or ``fraction`` keeps the labels of the smaller one and adds to them.

    Args:
        y: labels, (N,), integers from 0 up; rows that are -1 stay unlabelled.
        per_class: labels to keep of each class; 0 hides all of them (unsupervised learning).
        fraction: the share to keep of each class, in (0, 1], rounded and never less than one label. Give either this or
            ``per_class``.
        hidden_classes: classes that get no label at all (semi-unsupervised learning).
        seed: seed of the draw, which neither reads nor changes the global random state.

    Returns:
        int64, (N,), with -1 where the label is hidden.

    Raises:
        ValueError: both or neither of ``per_class`` and ``fraction``, a ``per_class`` above the labels that a class
            has, an unknown hidden class, no class left, or labels that are not integers.

    >>> y = torch.tensor([0, 0, 1, 1, 2, 2])
    >>> (mask_labels(y, per_class=1, hidden_classes=[2]) >= 0).view(3, 2).sum(1)
    tensor([1, 1, 0])
    """
    y = labels("y", y)
    available = class_sizes(y)
    hidden = classes("hidden_classes", hidden_classes, known=available)
    _check_amount(per_class, fraction)
    if per_class != 0 and not available:
        raise ValueError("y must have a labelled row, got none; give per_class=0 for no labels")
    if per_class != 0 and hidden == set(available):
        raise ValueError(
            f"hidden_classes must leave a class with labels, got all of them, {sorted(hidden)}; hide fewer, or give "
            "per_class=0 for no labels"
        )
    sizes = {k: _size(k, n, per_class, fraction) for k, n in available.items() if k not in hidden}
    return torch.where(pick(y, sizes, generator(seed)), y, -1)


def _check_amount(per_class: int | None, fraction: float | None) -> None:
    if (per_class is None) == (fraction is None):
        raise ValueError(
            f"either per_class or fraction must be given, got per_class={per_class!r} and fraction={fraction!r}"
        )
    if per_class is not None:
        check_counts(0, per_class=per_class)
    elif not isinstance(fraction, Real) or isinstance(fraction, bool) or not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction!r}; give per_class=0 for no labels")


def _size(label: int, rows: int, per_class: int | None, fraction: float | None) -> int:
    if fraction is not None:
        return max(1, round(fraction * rows))
    if per_class is not None and per_class > rows:
        raise ValueError(
            f"per_class must be at most {rows}, the labelled rows of class {label}, got {per_class!r}; "
            f"ask for fewer, or hide the class with hidden_classes=[{label}]"
        )
    return per_class or 0
