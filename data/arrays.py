"""The user's own data, from an ``.npz``."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .checks import count_classes, finite_rows, first, generator, labels
from .dataset import Dataset, Split
from .files import read_npz
from .splits import hold_out, three_way

SEED = 0


def from_npz(path: Path, num_classes: int | None = None) -> Dataset:
    """A data set of K classes from the arrays ``x``, ``y``, ``x_test`` and ``y_test`` of an archive (see ``load``)."""
    arrays = read_npz(path, ("x", "y", "x_test", "y_test"))
    if "x" not in arrays:
        raise ValueError(f"{path} must hold an array 'x', got none; write it with numpy.savez(path, x=..., y=...)")
    _check_pairs(path, arrays)
    x, y = _rows(path, "x", arrays), _labels(path, "y", arrays)
    if "x_test" in arrays:
        test = Split(_rows(path, "x_test", arrays), _labels(path, "y_test", arrays))
        _check_test(path, arrays, test)
        num_classes = _num_classes(path, torch.cat([y, test.y]), num_classes)
        parts = *hold_out(x, y, fraction=1 / 5, random=generator(SEED)), test
    else:
        num_classes = _num_classes(path, y, num_classes)
        parts = three_way(x, y, seed=SEED)
    return Dataset(path.stem, *parts, num_classes=num_classes, shape=arrays["x"].shape[1:])


def _check_pairs(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    if "y_test" in arrays and not {"y", "x_test"} <= set(arrays):
        raise ValueError(
            f"{path} must hold y_test only together with y and x_test, got {sorted(arrays)}; add them, or leave y_test "
            "out"
        )
    if {"y", "x_test"} <= set(arrays) and "y_test" not in arrays:
        raise ValueError(
            f"{path} must hold x_test only together with y_test, since it has y, got {sorted(arrays)}; add y_test, or "
            "leave x_test out"
        )


def _check_test(path: Path, arrays: dict[str, NDArray[Any]], test: Split) -> None:
    expected, found = arrays["x"].shape[1:], arrays["x_test"].shape[1:]
    if expected != found:
        raise ValueError(f"{path}: x_test must have rows of shape {expected}, as x has, got {found}")
    unknown = int((test.y < 0).sum())
    if "y_test" in arrays and unknown:
        raise ValueError(f"{path}: y_test must give every row a class, got {unknown} of -1; move these rows to x")


def _num_classes(path: Path, y: Tensor, num_classes: int | None) -> int:
    """K; a ValueError where it is not given and a class below the largest has no row, or where it is out of reach."""
    k = count_classes(f"{path}: y", y, num_classes)
    if num_classes is None and (bare := sorted(set(range(k)) - set(y.tolist()))):
        raise ValueError(
            f"{path}: y must have rows of all classes from 0 to {k - 1}, got none of {first(bare)}; number the classes "
            f"without gaps, or give load num_classes={k} if so meant"
        )
    return k


def _rows(path: Path, key: str, arrays: dict[str, NDArray[Any]]) -> Tensor:
    """Rows of any shape, flattened to (N, D) float32."""
    array = arrays[key]
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: {key} must be numbers, got {array.dtype}")
    if array.ndim < 2 or not array.size:
        raise ValueError(f"{path}: {key} must be of shape (N, D) or (N, ...) and not empty, got {array.shape}")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, which is refused below
        x = torch.from_numpy(array.reshape(len(array), -1).astype(np.float32))
    finite_rows(f"{path}: {key}", x)
    return x


def _labels(path: Path, key: str, arrays: dict[str, NDArray[Any]]) -> Tensor:
    rows = len(arrays["x_test" if key == "y_test" else "x"])
    if key not in arrays:
        return torch.full((rows,), -1)
    return labels(f"{path}: {key}", arrays[key], length=rows)
