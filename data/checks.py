"""Checks of what a user passes: it becomes a tensor, or is refused with a ``ValueError`` that says why."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_counts, check_largest_class, most_classes

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def generator(seed: int) -> torch.Generator:
    """A new generator with this seed, so that nothing in ``data`` reads or changes the global random state."""
    check_counts(0, seed=seed)
    if seed >= 2**63:
        raise ValueError(f"seed must be below 2**63, got {seed!r}")
    return torch.Generator().manual_seed(int(seed))


def tensor(name: str, value: Any) -> Tensor:
    """A tensor, detached, or a copy of an array of numbers, which may therefore be read-only or strided."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise ValueError(f"{name} must be a dense tensor, got one of layout {value.layout}; give {name}.to_dense()")
        return value.detach()
    if np.ma.is_masked(value):
        raise ValueError(f"{name} must not hide entries under a mask; fill them, such as labels with {name}.filled(-1)")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers, got {type(value).__name__}: {error}") from error
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise ValueError(f"{name} must be numbers, got an array of {array.dtype}; convert it first")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


def matrix(name: str, value: Any) -> Tensor:
    """A floating (N, D) tensor with at least one row and one column, without NaN and infinity."""
    x = tensor(name, value)
    if x.ndim != 2 or x.dtype not in FLOATS:
        raise ValueError(
            f"{name} must be floating numbers of shape (N, D), got {x.dtype} of shape {tuple(x.shape)}; "
            f"convert with {name}.reshape(len({name}), -1) and to float32"
        )
    if not x.numel():
        raise ValueError(f"{name} must have at least one row and one column, got shape {tuple(x.shape)}")
    finite_rows(name, x)
    return x


def finite_rows(name: str, x: Tensor) -> None:
    """Refuse NaN and infinity in (N, D)."""
    bad = (~torch.isfinite(x).all(dim=1)).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {len(bad)} of {len(x)} rows, the first is row "
            f"{int(bad[0])}; drop these rows or fill them in"
        )


def probabilities(name: str, x: Tensor) -> None:
    """Refuse numbers outside [0, 1], and NaN."""
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise ValueError(
            f"{name} must lie in [0, 1] to be binarised, got values from {float(x.min()):g} to {float(x.max()):g}; "
            "scale it first (pixels of 0 to 255: divide by 255)"
        )


def labels(name: str, value: Any, *, length: int | None = None) -> Tensor:
    """Labels as int64 (N,), -1 or a class from 0 up; ``length`` is the N that is expected."""
    y = tensor(name, value)
    if y.ndim != 1 or y.dtype == torch.bool or y.is_floating_point() or y.is_complex():
        raise ValueError(
            f"{name} must be integer labels of shape (N,), got {y.dtype} of shape {tuple(y.shape)}; "
            "number the classes 0..K-1, with -1 for unlabelled rows"
        )
    if length is not None and len(y) != length:
        raise ValueError(f"{name} must have one label for each of the {length} rows, got {len(y)}")
    unsigned, y = y.dtype == torch.uint64, y.cpu().long()
    if unsigned and bool((y < 0).any()):
        raise ValueError(f"{name} must hold classes below 2**63, got larger ones; number the classes 0..K-1")
    if bool((y < -1).any()):
        raise ValueError(f"{name} must hold classes from 0 up, or -1 where unlabelled, got {int(y.min())}")
    return y


def count_classes(name: str, y: Tensor, num_classes: int | None) -> int:
    """K: as given, or else one more than the largest of the labels y (N,).

    A ValueError where a label is outside 0..K-1, or K is above both N and 1,000. Nothing of size K is made before.
    """
    largest = int(y.max())
    check_largest_class(name, largest, len(y))
    if num_classes is None:
        return largest + 1
    check_counts(0, num_classes=num_classes)
    if num_classes > (most := most_classes(len(y))):
        raise ValueError(f"num_classes must be at most {most} with {len(y)} rows, got {num_classes!r}")
    if largest >= num_classes:
        raise ValueError(f"num_classes must be above {largest}, the largest class in {name}, got {num_classes!r}")
    return int(num_classes)


def classes(name: str, value: Iterable[int], *, known: Iterable[int]) -> set[int]:
    """A set of classes, all of them among ``known``."""
    known, found = set(known), set()
    try:
        entries = iter(value)
    except TypeError:
        raise ValueError(f"{name} must be several classes, such as [0, 1], got {value!r}") from None
    for entry in entries:
        check_counts(0, **{name: entry})
        if entry not in known:
            raise ValueError(f"{name} must be among the classes {first(sorted(known))}, got {entry!r}")
        found.add(int(entry))
    return found


def first(numbers: Sequence[int], shown: int = 10) -> str:
    """The first of the numbers, for a message.

    >>> first(range(3)), first(range(1000), shown=2)
    ('[0, 1, 2]', '[0, 1, ...]')
    """
    return f"[{', '.join([*map(str, numbers[:shown]), *(['...'] if len(numbers) > shown else [])])}]"
