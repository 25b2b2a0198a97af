"""Labels of every type, classes that nobody labelled, and the rows that training does not lose."""

import numpy as np
import pytest
import torch
from semipyro.estimator.labels import hold_out
from semipyro.estimator.settings import CLUSTERING
from sklearn.datasets import make_blobs

from helpers.estimators import hide, small


@pytest.mark.parametrize(
    ("unknown", "dtype"), [(None, object), (-1, object), ("-1", "<U5"), (float("nan"), object)], ids=repr
)
def test_string_labels(blobs, unknown, dtype):
    X, _, y = blobs
    names = np.array([unknown if label < 0 else ["ash", "beech", "oak"][label] for label in y], dtype=dtype)
    learnt = small().fit(X, names)
    assert learnt.classes_.tolist() == ["ash", "beech", "oak"]
    assert np.array_equal(learnt.predict_proba(X), small().fit(X, y).predict_proba(X))
    assert set(learnt.predict(X)) <= {"ash", "beech", "oak"}
    assert learnt.score(X, names) == learnt.score(X[y >= 0], names[y >= 0])


@pytest.mark.parametrize("names", [[10, 20, 40], [0.0, 1.0, 2.0], [False, True, True], ["1", "2", "3"]], ids=str)
def test_labels_of_every_type_come_back(blobs, names):
    X, _, y = blobs
    given = [None if label < 0 else names[label] for label in y]
    learnt = small(epochs=2).fit(X, given)
    assert learnt.classes_.tolist() == sorted(set(names))
    assert isinstance(learnt.predict(X).tolist()[0], type(names[0]))


def test_labels_of_data_frames():
    """In a column of pandas, None becomes NaN."""
    pandas = pytest.importorskip("pandas")
    X = np.random.default_rng(0).normal(size=(6, 2))
    for y in (
        pandas.Series([0, 1, None, None, 0, 1]),
        pandas.Series([0, 1, pandas.NA, pandas.NA, 0, 1], dtype="Int64"),
    ):
        assert small(epochs=1).fit(X, y).classes_.tolist() == [0, 1]


def test_names_of_extra_classes_are_not_taken_and_never_minus_one():
    X = np.random.default_rng(0).normal(size=(8, 2))
    named = small("gm-dgm", extra_classes=2, epochs=1)
    y = [None, "a", "extra 1", "c", None, "a", "extra 1", "c"]
    assert named.fit(X, y).classes_.tolist() == ["a", "c", "extra 1", "extra 2", "extra 3"]
    assert named.fit(X, [-4, -3, -2, -4, -3, -2, -4, -3]).classes_.tolist() == [-4, -3, -2, 0, 1]


def test_score_leaves_rows_without_a_label_out(blobs):
    X, truth, y = blobs
    learnt = small().fit(X, y)
    assert learnt.score(X, y) == (learnt.predict(X) == truth)[y >= 0].mean()
    weights = np.where(y == 0, 1.0, 0.0)
    assert learnt.score(X, y, weights) == (learnt.predict(X) == 0)[y == 0].mean()
    with pytest.raises(ValueError, match="y has no label: accuracy needs"):
        learnt.score(X, np.full(180, -1))


def test_a_class_with_a_single_label(blobs):
    X, truth, y = blobs
    y = np.where(y == 2, -1, y)
    y[np.flatnonzero(truth == 2)[0]] = 2
    learnt = small().fit(X, y)
    assert learnt.classes_.tolist() == [0, 1, 2]
    assert 2 in learnt.predict(X)


@pytest.mark.parametrize("model", ["m2", "cagem", "latent-classifier"])
def test_all_rows_have_a_label(blobs, model):
    X, truth, _ = blobs
    learnt = small(model, epochs=60).fit(X, truth)
    assert learnt.score(X, truth) > 0.9
    mixed = np.random.default_rng(0).permuted(X, axis=0)  # each column as before, of other rows
    assert learnt.score_samples(X).mean() > learnt.score_samples(mixed).mean() + 1


