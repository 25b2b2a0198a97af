"""Whatever rows and labels come: a right result, or a sentence that says what is wrong with them."""

import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from semipyro.estimator import SemiSupervisedClassifier

SMALL = {"z_dim": 2, "hidden": (3,), "epochs": 1, "batch_size": 8, "num_draws": 2, "random_state": 0}
DTYPES = ["float64", "float32", "float16", "int64", "int8", "uint8", "bool", "object", "U9"]
VALUES = [0.0, 1.0, -1.0, 0.5, 3.0, -2.25, 1e-3, 1e4, -1e4]
STRANGE = [np.nan, np.inf, -np.inf, 1e30, -1e38, 1e160, -1e300, 1e-30, 1e-300, 5e-324, 2.0**63]
KINDS = ["noise", "noise", "noise", "binary", "constant", "counts", "drawn", "strange"]
FORMS = ["array", "array", "list", "frame", "series", "sparse", "masked", "reversed", "one more dimension"]
LABELS = [0, 1, 2, -1, None, 1.0, 0.5, float("nan"), float("inf"), True, False, "a", "b", "-1", "", "a\0", b"a", (1, 2),
          [1], 1j, 2**62, 2**70, np.int8(1), np.float32(2), np.datetime64("2020-01-01"), np.ma.masked]  # fmt: skip
USUAL = [[0, 1, -1], ["a", "b", None], [True, False, None], [0.0, 1.0, float("nan")], [0, -1], [-1]]

UNHELPFUL = (
    "unhashable",
    "has no attribute",
    "not subscriptable",
    "object is not",
    "unsupported operand",
    "shape mismatch",
)


@st.composite
def columns(draw, rows):
    """One column of a kind."""
    kind = draw(st.sampled_from(KINDS))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    if kind == "noise":
        return random.normal(draw(st.sampled_from([0.0, 1e6])), draw(st.sampled_from([1.0, 1e-6, 1e9])), rows)
    if kind in ("binary", "counts"):
        return random.poisson(3.0, rows).clip(0, 1 if kind == "binary" else 9).astype(float)
    if kind == "constant":
        return np.full(rows, draw(st.sampled_from(VALUES)))
    values = VALUES if kind == "drawn" else VALUES + STRANGE
    return np.array(draw(st.lists(st.sampled_from(values), min_size=rows, max_size=rows)))


@st.composite
def tables(draw, rows, width=None):
    """Rows in one of the forms that they may come in."""
    width = draw(st.integers(1, 4)) if width is None else width
    table = np.stack([draw(columns(rows)) for _ in range(width)], 1) if rows else np.zeros((0, width))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = table.astype(draw(st.sampled_from(["float64"] * 4 + DTYPES)))
        return in_form(table, draw(st.sampled_from(FORMS)))


def in_form(table, form):
    if form in ("frame", "series"):
        pandas = pytest.importorskip("pandas")
        if form == "series":
            return pandas.Series(table.ravel() if table.ndim == 1 else list(table))
        return pandas.DataFrame(table, columns=["a", "b", "b", "d"][: table.shape[1]] if table.ndim == 2 else ["y"])
    made = {"list": lambda: table.tolist(), "sparse": lambda: sparse.csr_array(np.eye(len(table))),
            "masked": lambda: np.ma.array(table, mask=np.arange(table.size).reshape(table.shape) % 3 == 0),
            "reversed": lambda: table[::-1], "one more dimension": lambda: table[None]}  # fmt: skip
    return made.get(form, lambda: table)()


@st.composite
def answers(draw, rows):
    """Labels, most of them usual, in one of the forms that they may come in."""
    pool = draw(st.sampled_from([*USUAL * 2, LABELS]))
    labels = draw(st.lists(st.sampled_from(pool), min_size=rows, max_size=rows))
    entries = np.empty(rows, dtype=object)
    for place, label in enumerate(labels):
        entries[place] = label
    return in_form(entries, draw(st.sampled_from(["list", *FORMS])))


@st.composite
def cases(draw):
    rows = draw(st.sampled_from([12, 12, 12, 12, 3, 2, 1, 0]))
    X = draw(tables(rows))
    width = np.shape(X)[1] if np.ndim(X) == 2 and not sparse.issparse(X) else None
    further = draw(st.one_of(st.just(X), tables(draw(st.sampled_from([1, 3])), width)))
    y = draw(answers(draw(st.sampled_from([rows] * 9 + [rows + 1]))))
    return X, y, further


def helped(call):
    """What the call gives, or None where it says in a sentence what is wrong."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        told = str(error)
    assert len(told) > 20, told
    assert not any(words in told for words in UNHELPFUL), told
    return None


def check_predictions(learnt, X):
    probabilities = helped(lambda: learnt.predict_proba(X))
    if probabilities is None:
        return
    assert probabilities.shape == (len(X), len(learnt.classes_))
    assert np.isfinite(probabilities).all()
    assert np.allclose(probabilities.sum(1), 1, rtol=0, atol=1e-9)
    assert np.array_equal(learnt.predict(X), learnt.classes_[probabilities.argmax(1)])
    assert np.isfinite(learnt.transform(X)).all()
    scores = helped(lambda: learnt.score_samples(X))
    assert scores is None or (scores.shape == (len(X),) and (scores < np.inf).all())


@pytest.mark.reliability
@pytest.mark.filterwarnings("ignore:one class is left to predict", "ignore:A column-vector y was passed")
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names")
def test_a_right_result_or_a_sentence(counted):
    found = Counter()

    @given(case=cases())
    def learn(case):
        X, y, further = case
        learnt = helped(lambda: SemiSupervisedClassifier(**SMALL).fit(X, y))
        found["refused in a sentence" if learnt is None else "learnt from"] += 1
        if learnt is None:
            return
        assert 1 <= len(learnt.classes_) == len(set(learnt.classes_.tolist())) <= len(X)
        assert learnt.classes_.dtype.kind in "biufU"
        check_predictions(learnt, X)
        check_predictions(learnt, further)
        assert np.isfinite(learnt.sample(2)).all()

    learn()
    counted("random rows and labels of an estimator", found)
