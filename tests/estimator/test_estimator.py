"""The scikit-learn face: what scikit-learn asks of an estimator, and what the models promise behind it."""

import math
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import sparse
from semipyro.data import batches
from semipyro.distributions import FlowNet
from semipyro.estimator import CLUSTERING, SemiSupervisedClassifier, _hold_out
from semipyro.inference import fit, log_likelihood
from semipyro.inference.evaluation.same_noise import SameNoise
from semipyro.papers import CLASSIFYING, PAPERS
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks
from test_sampling import Copy, Sign

SMALL = {"z_dim": 2, "hidden": (16,), "epochs": 10, "batch_size": 30, "learning_rate": 0.01, "random_state": 0}
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
BINARY = {"untapped"}


def small(model="m2", **changed):
    return SemiSupervisedClassifier(model, **{**SMALL, **changed})


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


@pytest.fixture(scope="module")
def blobs():
    """Three clusters in five dimensions, of which three rows each have a label."""
    X, truth = make_blobs(180, 5, centers=3, cluster_std=2.0, random_state=0)
    return X, truth, hide(truth, 3)


def hide(truth, per_class, seed=0):
    """-1 but for some rows of each class."""
    y, random = np.full(len(truth), -1), np.random.default_rng(seed)
    for label in np.unique(truth):
        kept = random.choice(np.flatnonzero(truth == label), per_class, replace=False)
        y[kept] = label
    return y


def binary(X):
    return MinMaxScaler().fit_transform(X).clip(0, 1)


# What is learnt


@pytest.mark.parametrize("model", CLASSIFYING)
def test_every_row_learns_predicts_and_is_kept(blobs, model, tmp_path):
    """Row by row as all at once, in another order, from a file and from a pickle."""
    X, _, y = blobs
    X = binary(X) if model in BINARY else X
    learnt = small(model).fit(X, y)
    probabilities = learnt.predict_proba(X)
    assert probabilities.shape == (180, 3)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-12)
    assert np.array_equal(learnt.predict(X), learnt.classes_[probabilities.argmax(1)])
    order = np.random.default_rng(0).permutation(len(X))
    assert np.array_equal(learnt.predict(X[order]), learnt.predict(X)[order])
    one_by_one = np.concatenate([learnt.predict_proba(row[None]) for row in X[:20]])
    assert np.allclose(one_by_one, probabilities[:20], rtol=0, atol=1e-10)
    likelihoods = learnt.score_samples(X)
    assert likelihoods.shape == (180,)
    assert np.allclose([learnt.score_samples(row[None])[0] for row in X[:5]], likelihoods[:5], rtol=0, atol=1e-8)
    assert learnt.transform(X).shape == (180, 2)
    assert learnt.sample(4, y=2).shape == (4, 5)
    learnt.save(tmp_path / "learnt.npz")
    for copy in (SemiSupervisedClassifier.load(tmp_path / "learnt.npz"), pickle.loads(pickle.dumps(learnt))):
        assert np.array_equal(copy.predict_proba(X), probabilities)
        assert np.array_equal(copy.score_samples(X), likelihoods)
        assert np.array_equal(copy.transform(X), learnt.transform(X))
        assert np.array_equal(copy.sample(4, y=2), learnt.sample(4, y=2))
        assert copy.history_ == learnt.history_
        assert copy.get_params() == learnt.get_params()
        assert copy.classes_.dtype == learnt.classes_.dtype


