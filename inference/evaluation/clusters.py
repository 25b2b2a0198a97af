"""Measures of a classifier whose classes were found and not taught: clusters, and dimensions of y without labels.

    cluster-and-label: accuracy = mean_n [map(k_n) = y_n],   k_n = argmax q(y | x_n),   map(k) = k's majority class
    matching:          π = argmax Σ_c scores[c, π(c)] over injective π,   cross entropy = −mean_n log q(π(y_n) | x_n)

A classifier is any callable x → `OneHotCategorical` of batch shape (N,), such as a guide's `classify`, or a module.

Shapes: x (N, D); y (N,) integer labels, -1 where unknown; K clusters, C classes.
References: Willetts et al. (2019), arXiv:1901.08560, section 6.3; Gemp et al. (2017), section 3 and Fig. 2.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import OneHotCategorical
from torch import Tensor

from ... import contract
from ...contract import Classifier, Guide, Model
from ...distributions import central_value
from ...modules import evaluating, module_tensor
from ...threads import ONE_AT_A_TIME
from ..objectives.checks import check_labels, check_one_hot, check_rows
from .measures import ROWS
from .sampling import sample


def cluster_map(classifier: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """map(k) = argmax_c #{n : argmax q(y | x_n) = k, y_n = c}: the majority true class of each cluster, (K,) int64.

    Where two classes are equally frequent, the smaller one counts. A cluster without labelled rows gets -1, which no
    label equals.

    Args:
        classifier: x → `OneHotCategorical`.
        x: (N, D).
        y: (N,) integer labels; rows with -1 are left out.

    Raises:
        ValueError: x and y of different length, y not integer labels, or no row with a label.
    """
    clusters, labels, num_clusters = _labelled_clusters(classifier, x, y)
    return _majority(clusters, labels, num_clusters)


def cluster_accuracy(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    classes: Collection[int] | None = None,
    map_from: tuple[Tensor, Tensor] | None = None,
) -> float:
    """mean_n [map(argmax q(y | x_n)) = y_n]: the accuracy after each cluster is given its majority class.

    Without `map_from` the map is fitted on (x, y) itself, as Willetts et al. (2019), arXiv:1901.08560, section 6.3, do
    on the test set. Such a map flatters the clusters: with as many clusters as rows the accuracy is 1. Fit it on the
    validation rows.

    Args:
        classifier: x → `OneHotCategorical`.
        x: (N, D), the rows that are measured.
        y: (N,) integer labels; rows with -1 are left out.
        classes: measure only rows of these true classes. The map is still fitted on all labelled rows.
        map_from: (x', y') on which the map is fitted, such as the validation split.

    Raises:
        ValueError: rows and labels of different length, labels that are not integers, or no row to fit or measure.
    """
    if map_from is not None and not (isinstance(map_from, tuple) and len(map_from) == 2):
        raise ValueError(f"map_from must be a pair (x, y) of rows and integer labels, got {type(map_from).__name__}")
    clusters, labels, num_clusters = _labelled_clusters(classifier, x, y)
    fitted = _majority(clusters, labels, num_clusters) if map_from is None else cluster_map(classifier, *map_from)
    measured = _of_classes(labels, classes)
    return (fitted[clusters] == labels)[measured].double().mean().item()


def match_dimensions(scores: Tensor) -> Tensor:
    """π = argmax Σ_c scores[c, π(c)] over all ways to give every class a dimension of its own, (C,) int64.

    The optimal form of the matching in "Inverting VAEs for improved generative accuracy" (Gemp et al., 2017): their
    scores are log-probabilities of the classes for the canonical image of each dimension (`canonical_images`), under
    a classifier that was trained with all labels. The Hungarian algorithm, by SciPy.

    Args:
        scores: (C, K) of class c on dimension k, larger is better; −∞ where they must not be matched. C ≤ K.

    Raises:
        ValueError: not a (C, K) tensor of floats with C ≤ K, NaN or +∞ in it, or −∞ where it leaves no matching.

    Example:
        >>> match_dimensions(torch.tensor([[0.9, 0.8, 0.1], [0.9, 0.1, 0.1]]).log())  # 0 yields its best to 1
        tensor([1, 0])
    """
    if not isinstance(scores, Tensor) or scores.ndim != 2 or not scores.is_floating_point() or not scores.numel():
        raise ValueError("scores must be a (C, K) tensor of floats: a row for each class, a column for each dimension")
    if scores.shape[0] > scores.shape[1]:
        raise ValueError(f"scores has {scores.shape[0]} classes for {scores.shape[1]} dimensions; expected C ≤ K")
    if bool((scores.isnan() | (scores == torch.inf)).any()):
        raise ValueError("scores holds NaN or +infinity; expected log-probabilities")
    from scipy.optimize import linear_sum_assignment

    try:
        _, dimensions = linear_sum_assignment(scores.detach().double().cpu().numpy(), maximize=True)
    except ValueError as error:
        raise ValueError("scores is -infinity in so many places that no matching is left") from error
    return torch.as_tensor(dimensions)


def cross_entropy(classifier: Classifier, x: Tensor, y: Tensor, *, dimensions: Tensor | None = None) -> float:
    """−mean_n log q(y = dimensions[y_n] | x_n), in nats; log K for a classifier that knows nothing.

    Log-probabilities are those of the log-softmax where the classifier has logits, and nothing is clipped: a true
    class of probability 0 makes the cross-entropy infinite. Gemp et al. (2017) clip at 1e-6 and report 2.07, and
    2.30 = ln 10 for M2.

    Args:
        classifier: x → `OneHotCategorical`.
        x: (N, D).
        y: (N,) integer labels; rows with -1 are left out.
        dimensions: (C,) the dimension of y that stands for each class, all different, such as `match_dimensions` gives;
            class c stands for itself where None.

    Raises:
        ValueError: x and y of different length, y not integer labels below C, no row with a label, or `dimensions`
            not different integers from 0 to K-1.
    """
    known = _known(x, y)
    log_q = log_probabilities(classifier, x[known.to(x.device)])  # (N, K)
    num_dimensions = log_q.shape[1]
    if dimensions is None:
        dimensions = torch.arange(num_dimensions)
    _check_dimensions(dimensions, num_dimensions)
    check_labels(y, x, len(dimensions), "y")
    chosen = dimensions.cpu()[y[known].cpu()]
    return -log_q.gather(1, chosen[:, None]).double().mean().item()


def classes_used(classifier: Classifier, x: Tensor, *, share: float = 0.1) -> int:
    """#{k : #{n : argmax q(y | x_n) = k} ≥ share · N / K}: how many classes the classifier uses.

    A class counts where it is the most probable of at least `share` of an equal share of the rows. K where the classes
    are used evenly, 1 where y has collapsed.

    Args:
        classifier: x → `OneHotCategorical`.
        x: (N, D).
        share: above 0, up to 1.

    Raises:
        ValueError: x is not (N, D) finite floats, or `share` is outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share!r}")
    q = probabilities(classifier, x)  # (N, K)
    num_rows, num_classes = q.shape
    counts = q.argmax(-1).bincount(minlength=num_classes)
    return int((counts * num_classes >= share * num_rows).sum())


