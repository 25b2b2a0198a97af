"""Label masks: how many labels of each class are kept, and which."""

import math

import numpy as np
import pytest
import torch
from semipyro.data import mask_labels

TRUTH = torch.arange(5).repeat_interleave(torch.tensor([10, 20, 30, 40, 50]))


def kept(y):
    return torch.bincount(y[y >= 0], minlength=5).tolist()


def test_per_class_keeps_as_many_of_each():
    y = mask_labels(TRUTH, per_class=7)
    assert kept(y) == [7] * 5
    assert torch.equal(y[y >= 0], TRUTH[y >= 0])
    assert y.dtype == torch.int64


def test_fraction_keeps_a_share_of_each_and_one_at_least():
    assert kept(mask_labels(TRUTH, fraction=0.3)) == [3, 6, 9, 12, 15]
    assert kept(mask_labels(TRUTH, fraction=0.01)) == [1, 1, 1, 1, 1]
    assert torch.equal(mask_labels(TRUTH, fraction=1), TRUTH)


def test_zero_per_class_hides_everything():
    assert set(mask_labels(TRUTH, per_class=0).tolist()) == {-1}
    assert set(mask_labels(TRUTH, per_class=0, hidden_classes=range(5)).tolist()) == {-1}
    assert set(mask_labels(torch.full((3,), -1), per_class=0).tolist()) == {-1}


def test_hidden_classes_have_no_label():
    assert kept(mask_labels(TRUTH, per_class=20, hidden_classes=(0, 4))) == [0, 20, 20, 20, 0]
    assert kept(mask_labels(TRUTH, fraction=0.1, hidden_classes=np.array([3]))) == [1, 2, 3, 0, 5]


def test_unlabelled_rows_stay_so():
    given = torch.where(torch.arange(150) % 2 == 0, TRUTH, -1)
    y = mask_labels(given.numpy(), per_class=5)
    assert kept(y) == [5] * 5
    assert (y[given < 0] == -1).all()


def test_the_draw_depends_on_the_seed_alone():
    first = mask_labels(TRUTH, per_class=3, seed=1)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert torch.equal(first, mask_labels(TRUTH, per_class=3, seed=1))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, mask_labels(TRUTH, per_class=3, seed=2))


def test_more_labels_include_the_fewer():
    few, many = (mask_labels(TRUTH, per_class=n) for n in (3, 8))
    assert torch.equal(many[few >= 0], few[few >= 0])


def test_the_given_labels_are_not_changed():
    y = TRUTH.clone()
    mask_labels(y, per_class=1)
    assert torch.equal(y, TRUTH)


def test_every_row_is_drawn_as_often():
    n = 600
    times = sum((mask_labels(torch.zeros(10).long(), per_class=3, seed=seed) >= 0).long() for seed in range(n))
    assert (times / n - 0.3).abs().max() < 6 * math.sqrt(0.3 * 0.7 / n)


BAD_MASKS = [
    ({}, "either per_class or fraction must be given, got per_class=None and fraction=None"),
    ({"per_class": 1, "fraction": 0.1}, "either per_class or fraction must be given"),
    ({"per_class": -1}, "per_class must be an integer of at least 0, got -1"),
    ({"per_class": 1.5}, "per_class must be an integer"),
    (
        {"per_class": 11},
        r"per_class must be at most 10, the labelled rows of class 0, got 11; .*hidden_classes=\[0\]",
    ),
    ({"fraction": 0}, r"fraction must be above 0 and at most 1, got 0; .*per_class=0"),
    ({"fraction": 1.01}, r"fraction must be above 0 and at most 1, got 1.01"),
    ({"fraction": math.nan}, r"fraction must be above 0 and at most 1, got nan"),
    ({"fraction": "a"}, r"fraction must be above 0 and at most 1, got 'a'"),
    ({"per_class": 1, "hidden_classes": [5]}, r"hidden_classes must be among the classes \[0, 1, 2, 3, 4\], got 5"),
    ({"per_class": 1, "hidden_classes": range(5)}, "hidden_classes must leave a class with labels, .*per_class=0"),
    ({"per_class": 1, "y": torch.full((3,), -1)}, "y must have a labelled row, got none; .*per_class=0"),
    ({"per_class": 1, "y": TRUTH.float()}, "y must be integer labels"),
    ({"per_class": 1, "y": TRUTH - 3}, "y must hold classes from 0 up"),
    ({"per_class": 1, "seed": -1}, "seed must be an integer"),
]


@pytest.mark.parametrize(("change", "message"), BAD_MASKS, ids=[message[:40] for _, message in BAD_MASKS])
def test_wrong_masks(change, message):
    arguments = {"y": TRUTH, **change}
    with pytest.raises(ValueError, match=message):
        mask_labels(arguments.pop("y"), **arguments)