@pytest.mark.parametrize("model", ["m2", "adgm", "latent-classifier"])
def test_it_is_the_explicit_route(blobs, model):
    """With the same seed, `fit` of the same pieces gives the same bound; another seed does not."""
    X, _, y = blobs
    standard = torch.tensor(StandardScaler().fit_transform(X)).float()
    torch.manual_seed(7)
    objective = PAPERS[model].build(5, 3, z_dim=2, hidden=(16,), likelihood="normal")
    rows = batches(standard, torch.tensor(y), labelled_batch_size=30, unlabelled_batch_size=30, include_labelled=True,
                   num_classes=3, seed=7)  # fmt: skip
    history = fit(objective, rows, epochs=4, learning_rate=0.01, progress=False)
    learnt = small(model, epochs=4, random_state=7).fit(X, y)
    assert without_seconds(learnt.history_) == without_seconds(history)
    assert without_seconds(small(model, epochs=4, random_state=8).fit(X, y).history_) != without_seconds(history)
    torch.manual_seed(0)
    with SameNoise():
        explicit = log_likelihood(objective.double().model, objective.guide, standard.double()[:50], num_samples=100)
    scale = np.log(StandardScaler().fit(X).scale_).sum()
    assert learnt.score_samples(X[:50]) == pytest.approx(explicit.numpy() - scale, abs=1e-5)


