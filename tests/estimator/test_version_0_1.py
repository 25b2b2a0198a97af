"""Pickles and files that version 0.1 wrote: they load, predict what they predicted, and go on."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from semipyro.estimator import SemiSupervisedClassifier
from sklearn.exceptions import InconsistentVersionWarning

WRITTEN = Path(__file__).parent / "version_0_1"
PICKLES = sorted(WRITTEN.glob("*.pickle"))
FILES = sorted(WRITTEN.glob("*.npz"))
SETTINGS = {"z_dim": 2, "hidden": (4,), "epochs": 2, "random_state": 0, "batch_size": 20}  # of all that were written


@pytest.fixture
def rows():
    """What they were fitted to: two clusters in three dimensions, four labels each."""
    random = np.random.default_rng(0)
    X = np.concatenate([random.normal(centre, 1, (30, 3)) for centre in (-3, 3)])
    y = np.full(60, -1)
    y[:4], y[-4:] = 0, 1
    return X, y


def load(path):
    """Without scikit-learn's warning where its own version is another than the one that wrote the scaling."""
    if path.suffix == ".npz":
        return SemiSupervisedClassifier.load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        return pickle.loads(path.read_bytes())


def test_all_are_there():
    names = {"m2", "m1-m2", "cagem", "m2-adversarial", "latent-classifier-tight"}
    assert {path.stem for path in PICKLES} == names
    assert {path.stem for path in FILES} == {"m2", "m1-m2"}


written = pytest.mark.parametrize("path", [*PICKLES, *FILES], ids=lambda path: path.name)


@written
def test_it_predicts_what_it_predicted(path, rows):
    X, _ = rows
    learnt = load(path)
    assert learnt.get_params() == SemiSupervisedClassifier(path.stem, **SETTINGS).get_params()
    expected = np.loadtxt(path.with_suffix(".csv"), delimiter=",")
    assert np.allclose(learnt.predict_proba(X[::10]), expected, rtol=0, atol=1e-12)
    assert learnt.n_iter_ == len(learnt.history_) == 2
    assert learnt.objective_.model.y_dim == len(learnt.classes_) == 2


@written
def test_it_is_used_and_kept_as_a_new_one_is(path, rows, tmp_path):
    """Its other predictions agree with those of its copies, from a file and from a pickle."""
    X, _ = rows
    learnt = load(path)
    learnt.save(tmp_path / "learnt.npz")
    for copy in (load(tmp_path / "learnt.npz"), pickle.loads(pickle.dumps(learnt))):
        for use in (learnt.predict_proba, learnt.transform, learnt.score_samples):
            assert np.array_equal(getattr(copy, use.__name__)(X), use(X))
        assert np.array_equal(copy.sample(5), learnt.sample(5))


@written
def test_it_can_be_fitted_anew(path, rows):
    """The weights that it had have no part in it."""
    learnt = load(path).fit(*rows)
    fresh = SemiSupervisedClassifier(path.stem, **SETTINGS).fit(*rows)
    assert np.array_equal(learnt.predict_proba(rows[0]), fresh.predict_proba(rows[0]))
    assert vars(learnt).keys() == vars(fresh).keys()


@written
def test_its_training_goes_on(path, rows):
    """Two epochs and two more are what they are for a new estimator, but for the rounding of other machines."""
    learnt = load(path).set_params(warm_start=True).fit(*rows)
    assert [row["epoch"] for row in learnt.history_] == [1, 2, 3, 4]
    fresh = SemiSupervisedClassifier(path.stem, **SETTINGS, warm_start=True).fit(*rows).fit(*rows)
    assert np.allclose(learnt.predict_proba(rows[0]), fresh.predict_proba(rows[0]), rtol=0, atol=1e-3)
    assert learnt.history_[2]["loss"] == pytest.approx(fresh.history_[2]["loss"], abs=1e-3)
