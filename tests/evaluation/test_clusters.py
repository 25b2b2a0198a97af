"""Cluster-and-label, matching and cross entropy against brute force, with errors planted and found."""

import itertools
import math
from functools import partial

import pytest
import torch
from pyro.distributions import Normal, OneHotCategorical
from semipyro.distributions import BoundedNormalNet, NormalNet
from semipyro.guides import M2Guide
from semipyro.inference.evaluation.clusters import (
    canonical_images,
    classes_used,
    cluster_accuracy,
    cluster_map,
    cross_entropy,
    log_probabilities,
    match_dimensions,
)
from semipyro.inference.evaluation.measures import accuracy
from semipyro.models import M2
from torch import nn
from torch.nn import functional


def read_off(x):
    """The cluster is the largest entry of x, and its logits are x itself."""
    return OneHotCategorical(logits=x)


class Network(nn.Module):
    """A classifier with batch norm and dropout, which answers differently in training mode."""

    def __init__(self, x_dim=6, num_classes=4):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(x_dim, 20), nn.BatchNorm1d(20), nn.Dropout(0.5), nn.Linear(20, num_classes))

    def forward(self, x):
        return OneHotCategorical(logits=self.net(x))


def rows_in(clusters, num_clusters):
    return 5 * functional.one_hot(torch.tensor(clusters), num_clusters).float()


def majority(clusters, labels, num_clusters):
    """Counted by hand: the smallest of the most frequent classes, -1 for an empty cluster."""
    found = []
    for cluster in range(num_clusters):
        members = [y for k, y in zip(clusters, labels, strict=True) if k == cluster and y >= 0]
        found.append(min(set(members), key=lambda c: (-members.count(c), c)) if members else -1)
    return found


def test_a_cluster_is_mapped_to_its_majority_class():
    clusters = [0, 0, 0, 1, 1, 1, 1, 3, 3, 4]
    labels = [2, 2, 0, 1, 1, 0, 0, 7, -1, -1]  # cluster 1 is a tie of 0 and 1, cluster 2 empty, 4 unlabelled
    found = cluster_map(read_off, rows_in(clusters, 5), torch.tensor(labels))
    assert found.tolist() == [2, 0, -1, 7, -1]
    assert found.dtype == torch.int64


def test_a_class_may_have_any_number():
    """No memory is taken for the classes below."""
    x, y = rows_in([0, 0, 2], 3), torch.tensor([2**62, 2**62, 7])
    assert cluster_map(read_off, x, y).tolist() == [2**62, -1, 7]


@pytest.mark.parametrize("seed", range(5))
def test_map_and_accuracy_are_those_of_brute_force(seed, monkeypatch):
    monkeypatch.setattr("semipyro.inference.evaluation.clusters.ROWS", 7)  # in several chunks
    draw = torch.Generator().manual_seed(seed)
    clusters = torch.randint(0, 6, (50,), generator=draw).tolist()
    labels = torch.randint(-1, 4, (50,), generator=draw).tolist()
    x, y = rows_in(clusters, 7), torch.tensor(labels)
    expected = majority(clusters, labels, 7)
    assert cluster_map(read_off, x, y).tolist() == expected
    right = [expected[k] == c for k, c in zip(clusters, labels, strict=True) if c >= 0]
    assert cluster_accuracy(read_off, x, y) == pytest.approx(sum(right) / len(right))
    of_two = [expected[k] == c for k, c in zip(clusters, labels, strict=True) if c in (1, 3)]
    assert cluster_accuracy(read_off, x, y, classes=(1, 3)) == pytest.approx(sum(of_two) / len(of_two))


def test_the_map_is_fitted_on_all_rows_and_where_it_is_told():
    x, y = rows_in([0, 0, 0, 1, 1], 3), torch.tensor([0, 0, 1, 1, 1])
    assert cluster_accuracy(read_off, x, y) == 0.8
    assert cluster_accuracy(read_off, x, y, classes=[1]) == pytest.approx(2 / 3)  # fitted on class 1 alone it were 1
    other = (rows_in([0, 1, 1], 3), torch.tensor([1, 0, -1]))
    assert cluster_accuracy(read_off, x, y, map_from=other) == pytest.approx(0.2)
    empty = (rows_in([1], 3), torch.tensor([1]))
    assert cluster_accuracy(read_off, x, y, map_from=empty) == pytest.approx(0.4)  # cluster 0 was not seen: wrong


