"""What an objective asks of its arguments. Shapes are checked always, values while Pyro's validation is on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pyro import validation_enabled
from pyro.infer.util import is_validation_enabled
from torch import Tensor

from ... import contract
from ...checks import check_counts


@contextmanager
def unchecked() -> Iterator[None]:
    """Inside, Pyro checks neither sites nor values."""
    with validation_enabled(False):
        yield


def check_rows(x: Tensor, name: str) -> None:
    """A (N, D) tensor of real, finite numbers, N > 0; a ValueError otherwise."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a (N, D) tensor of floats, got {type(x).__name__}; use torch.as_tensor")
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"{name} must be a (N, D) tensor of floats, got shape {tuple(x.shape)} of {x.dtype}")
    if len(x) == 0:
        raise ValueError(f"{name} has no rows; pass None to leave its terms out")
    if is_validation_enabled() and not bool(torch.isfinite(x).all()):
        bad = (~torch.isfinite(x).all(dim=1)).sum().item()
        raise ValueError(f"{name} holds NaN or infinity in {bad} of {len(x)} rows; remove or impute them")


def check_labels(y: Tensor, x: Tensor, num_classes: int | None, name: str) -> None:
    """As many integer labels as x has rows, -1 where unlabelled, below K where it is known; a ValueError otherwise."""
    if not isinstance(y, Tensor) or y.shape != (len(x),) or y.is_floating_point():
        raise ValueError(f"{name} must be {len(x)} integer labels, got {_described(y)}")
    if y.min() < -1 or (num_classes is not None and y.max() >= num_classes):
        least, most = y.min().item(), y.max().item()
        top = "K-1" if num_classes is None else num_classes - 1
        raise ValueError(f"{name} must hold labels 0 to {top}, or -1 where unlabelled, got {least} to {most}")


def check_one_hot(y: Tensor, name: str, *, rows: int, num_classes: int | None) -> None:
    """A (N, K) tensor of one-hot rows, N = `rows`, K = `num_classes` where it is known; a ValueError otherwise."""
    if not isinstance(y, Tensor) or y.ndim != 2 or not y.is_floating_point():
        raise ValueError(
            f"{name} must be one-hot, a (N, K) tensor of floats, got {_described(y)}; "
            "turn integer labels into one-hot rows with torch.nn.functional.one_hot(y, K).float()"
        )
    if len(y) != rows:
        raise ValueError(f"{name} has {len(y)} rows, expected {rows}")
    if num_classes is not None and y.shape[1] != num_classes:
        expected = (
            f"the model has {num_classes}; give it rows of {num_classes}, as batches(..., num_classes=) makes them"
        )
        raise ValueError(f"{name} has {y.shape[1]} classes, but {expected}")
    if is_validation_enabled() and not bool((((y == 0) | (y == 1)).all(dim=1) & (y.sum(dim=1) == 1)).all()):
        raise ValueError(f"{name} must be one-hot: a single 1 in each row and 0 elsewhere")


def check_sums(summed_classes: object, model: object, guide: object) -> None:
    """A positive integer, for a y that is summed outside of any logarithm; a ValueError otherwise."""
    check_counts(summed_classes=summed_classes)
    if contract.leaves_y_to_model(guide):
        raise ValueError(
            "summed_classes must be None where y is summed inside a logarithm, as in this bound, whose guide leaves y "
            "to the model: the logarithm of a part of the sum would be biased"
        )
    if not (contract.classifies(guide) or contract.declares_classes(model)):
        raise ValueError(f"summed_classes must be None for {type(model).__name__}, which has no y to sum over")


def _described(thing: object) -> str:
    return f"shape {tuple(thing.shape)} of {thing.dtype}" if isinstance(thing, Tensor) else type(thing).__name__
