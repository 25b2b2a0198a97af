"""Labels as people write them: those that there are, those that are unknown, and those that are refused by name."""

import datetime
import decimal
import enum
import fractions
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from semipyro.data.labels import known_labels

LABELS = (
    st.lists(st.integers(1 - 2**53, 2**53 - 1).filter(lambda label: label != -1), max_size=4),
    st.lists(st.integers(0, 2**53 - 1).map(float), max_size=4),
    st.lists(st.booleans(), max_size=4),
    st.lists(st.text().filter(lambda label: label != "-1" and not label.endswith("\0")), max_size=4),
)
UNKNOWN = [None, -1, float("nan"), np.datetime64("NaT", "D"), np.ma.masked]


class Colour(enum.Enum):
    RED = 1


def test_minus_one_is_no_label():
    known, labels = known_labels([3, -1, 5])
    assert (known.tolist(), labels.tolist()) == ([True, False, True], [3, 5])


@pytest.mark.reliability
@given(labels=st.one_of(LABELS), unknown=st.lists(st.sampled_from(UNKNOWN), max_size=3), seed=st.integers(0, 99))
def test_labels_stay_what_they_are_beside_unknown_ones(labels, unknown, seed):
    """In lists and in arrays of objects."""
    y = [(label, True) for label in labels] + [(label, False) for label in unknown]
    random.Random(seed).shuffle(y)
    objects = np.empty(len(y), dtype=object)
    for place, (label, _) in enumerate(y):
        objects[place] = label
    for form in (list(objects), objects):
        known, found = known_labels(form)
        assert known.tolist() == [is_known for _, is_known in y]
        assert found.tolist() == [label for label, is_known in y if is_known]


@pytest.mark.parametrize("unknown", [None, -1, "-1", float("nan")], ids=repr)
def test_strings_and_what_is_none_of_them(unknown):
    for y in (["oak", unknown, "ash"], np.array(["oak", unknown, "ash"], dtype=object)):
        known, labels = known_labels(y)
        assert (known.tolist(), labels.tolist()) == ([True, False, True], ["oak", "ash"])


def test_nan_is_no_label():
    known, labels = known_labels([0, float("nan"), 1, float("nan")])
    assert (known.tolist(), labels.tolist()) == ([True, False, True, False], [0.0, 1.0])


@pytest.mark.parametrize("values", [[0, 1, 2], [0.0, 1.0, 2.0], ["a", "b", "c"], [True, False, True]], ids=str)
def test_what_a_masked_array_hides_is_unknown(values):
    known, labels = known_labels(np.ma.array(values, mask=[False, True, False]))
    assert (known.tolist(), labels.tolist()) == ([True, False, True], [values[0], values[2]])


@pytest.mark.parametrize("dtype", ["string", "category", "object"])
def test_strings_of_data_frames(dtype):
    pandas = pytest.importorskip("pandas")
    known, labels = known_labels(pandas.Series(["oak", None, "ash"]).astype(dtype))
    assert (known.tolist(), labels.tolist()) == ([True, False, True], ["oak", "ash"])


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "Float64", "int8"])
def test_numbers_of_data_frames(dtype):
    pandas = pytest.importorskip("pandas")
    known, labels = known_labels(pandas.Series([1, -1 if dtype == "int8" else None, 0]).astype(dtype))
    assert (known.tolist(), labels.tolist()) == ([True, False, True], [1, 0])


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        ([(1, 2), (3, 4)], "tuple"),
        ([[1], [1, 2]], "list"),
        ([b"a", b"b"], "bytes"),
        (np.array([b"a", b"b"]), "bytes"),
        ([datetime.date(2020, 1, 1), None], "date"),
        (np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"), "datetime64"),
        (np.array([1, 2]).view("timedelta64[s]"), "timedelta64"),
        ([decimal.Decimal(1), None], "Decimal"),
        ([fractions.Fraction(1, 2), None], "Fraction"),
        ([Colour.RED, None], "Colour"),
        ([1j, None], "complex"),
        ([{1: 2}, {}], "dict"),
        ([np.zeros(2), np.zeros(3)], "ndarray"),
        (np.zeros(2, dtype=[("a", int)]), "void"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_labels_are_refused_by_name(y, kind):
    message = f"y must hold integers, whole floats, booleans or strings, .*, got {kind}.*; make strings of the labels"
    with pytest.raises(ValueError, match=message):
        known_labels(y)


def test_the_rows_of_a_multiindex_are_refused_by_name():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="got tuple"):
        known_labels(pandas.MultiIndex.from_tuples([("a", 1), ("b", 2)]))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a\0", "a"], r"y must hold labels that an array can hold, got 'a\\x00', which would become 'a' in it"),
        (["a", 1], "y must hold labels of one type, got strings and others"),
        ([2**64, 1], "y must hold numbers of at most 4611686018427387904 in size, got 18446744073709551616"),
        ([2**63, -1], "y must hold numbers of at most"),
        (np.array([2.0**60, 0]), "y must hold numbers of at most 9007199254740991 in size"),
        ([2**53 + 1, float("nan")], "y must hold numbers of at most 9007199254740991 in size"),  # NaN makes floats
        ([float("inf"), 1, None], "infinity"),
        ([0.5, 1, None], "Unknown label type"),
        ([[0, 1], [1, 0]], "1d array"),
        ({0, 1}, "1d array"),
    ],
    ids=str,
)
def test_labels_that_would_run_into_each_other_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        known_labels(y)