@ONE_AT_A_TIME
def canonical_images(model: Model, guide: Guide, x_labelled: Tensor, y_labelled: Tensor) -> Tensor:
    """E[x | y = e_k, z̄] for k = 0, …, K-1, (K, D);      z̄ = mean_n E[z], z ~ q(z | x_n, y_n).

    What each dimension of y stands for, in one picture: Fig. 2 of "Inverting VAEs for improved generative accuracy"
    (Gemp et al., 2017). Where q(z | x, y) is transformed, its mean is the image of the base's (`central_value`).
    The images differ only where p(x | y, z) reads y. A latent other than z is drawn from the model.

    Args:
        model: p, with the sites y and z.
        guide: q, with the site z, called as `guide(x, y)`.
        x_labelled: (N, D).
        y_labelled: one-hot (N, K).

    Raises:
        ValueError: x or y of another shape, y not one-hot, or a model or guide without these sites.
    """
    check_rows(x_labelled, "x_labelled")
    check_one_hot(y_labelled, "y_labelled", rows=len(x_labelled), num_classes=contract.num_classes(model))
    device = module_tensor(guide).device
    pairs = zip(x_labelled.split(ROWS), y_labelled.split(ROWS), strict=True)
    with evaluating(guide):
        z = torch.cat([_mean_of_z(guide, x.to(device), y.to(device)) for x, y in pairs]).mean(0)
    num_classes = y_labelled.shape[1]
    classes = torch.eye(num_classes, dtype=z.dtype)
    return sample(model, num_classes, classes, latents={"z": z.expand(num_classes, -1)}, mean=True)


