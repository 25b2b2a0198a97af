"""Labels as people write them."""

import numpy as np
import pytest
from semipyro.data.labels import known_labels


def test_minus_one_is_no_label():
    known, labels = known_labels([3, -1, 5])
    assert (known.tolist(), labels.tolist()) == ([True, False, True], [3, 5])


@pytest.mark.parametrize("unknown", [None, -1, "-1", float("nan")], ids=repr)
def test_strings_and_what_is_none_of_them(unknown):
    known, labels = known_labels(np.array(["oak", unknown, "ash"], dtype=object))
    assert (known.tolist(), labels.tolist()) == ([True, False, True], ["oak", "ash"])


@pytest.mark.parametrize(
    ("given", "classes"),
    [
        ([0, float("nan"), 1, float("nan")], [0.0, 1.0]),
        (np.array(["NaT", "2020-01-01", "2021-01-01", "NaT"], dtype="datetime64[D]"), None),
    ],
    ids=["float", "datetime"],
)
def test_nan_and_nat_are_no_labels(given, classes):
    known, labels = known_labels(given)
    assert known.sum() == len(labels) == 2
    assert classes is None or labels.tolist() == classes
