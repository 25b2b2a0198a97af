"""The estimator: what scikit-learn asks of it, and what it promises beyond that."""

import math
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import sparse
from semipyro.inference import log_likelihood
from semipyro.inference.evaluation.same_noise import SameNoise
from semipyro.papers import CLASSIFYING
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from helpers.estimators import BINARY, binary, hide, small, without_seconds

EXPECTED = {"check_classifiers_classes": "fits with the labels -1 and 1; here -1 means that the label is unknown"}
CHEAP = {  # those that do not fit, or hardly
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_sparse_tag",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
    "check_dict_unchanged",
    "check_estimators_unfitted",
    "check_fit2d_1feature",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in_after_fitting",
}


@pytest.mark.filterwarnings("ignore:one class is left to predict")  # which one of the checks wants
@parametrize_with_checks([small()], expected_failed_checks=lambda _: EXPECTED)
def test_scikit_learn_s_checks(estimator, check):
    """All of them, for M2."""
    check(estimator)


@pytest.mark.parametrize("model", [name for name in CLASSIFYING if name not in {"m2", *BINARY}])
def test_scikit_learn_s_cheap_checks_of_the_other_rows(model):
    """Untapped is left out, as their data are not binary."""
    run = set()
    for estimator, check in estimator_checks_generator(small(model, epochs=1), expected_failed_checks=EXPECTED):
        name = getattr(check, "func", check).__name__
        if name in CHEAP:
            check(estimator)
            run.add(name)
    assert run == CHEAP


# Learning


def test_unlabelled_rows_help(blobs):
    """More rows than labels: M2 finds clusters that three labels each only point to."""
    X, truth, y = blobs
    assert small(epochs=60).fit(X, y).score(X, truth) > 0.9


def test_numpy_s_integers_are_integers(blobs):
    X, _, y = blobs
    grid = GridSearchCV(small(epochs=1), {"z_dim": np.array([2, 3]), "hidden": [np.array([8])]}, cv=2)
    scores = grid.fit(X, y).cv_results_["mean_test_score"]
    plain = [cross_val_score(small(epochs=1, z_dim=width, hidden=(8,)), X, y, cv=2).mean() for width in (2, 3)]
    assert scores.tolist() == plain
    assert grid.best_estimator_.sample(np.int64(2)).shape == (2, 5)


