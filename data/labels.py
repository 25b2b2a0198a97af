"""Labels as users write them: numbers, booleans or strings, and missing ones in several spellings."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

LARGEST = {
    "f": 2**53 - 1,
    "i": 2**62,
    "u": 2**62,
    "O": 2**62,
}  # by kind of number: larger whole floats run into each other


def known_labels(y: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """A mask, (N,), of the entries of y that are labels, and those labels.

    Labels are integers, whole floats, booleans or strings. -1, "-1", None, NaN, NaT, pandas' NA and what a masked array
    hides stand for a missing label.

    Raises:
        ValueError: y is not one-dimensional, has numbers that are not classes, labels of several types, or of others
            than these.
    """
    from sklearn.utils.validation import column_or_1d

    given: NDArray[Any] = column_or_1d(_as_array(y), warn=True)
    if given.dtype.kind == "O":
        known = np.array([not _unknown(label) for label in given], dtype=np.bool_)
        labels = _of_one_type(given[known].tolist())
    elif given.dtype.kind in "biufU":
        known = np.asarray(given != ("-1" if given.dtype.kind == "U" else -1))
        if given.dtype.kind == "f":
            known &= ~np.isnan(given)
        labels = given[known]
    else:
        raise _refused(given.dtype.name)
    _check_numbers(labels)
    return known, labels


def _as_array(y: ArrayLike) -> NDArray[Any]:
    """NumPy's array of the entries as they are: it would turn numbers among strings into strings, NaN into "nan"."""
    if isinstance(y, np.ma.MaskedArray):
        entries: NDArray[Any] = y.data.astype(object)
        entries[np.ma.getmaskarray(y)] = None
        return entries
    if isinstance(y, list | tuple) and not all(isinstance(label, Real) for label in y):
        if any(isinstance(label, tuple) for label in y):  # NumPy would make a matrix of them
            raise _refused("tuple")
        return np.array(y, dtype=object)
    given = np.asarray(y)
    return given.astype(object) if given.dtype.kind == "T" else given  # strings of any length


def _unknown(label: Any) -> bool:
    if label is None or label is np.ma.masked or type(label).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(label, np.datetime64 | np.timedelta64):
        return bool(np.isnat(label))
    return label == "-1" if isinstance(label, str) else isinstance(label, Real) and (label == -1 or label != label)


def _of_one_type(labels: list[Any]) -> NDArray[Any]:
    """An array of the labels, none of which has changed."""
    for label in labels:
        if not isinstance(label, str | Integral | float | np.floating | np.bool_):
            raise _refused(type(label).__name__)
    if len({isinstance(label, str) for label in labels}) > 1:
        raise ValueError("y must hold labels of one type, got strings and others; use -1 or None where unknown")
    found = np.array(labels)
    if changed := [label for label, kept in zip(labels, found.tolist(), strict=True) if label != kept]:
        raise ValueError(f"y must hold labels that an array can hold, got {changed[0]!r}, which would become "
                         f"{found[labels.index(changed[0])].item()!r} in it; name the class otherwise")  # fmt: skip
    return found


def _refused(kind: str) -> ValueError:
    return ValueError(f"y must hold integers, whole floats, booleans or strings, and -1, None or NaN where a label is "
                      f"unknown, got {kind}; make strings of the labels that are known, str(label)")  # fmt: skip


def _check_numbers(labels: NDArray[Any]) -> None:
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import assert_all_finite

    if not len(labels):
        return
    assert_all_finite(labels, input_name="y")
    if labels.dtype.kind in "fiuO":
        largest = LARGEST[labels.dtype.kind]
        if too_large := [label for label in (labels.max(), labels.min()) if abs(int(label)) > largest]:
            raise ValueError(f"y must hold numbers of at most {largest} in size, got {too_large[0]}; make strings of "
                             "the labels, str(label)")  # fmt: skip
    check_classification_targets(labels)
