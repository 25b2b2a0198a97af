"""The estimator's settings: what is refused, and what is told."""

import pytest

from helpers.estimators import small


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "m3"}, "model must be one of m2, m1-m2, adgm-workshop"),
        ({"model": "m1"}, "model must be one of m2"),
        ({"likelihood": "poisson"}, "likelihood must be one of auto, bernoulli, normal"),
        ({"extra_classes": 2}, "extra_classes needs a model that finds classes nobody labelled, model='gm-dgm'"),
        ({"early_stopping": True, "validation_fraction": 1.5}, "validation_fraction must lie between 0 and 1"),
        ({"epochs": 0}, "epochs must be an integer of at least 1"),
        ({"learning_rate": -1}, "learning_rate must be positive"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"z_dim": 2.5}, "z_dim must be an integer of at least 1, got 2.5"),
        ({"num_draws": 0}, "num_draws must be an integer of at least 1, got 0"),
        ({"n_iter_no_change": 0}, "n_iter_no_change must be an integer of at least 1"),
        ({"summed_classes": 0}, "summed_classes must be an integer of at least 1, got 0"),
        ({"summed_classes": 1, "model": "latent-classifier-tight"}, "y is summed inside a logarithm"),
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


@pytest.mark.parametrize("changed", [{"model": "adgm"}, {"z_dim": 7}, {"hidden": (3,)}, {"flow": "planar"}])
def test_a_continued_fit_needs_the_same_networks(blobs, changed):
    X, _, y = blobs
    learnt = small(warm_start=True, epochs=1).fit(X, y)
    (name,) = changed
    with pytest.raises(ValueError, match=f"warm_start goes on with {name}="):
        learnt.set_params(**changed).fit(X, y)
    assert learnt.set_params(warm_start=False).fit(X, y).n_iter_ == 1


def test_a_continued_fit_may_sum_other_classes(blobs):
    """Both are the same networks; the classes that are summed are those of the objective."""
    X, _, y = blobs
    learnt = small(warm_start=True, epochs=1, summed_classes=1).fit(X, y)
    assert learnt.objective_.summed_classes == 1
    assert learnt.set_params(summed_classes=None).fit(X, y).objective_.summed_classes is None
