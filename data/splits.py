"""Drawing rows class by class, for label masks and held-out sets."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .checks import generator
from .dataset import Split


def class_sizes(y: Tensor) -> dict[int, int]:
    """The number of rows of each class that occurs; -1 is no class.

    >>> class_sizes(torch.tensor([0, 2, 2, -1]))
    {0: 1, 2: 2}
    """
    found, counts = y[y >= 0].unique(return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def pick(y: Tensor, sizes: Mapping[int, int], random: torch.Generator) -> Tensor:
    """Draw ``sizes[k]`` rows of each class k: a mask, (N,) bool."""
    picked = torch.zeros(len(y), dtype=torch.bool)
    for label, size in sizes.items():
        rows = (y == label).nonzero().flatten()
        picked[rows[torch.randperm(len(rows), generator=random)[:size]]] = True
    return picked


def hold_out(x: Tensor, y: Tensor, *, fraction: float, random: torch.Generator) -> tuple[Split, Split]:
    """The rows that are kept, and those held out: ``fraction`` of each class, at least one row where a class has two.

    Unlabelled rows are kept; where no row has a label, rows are drawn without regard to class.
    """
    sizes = class_sizes(y) or {-1: len(y)}
    held = pick(y, {label: max(1, round(fraction * n)) for label, n in sizes.items() if n > 1}, random)
    if not held.any():
        raise ValueError(
            "y must have a class with two labelled rows, one of them to hold out for validation or test, got classes "
            "that have one left at most; label more rows, or leave y out and learn without labels"
        )
    return Split(x[~held], y[~held]), Split(x[held], y[held])


def three_way(x: Tensor, y: Tensor, *, seed: int = 0) -> tuple[Split, Split, Split]:
    """Train, validation and test: three fifths, a fifth and a fifth of each class."""
    random = generator(seed)
    rest, test = hold_out(x, y, fraction=1 / 5, random=random)
    train, validation = hold_out(rest.x, rest.y, fraction=1 / 4, random=random)
    return train, validation, test