@pytest.mark.parametrize("again", [False, True])
def test_a_fit_that_fails_leaves_the_estimator_as_it_was(blobs, monkeypatch, again):
    X, _, y = blobs
    learnt = small(epochs=2, warm_start=again).fit(X, y)
    before, history = learnt.predict_proba(X), list(learnt.history_)
    for changed in ({"epochs": 0}, {"learning_rate": -1}, {"likelihood": "bernoulli"}):
        with pytest.raises(ValueError, match=r"epochs|learning_rate|likelihood|bernoulli"):
            clone(learnt).set_params(**changed).fit(X, y)
        kept = learnt.get_params()
        with pytest.raises(ValueError, match=r"epochs|learning_rate|likelihood|bernoulli"):
            learnt.set_params(**changed).fit(X, y)
        learnt.set_params(**kept)
        assert np.array_equal(learnt.predict_proba(X), before)
    with pytest.raises(ValueError, match="NaN"):
        learnt.fit(np.where(X[0, 0] == X, np.nan, X), y)

    def interrupted(*args, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("semipyro.estimator.training.fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learnt.fit(X, y)
    assert np.array_equal(learnt.predict_proba(X), before)
    assert learnt.history_ == history
    with pytest.raises(KeyboardInterrupt):
        (fresh := small()).fit(X, y)
    with pytest.raises(NotFittedError):
        fresh.predict(X)


def test_random_state_repeats_a_fit(blobs):
    X, _, y = blobs
    first, second, other = (small(random_state=state).fit(X, y).predict_proba(X) for state in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    state = torch.get_rng_state()
    small(random_state=np.random.RandomState(0)).fit(X, y).sample(2)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_continued_fit_goes_on(blobs):
    X, _, y = blobs
    learnt = small(warm_start=True, epochs=3).fit(X, y)
    first, scaling = without_seconds(learnt.history_), learnt.scaler_.mean_.copy()
    learnt.fit(X + 1, y)
    assert without_seconds(learnt.history_)[:3] == first
    assert [row["epoch"] for row in learnt.history_] == [1, 2, 3, 4, 5, 6]
    assert learnt.n_iter_ == 6
    assert np.array_equal(learnt.scaler_.mean_, scaling)
    assert learnt.history_[3]["loss"] < learnt.history_[0]["loss"]
    with pytest.raises(ValueError, match=r"y has the label 7, which is not among classes_, \[0, 1, 2\]"):
        learnt.fit(X, np.where(y == 2, 7, y))
    assert small(epochs=3).fit(X, y).fit(X, y).n_iter_ == 3


# Stopping


def test_early_stopping_by_the_bound_of_rows_that_are_held_out(blobs):
    X, _, y = blobs
    learnt = small(early_stopping=True, epochs=300, n_iter_no_change=3, learning_rate=0.05).fit(X, y)
    bounds = [row["validation_unlabelled"] for row in learnt.history_]
    assert len(bounds) < 300
    assert len(bounds) - 1 - int(np.argmax(bounds)) == 3
    assert "validation_accuracy" not in learnt.history_[0]


def test_early_stopping_by_the_labels_of_further_rows(blobs):
    X, truth, y = blobs
    learnt = small(epochs=300, n_iter_no_change=3).fit(X[:120], y[:120], validation=(X[120:], truth[120:]))
    accuracies = [row["validation_accuracy"] for row in learnt.history_]
    assert len(accuracies) < 300
    assert learnt.score(X[120:], truth[120:]) == max(accuracies)


def test_early_stopping_of_rows_that_all_have_labels(blobs):
    X, truth, _ = blobs
    assert small(early_stopping=True, epochs=3).fit(X, truth).classes_.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="early_stopping has no row to hold out"):
        small(early_stopping=True).fit(X[:2], [0, 1])


def test_validation_is_a_pair_with_known_classes(blobs):
    X, _, y = blobs
    for given, message in ((X, "validation must be a pair"), ((X, None), "validation must be a pair"),
                           ((X, np.full(180, 7)), "y of validation has the label 7")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            small(epochs=1).fit(X, y, validation=given)


# The data


@pytest.mark.parametrize("features", [1, 2, 10_000])
def test_one_two_and_ten_thousand_features(features):
    random = np.random.default_rng(0)
    X, y = random.normal(size=(40, features)), np.arange(40) % 4 - 1
    learnt = small(epochs=2).fit(X, y)
    assert learnt.n_features_in_ == features
    assert learnt.predict(X[:1]).shape == (1,)
    torch.manual_seed(0)
    x = torch.tensor(learnt.scaler_.transform(X[:3])).float().double()
    with SameNoise():
        standard = log_likelihood(learnt.objective_.model, learnt.objective_.guide, x, num_samples=100)
    assert learnt.score_samples(X[:3]) == pytest.approx(standard.numpy() - np.log(learnt.scaler_.scale_).sum())
    assert learnt.sample(2).shape == (2, features)


def test_constant_columns(blobs):
    X, truth, y = blobs
    X = np.column_stack([X, np.full(180, 3.0), np.zeros(180)])
    learnt = small(epochs=40).fit(X, y)
    assert learnt.score(X, truth) > 0.8
    other = X + np.eye(7)[5]  # a value that the constant never has
    assert (learnt.score_samples(other) < learnt.score_samples(X)).all()
    assert np.allclose(learnt.sample(3)[:, 5], 3.0, atol=0.1)


def test_the_likelihood_follows_the_data(blobs):
    X, _, y = blobs
    assert small(epochs=1).fit(X, y).likelihood_ == "normal"
    unit = small(epochs=1).fit(binary(X), y)
    assert unit.likelihood_ == "bernoulli"
    assert set(np.unique(unit.sample(5))) <= {0.0, 1.0}
    assert small(epochs=1, likelihood="normal").fit(binary(X), y).likelihood_ == "normal"
    with pytest.raises(ValueError, match=r"likelihood='bernoulli' needs X in \[0, 1\], got values from"):
        small(likelihood="bernoulli").fit(X, y)


def test_values_outside_of_a_bernoulli_are_named(blobs):
    X, _, y = blobs
    learnt = small(epochs=1).fit(binary(X), y)
    for use in (lambda: learnt.score_samples(2 * binary(X)), lambda: small(epochs=1).fit(
            binary(X), y, validation=(2 * binary(X), y))):  # fmt: skip
        with pytest.raises(ValueError, match=r"likelihood='bernoulli' needs X in \[0, 1\], got values from 0 to 2"):
            use()


def test_the_units_of_a_density(blobs):
    """In centimetres a density is a hundredth of that in metres, for each column; nothing else changes."""
    X, _, y = blobs
    metres, centimetres = (small().fit(factor * X, y) for factor in (1.0, 100.0))
    shift = metres.score_samples(X) - centimetres.score_samples(100 * X)
    assert shift == pytest.approx(5 * math.log(100), abs=1e-3)
    assert np.allclose(metres.predict_proba(X), centimetres.predict_proba(100 * X), atol=1e-4)
    assert np.allclose(100 * metres.sample(5), centimetres.sample(5), rtol=1e-3, atol=1e-2)


def test_a_density_integrates_to_one():
    """In one dimension, on a grid; the importance-weighted bound is a little below."""
    X = np.concatenate([np.random.default_rng(0).normal(centre, 0.5, (60, 1)) for centre in (-2, 2)])
    y = np.full(120, -1)
    y[[0, 119]] = 0, 1
    learnt = small(epochs=60).fit(X, y)
    grid = np.linspace(-12, 12, 1201)
    mass = np.exp(learnt.score_samples(grid[:, None])).sum() * (grid[1] - grid[0])
    assert 0.97 < mass < 1.01


def test_sparse_input_is_refused(blobs):
    X, _, y = blobs
    with pytest.raises(TypeError, match="[Ss]parse"):
        small().fit(sparse.csr_array(X), y)


def test_single_and_double_precision(blobs):
    X, _, y = blobs
    single, double = (small().fit(X.astype(kind), y) for kind in (np.float32, np.float64))
    assert single.transform(X.astype(np.float32)).dtype == np.float32
    assert double.transform(X).dtype == np.float64
    assert (single.predict(X) == double.predict(X)).mean() > 0.95


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    X, truth = make_blobs(90, 2, random_state=0)
    frame = pandas.DataFrame(X, columns=["height", "width"])
    y = pandas.Series(hide(truth, 3)).map({-1: None, 0: "a", 1: "b", 2: "c"})
    learnt = small().set_output(transform="pandas").fit(frame, y)
    assert learnt.feature_names_in_.tolist() == ["height", "width"]
    assert learnt.classes_.tolist() == ["a", "b", "c"]
    assert list(learnt.transform(frame).columns) == ["semisupervisedclassifier0", "semisupervisedclassifier1"]
    with pytest.raises(ValueError, match="feature names"):
        learnt.predict(frame.rename(columns={"width": "depth"}))


def test_columns_of_one_name_are_refused():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(6, 3)), columns=["a", "b", "a"])
    with pytest.raises(ValueError, match="X must have columns of different names, got 'a' twice; rename one of them"):
        small().fit(frame, [0, 1] * 3)


# Among scikit-learn's tools


def test_pipelines_grids_and_cross_validation(blobs):
    """Rows without a label take part in the training of every fold, and in no score."""
    X, truth, y = blobs
    y = np.where(np.arange(180) % 2 == 0, truth, -1)
    pipeline = make_pipeline(StandardScaler(), small())
    assert cross_val_score(pipeline, X, y, cv=3).min() > 0.7
    grid = GridSearchCV(small(), {"hidden": [(4,), (16,)], "model": ["m2", "adgm"]}, cv=2).fit(X, y)
    assert grid.best_score_ > 0.7
    assert grid.cv_results_["mean_test_score"].min() > 0.6  # a class alone has a third; NaN is not above it either
    assert clone(small()).get_params() == small().get_params()


def test_processes_after_a_fit(tmp_path):
    """A fit leaves no warning filter behind, which joblib would carry into its workers with what it refers to."""
    code = """
        import warnings
        import numpy as np
        from semipyro import SemiSupervisedClassifier
        from sklearn.model_selection import cross_val_score

        if __name__ == "__main__":
            X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
            before = list(warnings.filters)
            learnt = SemiSupervisedClassifier(z_dim=2, hidden=(4,), epochs=1, random_state=0).fit(X, y)
            assert warnings.filters == before
            scores = cross_val_score(learnt, X, y, cv=2, n_jobs=2)
            assert scores.tolist() == cross_val_score(learnt, X, y, cv=2).tolist()
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_probabilities_are_calibrated_on_rows_with_labels(blobs):
    X, truth, y = blobs
    learnt = small().fit(X, y)
    calibrated = CalibratedClassifierCV(FrozenEstimator(learnt), cv=3).fit(X[y >= 0], y[y >= 0])
    assert calibrated.score(X, truth) > 0.8
    everywhere = CalibratedClassifierCV(small(), cv=2).fit(X, truth)
    assert everywhere.predict_proba(X).shape == (180, 3)


def test_threads_do_not_disturb_each_other(blobs):
    """Neither fits nor predictions of draws."""
    X, _, y = blobs
    alone = [small("adgm", epochs=2, random_state=seed).fit(X, y) for seed in range(4)]
    expected = [learnt.predict_proba(X) for learnt in alone]
    with ThreadPoolExecutor(4) as threads:
        fitted = list(threads.map(lambda seed: small("adgm", epochs=2, random_state=seed).fit(X, y), range(4)))
        found = list(threads.map(lambda learnt: learnt.predict_proba(X), fitted))
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


FORKED = """
import os, signal, threading
import numpy as np, torch
from semipyro import SemiSupervisedClassifier

def small(epochs):
    return SemiSupervisedClassifier("adgm", z_dim=9, hidden=(200,), epochs=epochs, num_draws=2, random_state=0)

signal.alarm(200)  # ends what hangs
torch.set_num_threads(2)  # the child has not got the second one
X, y = np.random.default_rng(0).normal(size=(600, 30)), np.arange(600) % 2
learnt = small(1).fit(X, y)
expected = learnt.predict_proba(X)
threading.Thread(target=small(10**6).fit, args=(X, y), daemon=True).start()
for _ in range(2):
    threading.Event().wait(0.5)  # the fit is at another place each time
    child = os.fork()
    if not child:
        signal.alarm(40)
        os._exit(0 if np.allclose(learnt.predict_proba(X), expected, rtol=0, atol=1e-12) else 1)
    print(os.waitpid(child, 0)[1], flush=True)
os._exit(0)
"""


@pytest.mark.reliability
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_process_forked_while_a_thread_fits_predicts_as_ever():
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["0"] * 2), done.stderr