def test_no_row_has_a_label(blobs):
    X, _, _ = blobs
    with pytest.raises(ValueError, match="y has no label.*model='gm-dgm' find clusters, with extra_classes=K"):
        small().fit(X, np.full(180, -1))
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None"):
        small().fit(X, None)


@pytest.mark.parametrize("model", CLUSTERING)
def test_classes_that_nobody_labelled_are_found_and_have_names(model):
    """Without any label, and with labels of two classes of three."""
    X, truth = make_blobs(150, 4, centers=3, cluster_std=0.5, random_state=1)
    clusters = small(model, extra_classes=3, epochs=5).fit(X, np.full(150, -1))
    assert clusters.classes_.tolist() == [0, 1, 2]
    y = hide(truth, 5)
    y[truth == 2] = -1
    learnt = small(model, extra_classes=2, epochs=30).fit(X, y)
    assert learnt.classes_.tolist() == [0, 1, 2, 3]
    assert learnt.score(X[truth < 2], truth[truth < 2]) > 0.9
    named = small(model, extra_classes=2, epochs=2).fit(X, np.where(y < 0, None, np.where(y == 0, "a", "b")))
    assert named.classes_.tolist() == ["a", "b", "extra 1", "extra 2"]
    assert named.predict_proba(X).shape == (150, 4)


def test_gm_dgm_finds_the_class_without_labels():
    X, truth = make_blobs(150, 4, centers=3, cluster_std=0.5, random_state=1)
    y = hide(truth, 5)
    y[truth == 2] = -1
    found = small("gm-dgm", extra_classes=1, epochs=60).fit(X, y).predict(X)
    assert (found[truth == 2] == 2).mean() > 0.8


def test_the_bound_s_rows_are_a_part_of_those_without_a_label():
    x, y = torch.arange(100.0)[:, None], torch.full((100,), -1)
    y[:20] = torch.arange(20) % 2
    rows, labels, (held, none) = hold_out(x, y, 0.1, seed=0)
    assert (len(held), none) == (8, None)
    assert held.min() >= 20
    assert torch.equal(torch.cat([rows, held]).flatten().sort().values, x.flatten())
    assert torch.equal(labels[:20], y[:20])


@pytest.mark.parametrize("y", [np.arange(8) % 2 * 2 - 1, [None, "a"] * 4, [1] * 8], ids=str)
def test_a_single_class_is_said(y):
    """Such as where -1 and 1 are meant as two."""
    X = np.random.default_rng(0).normal(size=(8, 2))
    with pytest.warns(UserWarning, match=r"one class is left to predict: .* -1 means that a label is unknown") as told:
        small(epochs=1).fit(X, y)
    assert told[0].filename == __file__
    small("gm-dgm", epochs=1, extra_classes=1).fit(X, y)


def test_samples_are_of_known_classes():
    learnt = small(epochs=1).fit(np.random.default_rng(0).normal(size=(8, 2)), [0, 1] * 4)
    for y in (-1, [0, None], [0, float("nan")]):
        with pytest.raises(ValueError, match="y must name a class for each row, got -1, None or NaN"):
            learnt.sample(2, y=y)
    with pytest.raises(ValueError, match="y must hold integers, whole floats, booleans or strings"):
        learnt.sample(2, y=[{}, 1])
    for n in (-1, 0, 1.5):
        with pytest.raises(ValueError, match="n must be an integer of at least 1"):
            learnt.sample(n)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0.5, 1.5, -1, -1], "Unknown label type"),
        ([0, float("inf"), 1, -1], "infinity"),
        ([[0, 1], [1, 0], [0, 1], [1, 1]], "1d array"),
        (["a", 1, None, None], "y must hold labels of one type"),
        ([0, 1, -1], "inconsistent numbers of samples"),
    ],
    ids=["real", "infinite", "matrix", "mixed", "short"],
)
def test_wrong_labels(y, message):
    X = np.random.default_rng(0).normal(size=(4, 2))
    given = np.array(y, dtype=object) if "mixes" in message else y
    with pytest.raises(ValueError, match=message):
        small().fit(X, given)
