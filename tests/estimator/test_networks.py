"""The estimator's networks: they are those of every row, learnt and used as by hand, in one stage or in two."""

import math
import pickle

import numpy as np
import pytest
import torch
from pyro.distributions import Normal
from semipyro.data import batches
from semipyro.distributions import FlowNet
from semipyro.estimator import SemiSupervisedClassifier
from semipyro.estimator.networks import OneStage, TwoStages, build, describe
from semipyro.inference import fit, log_likelihood
from semipyro.inference.evaluation.same_noise import SameNoise
from semipyro.papers import CLASSIFYING, PAPERS
from sklearn.preprocessing import StandardScaler

from helpers.conditionals import Conditional, Copy, Sign
from helpers.estimators import BINARY, binary, small, without_seconds


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


# One stage and two


TRAINING = {"epochs": 1, "batch_size": 10, "patience": 1, "seed": 0, "learning_rate": 0.01, "progress": False}


def built(row):
    """Untrained networks for rows of five numbers and three classes."""
    shape = {"z_dim": 2, "hidden": (8,)}
    return build(describe(row, x_dim=5, y_dim=3, likelihood="normal", shape=shape, further={}))


def copied(networks):
    return {
        stage: {name: value.clone() for name, value in objective.state_dict().items()}
        for stage, objective in networks.objectives().items()
    }


def moved(networks, before):
    """The stages whose weights are not what they were."""
    now = copied(networks)
    return {
        stage for stage in now if any(not torch.equal(now[stage][name], before[stage][name]) for name in now[stage])
    }


@pytest.mark.parametrize(
    ("row", "kind", "prepared"), [("m2", OneStage, set()), ("m1-m2", TwoStages, {"features_"})], ids=["one", "two"]
)
def test_each_stage_is_trained_in_its_turn(row, kind, prepared):
    networks, x, y = built(row), torch.randn(30, 5), torch.arange(30) % 4 - 1
    assert type(networks) is kind
    before = copied(networks)
    networks.prepare(x, **TRAINING)
    assert moved(networks, before) == prepared
    before = copied(networks)
    networks.learn(x, y, (x, y), **TRAINING)
    assert moved(networks, before) == {"objective_"}


def test_the_likelihood_of_two_stages_is_exact_at_the_exact_posterior(float64):
    """z ~ N(0, I) of the second stage, x ~ N(z, I): q(z | x) = N(x / 2, I / 2), and x ~ N(0, 2 I)."""
    networks, x = built("m1-m2").double(), torch.randn(6, 2)
    m1 = networks.objectives()["features_"]
    m1.model.p_x = Conditional(lambda z: Normal(z, 1.0).to_event(1))
    m1.guide.q_z = Conditional(lambda x: Normal(x / 2, math.sqrt(1 / 2)).to_event(1))
    networks.second.log_likelihood = lambda z, num_samples: Normal(0.0, 1.0).log_prob(z).sum(-1)
    expected = Normal(0.0, math.sqrt(2)).log_prob(x).sum(-1)
    assert torch.allclose(networks.log_likelihood(x), expected, rtol=0, atol=1e-10)
    m1.guide.q_z = Conditional(lambda x: Normal(x / 2, 1.0).to_event(1))
    assert not torch.allclose(networks.log_likelihood(x), expected, rtol=0, atol=1e-3)


def test_two_stages_read_m1_s_means_and_draw_through_its_decoder(float64):
    networks, x = built("m1-m2").double().eval(), torch.randn(6, 5)
    m1, m2 = networks.objectives().values()
    mean = m1.guide.encode(x)
    assert torch.equal(networks.classify(x, num_draws=1), m2.guide.classify(mean).probs)
    assert torch.equal(networks.encode(x), m2.guide.encode(mean))
    z = torch.randn(4, 2)
    networks.second.sample = lambda n, y: z
    torch.manual_seed(1)
    found = networks.sample(4)
    torch.manual_seed(1)
    assert torch.equal(found, m1.model.p_x(z).sample())
