"""Columns in units of their standard deviation: what was recorded coarsely, and what lies far away or is too large."""

import math

import numpy as np
import pytest
import torch
from semipyro.estimator import SemiSupervisedClassifier
from semipyro.estimator.scaling import FARTHEST, fit_scaler, least_scales, scaled

from helpers.estimators import hide, small


def column(values):
    X = np.array(values, dtype=float)[:, None]
    return X, least_scales(scaled(X, fit_scaler(X)))


@pytest.mark.parametrize("step", [1e-3, 1.0, 1e6])
def test_the_least_sigma_is_that_of_a_value_with_probability_one(step):
    """At its peak the density times the step is 1."""
    X, (least,) = column([3 * step, 4 * step, 4 * step, 6 * step])
    assert math.exp(torch.distributions.Normal(0.0, least).log_prob(torch.tensor(0.0))) * step / X.std() == (
        pytest.approx(1.0, rel=1e-5)
    )


def test_rounding_is_no_step():
    assert column([0.1 + 0.2, 0.3, 0.3, 1.3])[1] == pytest.approx(column([0.3, 0.3, 0.3, 1.3])[1], rel=1e-5)


@pytest.mark.parametrize("values", [[0.0, 1.0, 2.5, 7.0], [3.0, 3.0, 3.0]], ids=["no value twice", "one value"])
def test_columns_without_a_step_have_the_usual_least_sigma(values):
    assert column(values)[1] is None


def test_the_likelihood_of_each_column_has_its_least_sigma(tmp_path):
    random = np.random.default_rng(0)
    X = np.column_stack([random.normal(size=40), random.integers(0, 2, 40)])
    for model in ("m2", "m1-m2"):
        learnt = small(model, epochs=1).fit(X, np.arange(40) % 2)
        p_x = next(iter(learnt.networks_.objectives().values())).model.p_x
        least = 1 / X[:, 1].std() / math.sqrt(2 * math.pi)
        assert p_x.min_scale.tolist() == pytest.approx([1e-4, least], rel=1e-5)
        learnt.save(tmp_path / "learnt.npz")
        copy = SemiSupervisedClassifier.load(tmp_path / "learnt.npz")
        assert np.array_equal(copy.score_samples(X), learnt.score_samples(X))
        with torch.no_grad():
            sigma = p_x(torch.zeros(1, 2).double(), *([torch.zeros(1, 2).double()] if model == "m2" else [])).stddev
        assert sigma[0, 1] > least


def test_columns_of_zeros_and_ones_do_not_drown_what_was_measured():
    """Two measured columns tell the classes apart; forty others are zero but for a few rows."""
    random, truth = np.random.default_rng(0), np.arange(300) % 2
    measured = random.normal(size=(300, 2)) + np.where(truth == 0, -3, 3)[:, None]
    X = np.column_stack([measured, random.random((300, 40)) < 0.03])
    settings = {"z_dim": 5, "hidden": (50,), "epochs": 60, "random_state": 0}
    assert SemiSupervisedClassifier(**settings).fit(X, hide(truth, 10)).score(X, truth) > 0.95


def test_a_table_of_one_hot_columns_ends_in_numbers():
    random = np.random.default_rng(0)
    X = np.concatenate([np.eye(17)[random.integers(17, size=5800)] for _ in range(5)], 1)
    y = hide(X[:, :17].argmax(1) % 2, 20)
    learnt = small(likelihood="normal", epochs=2, batch_size=100).fit(X, y)
    assert all(np.isfinite(list(row.values())).all() for row in learnt.history_)
    assert np.isfinite(learnt.score_samples(X[:100])).all()


# Far away


FAR = [{}, {"model": "m1-m2"}, {"model": "adgm"}, {"flow": "iaf"}, {"settings": {"rank": 1}}, {"settings": {"rank": 2}}]


@pytest.mark.parametrize("settings", FAR, ids=str)
def test_rows_far_away_have_a_number_and_leave_the_others_theirs(blobs, settings):
    X, _, y = blobs
    learnt = small(**{"model": "m2", "epochs": 2, **settings}).fit(X, y)
    far = np.concatenate([sign * X[:4] * size for size in (1e4, 1e8, 1e20, 1e100, 1e300) for sign in (1, -1)])
    one = X[:4].copy()
    one[:, 2] = 1e12
    rows = np.concatenate([X[:9], far, one])
    scores = learnt.score_samples(rows)
    assert not np.isnan(scores).any()
    assert np.allclose(scores[:9], learnt.score_samples(X[:9]), rtol=1e-12, atol=0)
    assert (scores[9:] < scores[:9].min()).all()
    assert (scores[-4:] == -np.inf).all()
    assert np.isfinite(scores[9:13]).all()
    probabilities = learnt.predict_proba(rows)
    assert np.allclose(probabilities.sum(1), 1, rtol=0, atol=1e-9)
    assert np.allclose(probabilities[:9], learnt.predict_proba(X[:9]), rtol=0, atol=1e-12)
    assert np.isfinite(learnt.transform(rows)).all()


def test_values_are_not_farther_than_single_precision_can_square():
    scaler = fit_scaler(np.array([[0.0], [2.0]]))
    assert scaled(np.array([[1e300], [-1e300], [3.0]]), scaler).flatten().tolist() == [FARTHEST, -FARTHEST, 2.0]


@pytest.mark.parametrize(("values", "told"), [([1e300, -1e300, 0], "1e.300"), ([1e-300, 2e-300, 0], "2e-300")])
def test_columns_without_a_variance_are_refused(values, told):
    X = np.column_stack([[1.0, 2.0, 3.0], values])
    with pytest.raises(ValueError, match=f"X must have columns whose variance is a number, got .*{told} in column 1"):
        small().fit(X, [0, 1, 0])
