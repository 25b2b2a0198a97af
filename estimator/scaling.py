"""Columns in units of their standard deviation, and how finely they were recorded.

A column of values that are multiples of δ was recorded to within δ: its density p says of a value that it has the
probability p δ, which is at most 1. For a Gaussian that is

    p ≤ 1 / (σ √(2π)) ≤ 1 / δ        ⇔        σ ≥ δ / √(2π)

Without this bound the σ of columns of zeros and ones, of counts and of one-hot codes runs to zero, where such a column
weighs more than all that was measured.

Shapes: X, x (N, D), in units of the data and of standard deviations.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ..distributions.conditionals import MIN_SCALE

FARTHEST = 1e9  # standard deviations from the mean; what lies farther away is taken to lie there
ROUNDING = 1e-6  # standard deviations that two values differ by when they are the same but for rounding


def fit_scaler(X: NDArray[Any]) -> StandardScaler:
    """The mean and the standard deviation of each column.

    Raises:
        ValueError: a column whose squares are too large or too small for a number.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scaler = StandardScaler().fit(X)
        lost = (scaler.var_ == 0) & (X.max(0) > X.min(0))
    wrong = ~np.isfinite(scaler.mean_) | ~np.isfinite(scaler.var_) | lost
    if wrong.any():
        column = int(wrong.argmax())
        raise ValueError(f"X must have columns whose variance is a number, got values from {X[:, column].min():g} to "
                         f"{X[:, column].max():g} in column {column}; choose other units for it")  # fmt: skip
    return scaler


def scaled(X: NDArray[Any], scaler: StandardScaler | None) -> Tensor:
    """X as the networks see it, in single precision and at most `FARTHEST` in size."""
    with np.errstate(over="ignore"):
        x = X if scaler is None else scaler.transform(X)
    return torch.tensor(np.clip(x, -FARTHEST, FARTHEST).astype(np.float32))


def is_farthest(x: Tensor) -> Tensor:
    """Whether a row has a value that may lie farther away than it says, (N,)."""
    return (x.abs() >= FARTHEST).any(1)


def least_scales(x: Tensor) -> list[float] | None:
    """The least σ of each column: δ / √(2π) of the smallest step δ between its values, or 10⁻⁴ where that is more.

    Where no value comes twice, a column has no step. None where no column has more than 10⁻⁴, which is what `NormalNet`
    has anyway.
    """
    found = [max(MIN_SCALE, _step(column) / math.sqrt(2 * math.pi)) for column in x.sort(0).values.T]
    return found if max(found) > MIN_SCALE else None


def _step(values: Tensor) -> float:
    """The smallest step between sorted values of which some are equal, but for rounding; 0 where there is none."""
    steps = values.diff()
    larger = steps[steps > ROUNDING]
    return float(larger.min()) if 0 < len(larger) < len(steps) else 0.0
