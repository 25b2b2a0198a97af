"""Labels and classes: which classes there are, what their numbers are, and which rows training must not lose.

Labels are integers, whole floats, booleans or strings, as `data.labels` reads them. Inside, a label is the place of its
class in `classes_`, its code, and -1 where it is unknown.
"""

import math
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .randomness import NUM_SEEDS

HeldOut: TypeAlias = tuple[Tensor, Tensor | None]  # rows held out for early stopping, with codes if any


def find_classes(labels: NDArray[Any], extra_classes: int = 0) -> NDArray[Any]:
    """The labels that occur, sorted, and after them names for the extra classes.

    Beside integers, or without any label, the names are the next integers from 0 on; beside strings they are
    "extra 1", "extra 2", … A name that is taken is left out, and so is -1.

    Raises:
        ValueError: there is no label, and fewer than two extra classes.
    """
    if not len(labels) and extra_classes < 2:
        raise ValueError("y has no label: every row is -1, None or NaN. Give some rows their class, or let "
                         "model='gm-dgm' find clusters, with extra_classes=K for K of them")  # fmt: skip
    classes = np.unique(labels)
    if not extra_classes:
        return classes
    if not len(classes) or classes.dtype.kind in "iufb":
        first = max(int(classes.max()) + 1, 0) if len(classes) else 0  # so that no class is named -1
        return np.concatenate([classes.astype(int), np.arange(first, first + extra_classes)])
    names = (f"extra {n + 1}" for n in range(extra_classes + len(classes)))
    return np.concatenate([classes, [name for name in names if name not in classes][:extra_classes]])


def encode_labels(labels: NDArray[Any], classes: NDArray[Any], name: str = "y") -> NDArray[Any]:
    """The code of each label.

    Raises:
        ValueError: a label is not among the classes; the message calls the labels by their argument's name.
    """
    codes = {label: code for code, label in enumerate(classes.tolist())}
    try:
        return np.array([codes[label] for label in labels.tolist()], dtype=int)
    except KeyError as error:
        raise ValueError(f"{name} has the label {error.args[0]!r}, which is not among classes_, "
                         f"{classes.tolist()}") from error  # fmt: skip


def encode_rows(known: NDArray[np.bool_], labels: NDArray[Any], classes: NDArray[Any], name: str = "y") -> Tensor:
    """The code of each row, (N,), from what `known_labels` returns: where a row has a label, and those labels."""
    codes = np.full(len(known), -1)
    codes[known] = encode_labels(labels, classes, name)
    return torch.as_tensor(codes)


def hold_out(x: Tensor, y: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor, HeldOut]:
    """Rows to learn from, their codes, and rows held out for early stopping.

    Rows without a label are held out. Where all rows have one, any are, except the first row of each class.

    Raises:
        ValueError: there is no such row.
    """
    free = (y < 0).nonzero().flatten()
    if not len(free):
        free = _all_but_the_first_of_each_class(y)
    if not len(free):
        raise ValueError("early_stopping has no row to hold out; leave it out, or give more rows than classes")
    order = torch.as_tensor(np.random.RandomState(seed % NUM_SEEDS).permutation(len(free)))
    held = torch.zeros(len(x), dtype=torch.bool)
    held[free[order[: math.ceil(fraction * len(free))]]] = True
    return x[~held], y[~held], (x[held], None)


def _all_but_the_first_of_each_class(y: Tensor) -> Tensor:
    first = {int(code): row for row, code in reversed(list(enumerate(y.tolist())))}
    return torch.tensor(sorted(set(range(len(y))) - set(first.values())), dtype=torch.long)