def test_a_map_fitted_on_the_measured_rows_flatters():
    """With a cluster for every row, a map fitted on these rows is always right; fitted on others it hardly ever is."""
    y, z = torch.randint(0, 10, (200,)), torch.randint(0, 10, (200,))
    x = torch.eye(200)
    assert cluster_accuracy(read_off, x, y) == 1.0
    assert cluster_accuracy(read_off, x, y, map_from=(x, z)) < 0.25


def test_cluster_accuracy_of_a_classifier_is_at_least_its_accuracy():
    x, y = torch.randn(300, 6), torch.randint(-1, 4, (300,))
    network = Network()
    network.net[1].running_mean.normal_()
    assert cluster_accuracy(network, x, y) >= accuracy(network, x, y)
    permuted = lambda x: OneHotCategorical(logits=network.eval()(x).logits[:, [2, 0, 3, 1]])  # noqa: E731
    assert cluster_accuracy(permuted, x, y) == cluster_accuracy(network, x, y)  # names of clusters don't matter


# Matching


@pytest.mark.parametrize(("num_classes", "num_dimensions"), [(1, 1), (2, 4), (4, 4), (3, 6)])
def test_matching_is_the_best_of_all(num_classes, num_dimensions):
    scores = torch.randn(num_classes, num_dimensions)
    found = match_dimensions(scores)
    total = lambda way: sum(scores[c, k].item() for c, k in enumerate(way))  # noqa: E731
    best = max(itertools.permutations(range(num_dimensions), num_classes), key=total)
    assert tuple(found.tolist()) == best
    assert found.dtype == torch.int64


def test_matching_is_not_greedy():
    """Dimension 0 is best for both classes, and most probable for class 0; but class 1 would lose more without it."""
    scores = torch.tensor([[0.9, 0.8, 0.0], [0.85, 0.01, 0.01]]).log()
    assert scores[0].argmax() == scores[1].argmax() == 0
    assert match_dimensions(scores).tolist() == [1, 0]


def test_minus_infinity_forbids_a_match():
    scores = torch.tensor([[-math.inf, 0.0], [5.0, 9.0]])
    assert match_dimensions(scores).tolist() == [1, 0]


# Cross entropy


def test_cross_entropy_is_the_mean_of_minus_log_q():
    x, y = torch.randn(40, 5), torch.randint(-1, 5, (40,))
    by_hand = [-(x[n, y[n]] - x[n].logsumexp(0)).item() for n in range(40) if y[n] >= 0]
    assert cross_entropy(read_off, x, y) == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-6)


def test_a_classifier_that_knows_nothing_has_log_k():
    assert cross_entropy(read_off, torch.zeros(9, 10), torch.arange(9)) == pytest.approx(math.log(10))


def test_dimensions_say_which_dimension_a_class_has():
    x, y = torch.randn(40, 6), torch.randint(0, 3, (40,))
    dimensions = torch.tensor([4, 0, 5])
    permuted = x[:, [4, 0, 5, 1, 2, 3]]
    expected = cross_entropy(read_off, permuted, y)
    assert cross_entropy(read_off, x, y, dimensions=dimensions) == pytest.approx(expected)
    inverse = torch.tensor([1, 5, 2])  # an error to find: dimension → class for class → dimension
    assert cross_entropy(read_off, x, y, dimensions=inverse) != pytest.approx(expected, abs=0.01)


def test_the_best_matching_by_mean_log_probability_has_the_least_cross_entropy():
    x, y = torch.randn(60, 4), torch.arange(60) % 4
    log_q = log_probabilities(read_off, x)
    scores = torch.stack([log_q[y == c].mean(0) for c in range(4)])
    found = cross_entropy(read_off, x, y, dimensions=match_dimensions(scores))
    ways = itertools.permutations(range(4))
    assert found == pytest.approx(min(cross_entropy(read_off, x, y, dimensions=torch.tensor(way)) for way in ways))


