"""Measures of a trained model: its bounds, accuracy, and the importance-weighted bound.

No gradient is computed here, and nothing depends on a paper: a classifier is any callable x → `OneHotCategorical`, and
model and guide are any that keep the contract.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ... import contract
from ...checks import check_counts
from ...contract import Classifier, Guide, Model
from ...modules import evaluating, module_tensor
from ...threads import ONE_AT_A_TIME
from ..objectives import Objective
from ..objectives.checks import check_labels, check_rows
from ..objectives.enumeration import class_weights

ROWS = 2_000  # rows of one call of a classifier
BOUND_ROWS = 1_000  # rows of one call of an objective
DRAWS = 100_000  # rows times samples times classes of one call of a decoder


def accuracy(classifier: Classifier, x: Tensor, y: Tensor) -> float:
    """The fraction of rows whose most probable class is the true one.

    Args:
        classifier: x → `OneHotCategorical` of batch shape (N,), such as a guide's `classify`, or a module.
        x: (N, D).
        y: (N,) integer labels; rows with -1 (unlabelled) are left out.

    Raises:
        ValueError: x and y of different length, y not integer labels below K, or no row with a label.
    """
    check_rows(x, "x")
    device = module_tensor(classifier).device
    with evaluating(classifier):
        check_labels(y, x, classifier(x[:1].to(device)).event_shape[0], "y")
        known = y >= 0
        if not known.any():
            raise ValueError("y has no label: accuracy needs at least one row whose class is known")
        parts = x[known.to(x.device)].split(ROWS)
        predicted = torch.cat([classifier(rows.to(device)).probs.argmax(-1).cpu() for rows in parts])
    return (predicted == y[known].cpu()).sum().item() / len(predicted)


def check_validation(x: Tensor, y: Tensor | None, bound_x: Tensor | None) -> None:
    """A ValueError unless x holds rows, y as many integer labels, and bound_x as many rows as x."""
    check_rows(x, "x")
    if y is not None:
        check_labels(y, x, None, "y")
    if bound_x is not None:
        check_rows(bound_x, "bound_x")
        if bound_x.shape != x.shape:
            raise ValueError(f"bound_x must have the shape of x, {tuple(x.shape)}, got {tuple(bound_x.shape)}")


@ONE_AT_A_TIME
def evaluate(
    objective: Objective, x: Tensor, y: Tensor | None = None, *, bound_x: Tensor | None = None
) -> dict[str, float]:
    """Every term of the objective, in nats per data point, and the accuracy; in evaluation mode, without gradients.

    Unlabelled terms are means over all rows, labelled ones over the rows with a label.

    Args:
        objective: any objective.
        x: (N, D).
        y: (N,) integer labels, -1 where unlabelled, or None.
        bound_x: the rows for the terms, where they differ from those to classify (images that were binarised once,
            while the classifier sees them in grey).

    Raises:
        ValueError: x or bound_x is not (N, D) finite floats, or y not integer labels below K.
    """
    check_validation(x, y, bound_x)
    device = module_tensor(objective).device
    x = x.to(device)
    rows = x if bound_x is None else bound_x.to(device)
    with evaluating(objective):
        terms = _mean_terms(objective, [(None, None, part) for part in rows.split(BOUND_ROWS)])
        if y is None or not (y >= 0).any() or not contract.classifies(objective.guide):
            return terms
        return terms | _labelled_measures(objective, x, y.to(device), rows)


def _labelled_measures(objective: Objective, x: Tensor, y: Tensor, rows: Tensor) -> dict[str, float]:
    """The labelled terms of `rows` and the accuracy on `x`, where y is known."""
    classify = contract.classifier(objective.guide)
    num_classes = classify(x[:1]).event_shape[0]
    check_labels(y, x, num_classes, "y")
    known = y >= 0
    one_hot = functional.one_hot(y[known], num_classes).to(x)
    pairs = zip(rows[known].split(BOUND_ROWS), one_hot.split(BOUND_ROWS), strict=True)
    terms = _mean_terms(objective, [(part, classes, None) for part, classes in pairs])
    return {**terms, "accuracy": accuracy(classify, x, y)}


@ONE_AT_A_TIME
def log_likelihood(model: Model, guide: Guide, x: Tensor, *, num_samples: int = 1000) -> Tensor:
    """The importance-weighted bound on log p(x), with y summed out exactly, (N,) in nats.

        log 1/S Σ_s Σ_y p(x, y, z_s^y) / q(z_s^y | x, y),      z_s^y ~ q(z | x, y)

    where z stands for all continuous latents, of which those drawn before y (a, z1) are the same for every y. Its mean
    rises with S towards log p(x). For S = 1 it is already at least the ELBO, even that with the best q(y | x).
    "Importance weighted autoencoders" (Burda et al., 2015), arXiv:1509.00519, eq. (8).

    Args:
        model: p, called as `model(x, y=None)`.
        guide: q, called as `guide(x, y=None)`.
        x: (N, D).
        num_samples: S; memory does not grow with it.

    Raises:
        ValueError: x is not (N, D) finite floats, or `num_samples` is not a positive integer.
    """
    check_rows(x, "x")
    check_counts(num_samples=num_samples)
    x = x.to(module_tensor(guide).device)
    with evaluating(model, guide):
        draws = max(1, DRAWS // _num_classes(model, guide, x[:1]))
        parts = x.split(max(1, draws // num_samples))
        return torch.cat([_log_mean_weight(model, guide, part, num_samples, draws) for part in parts])


def _mean_terms(objective: Objective, parts: Sequence[tuple[Tensor | None, ...]]) -> dict[str, float]:
    """Each term's mean over all rows of the parts."""
    sums: dict[str, float] = {}
    count = 0
    for part in parts:
        rows = max(len(tensor) for tensor in part if tensor is not None)
        count += rows
        for name, term in objective.terms(*part).items():
            sums[name] = sums.get(name, 0.0) + rows * term.item()
    return {name: total / count for name, total in sums.items()}


def _num_classes(model: Model, guide: Guide, x: Tensor) -> int:
    """K where the model has a site y, else 1."""
    return len(class_weights(model, guide, x, 1).log_w)


def _log_mean_weight(model: Model, guide: Guide, x: Tensor, num_samples: int, draws: int) -> Tensor:
    """log 1/S Σ_s Σ_y w_y(s) for each row, `draws` of the S at a time, (N,)."""
    total = x.new_full((len(x),), -math.inf)
    for start in range(0, num_samples, draws):
        log_weights = class_weights(model, guide, x, min(draws, num_samples - start)).log_w  # K, S, N
        total = torch.logaddexp(total, log_weights.flatten(0, 1).logsumexp(0))
    return total - math.log(num_samples)