def without_seconds(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


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

    monkeypatch.setattr("semipyro.estimator.fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learnt.fit(X, y)
    assert np.array_equal(learnt.predict_proba(X), before)
    assert learnt.history_ == history
    with pytest.raises(KeyboardInterrupt):
        (fresh := small()).fit(X, y)
    with pytest.raises(NotFittedError):
        fresh.predict(X)


@pytest.mark.parametrize("changed", [{"model": "adgm"}, {"z_dim": 7}, {"hidden": (3,)}, {"flow": "planar"}])
def test_a_continued_fit_needs_the_same_networks(blobs, changed):
    X, _, y = blobs
    learnt = small(warm_start=True, epochs=1).fit(X, y)
    (name,) = changed
    with pytest.raises(ValueError, match=f"warm_start goes on with {name}="):
        learnt.set_params(**changed).fit(X, y)
    assert learnt.set_params(warm_start=False).fit(X, y).n_iter_ == 1


def test_settings_reach_what_they_are_for(blobs):
    X, _, y = blobs
    flowing = small("m2", flow="planar", flow_length=3, settings={"classification_weight": 7.0}, epochs=1).fit(X, y)
    q_z = flowing.objective_.guide.q_z
    assert isinstance(q_z, FlowNet)
    assert len(q_z.transforms) == 3
    assert flowing.objective_.classification_weight == 7.0
    rising = small(kl_warmup=4, epochs=4).fit(X, y).history_
    assert [row["kl_weight"] for row in rising] == [0.25, 0.5, 0.75, 1.0]
    averaged = small("adgm", epochs=1).fit(X, y)
    one = averaged.predict_proba(X)
    assert not np.array_equal(averaged.set_params(num_draws=1).predict_proba(X), one)


def test_the_bound_s_rows_are_a_part_of_those_without_a_label():
    x, y = torch.arange(100.0)[:, None], torch.full((100,), -1)
    y[:20] = torch.arange(20) % 2
    rows, labels, (held, none) = _hold_out(x, y, 0.1, seed=0)
    assert (len(held), none) == (8, None)
    assert held.min() >= 20
    assert torch.equal(torch.cat([rows, held]).flatten().sort().values, x.flatten())
    assert torch.equal(labels[:20], y[:20])


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


# Labels


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
def test_labels_of_any_type_come_back(blobs, names):
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
    assert np.isfinite(learnt.score_samples(X)).all()


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
    assert np.isfinite(learnt.score_samples(X)).all()
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


# Samples


def test_samples_of_a_class_where_y_depends_on_z(blobs):
    """p(x | y) ∝ ∫ p(z) p(y | z) p(x | y, z): not p(x | y, z) of any z. Here the class is the sign of z, and x = z."""
    X, _, y = blobs
    learnt = small("latent-classifier", z_dim=1, epochs=1).fit(X[:, :1], np.where(y > 1, -1, y))
    model = learnt.objective_.model
    model.p_y, model.p_x = Sign(), Copy()
    learnt.scaler_ = None
    x = learnt.sample(400, y=[0] * 200 + [1] * 200)
    assert (x[:200] < 0.1).all()
    assert (x[200:] > -0.1).all()
    assert abs(np.abs(x).mean() - math.sqrt(2 / math.pi)) < 5 * math.sqrt((1 - 2 / math.pi) / 400)  # half-normal
    assert (learnt.sample(400) < 0).mean() == pytest.approx(0.5, abs=5 * 0.5 / 20)


def test_samples_look_like_their_class(blobs):
    X, truth, y = blobs
    learnt = small(epochs=100).fit(X, y)
    for label in range(3):
        drawn, rows = learnt.sample(2000, y=label), X[truth == label]
        error = (drawn.std(0) ** 2 / 2000 + rows.std(0) ** 2 / len(rows)) ** 0.5
        others = X[truth != label].mean(0)
        assert (np.abs(drawn.mean(0) - rows.mean(0)) < 0.5 * np.abs(others - rows.mean(0)) + 8 * error).all()
    with pytest.raises(ValueError, match="the label 9"):
        learnt.sample(2, y=9)
    with pytest.raises(ValueError, match=r"y must be one class, or n = 3 of them, got the shape \(2,\)"):
        learnt.sample(3, y=[0, 1])


def test_values_outside_of_a_bernoulli_are_named(blobs):
    X, _, y = blobs
    learnt = small(epochs=1).fit(binary(X), y)
    for use in (lambda: learnt.score_samples(2 * binary(X)), lambda: small(epochs=1).fit(
            binary(X), y, validation=(2 * binary(X), y))):  # fmt: skip
        with pytest.raises(ValueError, match=r"likelihood='bernoulli' needs X in \[0, 1\], got values from 0 to 2"):
            use()


def test_validation_is_a_pair_with_known_classes(blobs):
    X, _, y = blobs
    for given, message in ((X, "validation must be a pair"), ((X, None), "validation must be a pair"),
                           ((X, np.full(180, 7)), "y of validation has the label 7")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            small(epochs=1).fit(X, y, validation=given)


# Wrong use


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "m3"}, "model must be one of m2, m1-m2, adgm-workshop"),
        ({"model": "m1"}, "model must be one of m2"),
        ({"likelihood": "poisson"}, "likelihood must be 'auto', 'bernoulli' or 'normal'"),
        ({"extra_classes": 2}, "extra_classes needs a model that finds classes nobody labelled, model='gm-dgm'"),
        ({"early_stopping": True, "validation_fraction": 1.5}, "validation_fraction must lie between 0 and 1"),
        ({"epochs": 0}, "epochs must be an integer of at least 1"),
        ({"learning_rate": -1}, "learning_rate must be positive"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"z_dim": 2.5}, "z_dim must be an integer of at least 1, got 2.5"),
        ({"num_draws": 0}, "num_draws must be an integer of at least 1, got 0"),
        ({"n_iter_no_change": 0}, "n_iter_no_change must be an integer of at least 1"),
        ({"extra_classes": -1}, "extra_classes must be an integer of at least 0"),
        ({"extra_classes": 1.5, "model": "gm-dgm"}, "extra_classes must be an integer of at least 0"),
        ({"hidden": 8}, r"hidden must be a sequence of widths, such as \(200,\), got 8"),
        ({"hidden": (8, 0)}, "hidden must be a sequence of widths"),
        ({"random_state": -1}, "random_state must lie between 0 and"),
        ({"settings": {"wings": 2}}, "wings"),
        ({"settings": {"likelihood": "normal"}}, "settings has likelihood, which is an argument of its own"),
        ({"flow": "real-nvp"}, "real-nvp"),
        ({"model": "untapped"}, "likelihood must be 'bernoulli' for untapped"),
        ({"device": "tpu"}, "device must be one of"),
    ],
)
def test_wrong_settings(blobs, changed, message):
    X, _, y = blobs
    with pytest.raises(ValueError, match=message):
        small(**changed).fit(X, y)


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