def test_nothing_is_clipped():
    """A wrong answer given with logits 0 and -200 costs 200 nats, and with probability 0 it costs infinity."""
    x, y = torch.tensor([[0.0, -200.0]]), torch.tensor([1])
    assert cross_entropy(read_off, x, y) == pytest.approx(200.0)
    certain = lambda x: OneHotCategorical(probs=torch.tensor([1.0, 0.0]).expand(len(x), 2))  # noqa: E731
    assert cross_entropy(certain, x, y) == math.inf
    small = lambda x: OneHotCategorical(probs=torch.tensor([1.0, 1e-30]).expand(len(x), 2))  # noqa: E731
    assert cross_entropy(small, x, y) == pytest.approx(30 * math.log(10), rel=1e-5)


# How many classes are used


def test_classes_used_counts_those_with_a_share_of_the_rows():
    x = rows_in([0] * 80 + [1] * 17 + [2] * 2 + [3], 5)  # an equal share is 20 of 100 rows
    assert classes_used(read_off, x) == 3  # a tenth of it is 2
    assert classes_used(read_off, x, share=0.85) == 2
    assert classes_used(read_off, x, share=1.0) == 1
    assert classes_used(read_off, x, share=1e-9) == 4  # one row at least


@pytest.mark.parametrize("num_classes", [1, 3, 7, 10])
def test_even_use_uses_all_and_collapse_one(num_classes):
    even = rows_in(list(range(num_classes)) * 3, num_classes)
    assert classes_used(read_off, even, share=1.0) == num_classes
    assert classes_used(read_off, torch.eye(num_classes)[[0] * 30]) == 1


# Canonical images


class Parts(nn.Module):
    """x = [y, z] up to 1e-6."""

    def forward(self, y, z):
        return Normal(torch.cat([y, z], -1), 1e-6).to_event(1)


@pytest.mark.parametrize("bounded", [False, True])
def test_canonical_images_are_those_of_each_class_at_the_mean_of_z(bounded, monkeypatch):
    monkeypatch.setattr("semipyro.inference.evaluation.clusters.ROWS", 4)
    q_z = BoundedNormalNet((5, 3), 2, -1.5, 1.5, hidden=(8,)) if bounded else NormalNet((5, 3), 2, hidden=(8,))
    model, guide = M2(p_x=Parts(), y_dim=3, z_dim=2), M2Guide(q_y=NormalNet((5,), 3), q_z=q_z)
    x, y = torch.rand(10, 5), torch.eye(3)[torch.randint(0, 3, (10,))]
    found = canonical_images(model, guide, x, y)
    output = (q_z.normal if bounded else q_z).mlp(x, y)
    mean = output.chunk(2, -1)[0]
    mean = -1.5 + 3 * mean.sigmoid() if bounded else mean
    torch.testing.assert_close(found[:, :3], torch.eye(3))
    torch.testing.assert_close(found[:, 3:], mean.mean(0).detach().expand(3, 2))
    assert not found.requires_grad
    other = canonical_images(model, guide, x, torch.eye(3)[[0] * 10])
    assert not torch.allclose(other[0, 3:], found[0, 3:]), "z is inferred under the labels that are given"


# What a measure leaves behind


def test_classifiers_are_measured_in_evaluation_mode_and_given_back():
    network, x, y = Network().train(), torch.randn(50, 6), torch.randint(0, 4, (50,))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for measure in (cluster_map, cluster_accuracy, cross_entropy, lambda f, x, y: classes_used(f, x)):
        first = measure(network, x, y)
        assert str(measure(network, x, y)) == str(first), "no dropout"
        assert str(measure(partial(network.forward), x, y)) == str(first), "a method with arguments given"
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_chunks_change_nothing(monkeypatch):
    network, x, y = Network(), torch.randn(50, 6), torch.randint(0, 4, (50,))
    measures = (cluster_accuracy, cross_entropy, lambda f, x, y: classes_used(f, x))
    whole = [measure(network, x, y) for measure in measures]
    monkeypatch.setattr("semipyro.inference.evaluation.clusters.ROWS", 3)
    assert [measure(network, x, y) for measure in measures] == pytest.approx(whole, rel=1e-6)


# Errors

