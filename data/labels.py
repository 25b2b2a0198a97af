"""Labels as users write them: of any type, and missing ones in several spellings."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def known_labels(y: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """A mask, (N,), of the entries of y that are labels, and those labels.

    -1, "-1", None, NaN and NaT stand for a missing label.

    Raises:
        ValueError: y is not one-dimensional, has numbers that are not classes, or labels of several types.
    """
    from sklearn.utils.validation import assert_all_finite, column_or_1d

    given: NDArray[Any] = column_or_1d(np.asarray(y), warn=True)
    if given.dtype.kind == "O":
        known = np.array([not _unknown(label) for label in given], dtype=np.bool_)
        labels = given[known].tolist()
        if len({isinstance(label, str) for label in labels}) > 1:
            raise ValueError("y must hold labels of one type, got strings and others; use -1 or None where unknown")
        return known, _classification_targets(np.array(labels))
    if given.dtype.kind in "mM":
        return ~np.isnat(given), given[~np.isnat(given)]
    known = np.asarray(given != ("-1" if given.dtype.kind == "U" else -1))
    if given.dtype.kind == "f":
        known &= ~np.isnan(given)
        assert_all_finite(given[known], input_name="y")
    return known, _classification_targets(given[known])


def _classification_targets(labels: NDArray[Any]) -> NDArray[Any]:
    from sklearn.utils.multiclass import check_classification_targets

    if len(labels):
        check_classification_targets(labels)
    return labels


def _unknown(label: Any) -> bool:
    if isinstance(label, str):
        return label == "-1"
    return label is None or type(label).__name__ in ("NAType", "NaTType") or label == -1 or label != label  # NaN