def probabilities(classifier: Classifier, x: Tensor) -> Tensor:
    """q(y | x), (N, K), on the CPU, computed in evaluation mode and in chunks."""
    return _of_rows(classifier, x, lambda found: found.probs)


def log_probabilities(classifier: Classifier, x: Tensor) -> Tensor:
    """log q(y | x), (N, K), on the CPU; −∞ where a classifier made from probabilities says 0."""
    return _of_rows(classifier, x, _log_probs)


def _of_rows(classifier: Classifier, x: Tensor, read: Callable[[OneHotCategorical], Tensor]) -> Tensor:
    check_rows(x, "x")
    device = module_tensor(classifier).device
    with evaluating(classifier):
        found = torch.cat([read(classifier(rows.to(device))).cpu() for rows in x.split(ROWS)])
    if found.ndim != 2 or len(found) != len(x):
        raise ValueError(f"the classifier gave probabilities of shape {tuple(found.shape)} for the {len(x)} rows of x")
    return found


def _log_probs(found: OneHotCategorical) -> Tensor:
    """log q(y | x) from probabilities where these were given, as PyTorch would clip them at 1e-7 for its logits."""
    given_logits = found._param is found.logits
    return found.logits if given_logits else found.probs.log()


def _known(x: Tensor, y: Tensor) -> Tensor:
    """Which rows have a label, (N,) of booleans; a ValueError where none has."""
    check_rows(x, "x")
    check_labels(y, x, None, "y")
    known = y >= 0
    if not known.any():
        raise ValueError("y has no label: pass at least one row whose class is known")
    return known


def _labelled_clusters(classifier: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, int]:
    """The cluster and the class of each row that has a label, and K."""
    known = _known(x, y)
    q = probabilities(classifier, x[known.to(x.device)])  # (N, K)
    return q.argmax(-1), y[known].cpu().long(), q.shape[1]


def _majority(clusters: Tensor, labels: Tensor, num_clusters: int) -> Tensor:
    classes, codes = labels.unique(return_inverse=True)  # sorted; a label may be any number
    counts = (clusters * len(classes) + codes).bincount(minlength=num_clusters * len(classes))
    counts = counts.view(num_clusters, len(classes))
    return torch.where(counts.sum(1) > 0, classes[counts.argmax(1)], -1)  # argmax gives the first of equals


def _of_classes(labels: Tensor, classes: Collection[int] | None) -> Tensor:
    """Which rows are of these classes; a ValueError where none is."""
    if classes is None:
        return torch.ones_like(labels, dtype=torch.bool)
    chosen = torch.isin(labels, torch.as_tensor(list(classes), dtype=labels.dtype))
    if not chosen.any():
        raise ValueError(f"no row has a true class in classes={sorted(classes)}; y has {labels.unique().tolist()}")
    return chosen


def _check_dimensions(dimensions: Tensor, num_dimensions: int) -> None:
    if not isinstance(dimensions, Tensor) or dimensions.ndim != 1 or dimensions.is_floating_point():
        raise ValueError("dimensions must be a (C,) tensor of integers: the dimension of y that stands for each class")
    if len(dimensions) == 0 or dimensions.min() < 0 or dimensions.max() >= num_dimensions:
        raise ValueError(f"dimensions must hold integers from 0 to {num_dimensions - 1}, got {dimensions.tolist()}")
    if len(dimensions.unique()) < len(dimensions):
        raise ValueError(
            f"dimensions gives two classes the same dimension, {dimensions.tolist()}; match_dimensions gives each one"
        )


def _mean_of_z(guide: Guide, x: Tensor, y: Tensor) -> Tensor:
    nodes: Any = poutine.trace(guide).get_trace(x, y).nodes
    if "z" not in nodes:
        raise ValueError("the guide has no site 'z', whose mean the canonical images are generated from")
    return central_value(nodes["z"]["fn"])