X, Y = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, -1, 1])
ONE_HOT = torch.eye(3)[[0, 1, 2, 0, 0, 1]]
NAN = torch.full((2, 2), math.nan)
MODEL, GUIDE = M2.build(3, 3, z_dim=2, hidden=(4,)), M2Guide.build(3, 3, z_dim=2, hidden=(4,))


class WithoutZ(nn.Module):
    def forward(self, x, y=None):
        pass


def several(x):
    return OneHotCategorical(logits=x.expand(2, *x.shape))


ERRORS = {
    "not rows": (lambda: cluster_map(read_off, X[0], Y[:1]), r"x must be a \(N, D\) tensor of floats"),
    "NaN": (lambda: classes_used(read_off, X * math.nan), "x holds NaN or infinity in 6 of 6 rows"),
    "no rows": (lambda: classes_used(read_off, X[:0]), "x has no rows"),
    "length": (lambda: cluster_map(read_off, X, Y[:4]), "y must be 6 integer labels"),
    "one-hot": (lambda: cluster_accuracy(read_off, X, ONE_HOT), "y must be 6 integer labels"),
    "no label": (lambda: cluster_accuracy(read_off, X, -torch.ones_like(Y)), "y has no label"),
    "no such class": (lambda: cluster_accuracy(read_off, X, Y, classes=[7, 5]), r"classes=\[5, 7\]; y has \[0, 1, 2\]"),
    "no class": (lambda: cluster_accuracy(read_off, X, Y, classes=[]), "no row has a true class"),
    "map from x": (lambda: cluster_accuracy(read_off, X, Y, map_from=X), r"map_from must be a pair \(x, y\)"),
    "map without labels": (lambda: cluster_accuracy(read_off, X, Y, map_from=(X, -(Y**0))), "y has no label"),
    "draws": (lambda: cluster_map(several, X, Y), r"gave probabilities of shape \(2, 5, 3\) for the 5 rows"),
    "scores": (lambda: match_dimensions(torch.zeros(4)), r"scores must be a \(C, K\) tensor of floats"),
    "counts": (lambda: match_dimensions(torch.zeros(2, 2, dtype=torch.long)), r"scores must be a \(C, K\) tensor"),
    "no scores": (lambda: match_dimensions(torch.zeros(0, 2)), r"scores must be a \(C, K\) tensor of floats"),
    "too many": (lambda: match_dimensions(torch.zeros(3, 2)), "3 classes for 2 dimensions; expected C ≤ K"),
    "score NaN": (lambda: match_dimensions(NAN), "scores holds NaN or"),
    "no matching": (lambda: match_dimensions(NAN.nan_to_num(-math.inf)), "no matching is left"),
    "class beyond": (lambda: cross_entropy(read_off, X, Y + 2), "y must hold labels 0 to 2"),
    "class unmatched": (lambda: cross_entropy(read_off, X, Y, dimensions=torch.tensor([0, 1])), "labels 0 to 1"),
    "floats": (lambda: cross_entropy(read_off, X, Y, dimensions=torch.rand(3)), r"dimensions must be a \(C,\) tensor"),
    "no dimension": (lambda: cross_entropy(read_off, X, Y, dimensions=torch.tensor([0, 1, 3])), "integers from 0 to 2"),
    "a cluster map": (
        lambda: cross_entropy(read_off, X, Y, dimensions=torch.tensor([0, 1, 1])),
        "two classes the same",
    ),
    "share 0": (lambda: classes_used(read_off, X, share=0.0), "share must be above 0"),
    "share 2": (lambda: classes_used(read_off, X, share=2.0), "share must be above 0 and at most 1"),
    "integers": (lambda: canonical_images(MODEL, GUIDE, X, Y), "y_labelled must be one-hot"),
    "other rows": (lambda: canonical_images(MODEL, GUIDE, X[:2], ONE_HOT), "y_labelled has 6 rows, expected 2"),
    "classes": (lambda: canonical_images(MODEL, GUIDE, X, ONE_HOT[:, :2]), "2 classes"),
    "no z": (lambda: canonical_images(MODEL, WithoutZ(), X, ONE_HOT), "the guide has no site 'z'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_wrong_calls_say_what_is_wrong(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()
