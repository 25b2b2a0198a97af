"""Wrong calls of measures and samples, and what each is told: the argument, what was expected, what came."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from semipyro.inference import accuracy, cascade, evaluate, log_likelihood, sample

from helpers.bad_calls import NAN, X, Y, as_parameters, built, labels, m2, pattern, vae


def likelihood_of(x: Any, **settings: Any) -> Any:
    objective = m2()
    return log_likelihood(objective.model, objective.guide, x, **settings)


def accuracy_of(x: Any, y: Any) -> Any:
    return accuracy(m2().guide.classify, x, y)


def draws(n: Any, *y: Any, **settings: Any) -> Any:
    return sample(m2().model, n, *y, **settings)


BAD_CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "one row": (lambda: likelihood_of(X[0]), "x must be a (N, D) .* got shape (5,)"),
    "NaN": (lambda: likelihood_of(NAN * X), "x holds NaN or infinity in 4 of 4 rows"),
    "no rows": (lambda: likelihood_of(X[:0]), "x has no rows"),
    "no samples": (lambda: likelihood_of(X, num_samples=0), "num_samples must be an integer of at least 1, got 0"),
    "outside [0, 1]": (lambda: likelihood_of(2 * X), "x must lie in [0, 1]"),
    "one-hot labels": (lambda: accuracy_of(X, Y), "y must be 4 integer labels, got shape (4, 3) of torch.float32"),
    "fewer labels": (lambda: accuracy_of(X, labels(0, 1)), "y must be 4 integer labels, got shape (2,)"),
    "unlabelled rows alone": (lambda: accuracy_of(X, labels(-1, -1, -1, -1)), "y has no label"),
    "a label of no class": (
        lambda: accuracy_of(X, labels(0, 1, 2, 3)),
        "y must hold labels 0 to 2, or -1 where unlabelled, got 0 to 3",
    ),
    "a label below -1": (
        lambda: accuracy_of(X, labels(0, 1, 2, -2)),
        "y must hold labels 0 to 2, or -1 where unlabelled, got -2 to 2",
    ),
    "a label of no class to evaluate": (lambda: evaluate(m2(), X, labels(0, 1, 2, 3)), "labels 0 to 2, or -1"),
    "one-hot labels for a cascade": (
        lambda: accuracy(cascade(built("cagem").model, built("cagem").guide), X, Y),
        "y must be 4 integer labels, got shape (4, 3)",
    ),
    "NaN to evaluate": (lambda: evaluate(m2(), NAN * X), "x holds NaN or infinity in 4 of 4 rows"),
    "a site that is not there": (lambda: draws(4, latents={"a": X}), "the model has no site a, only y, z, x"),
    "classes of a VAE": (lambda: sample(vae().model, 4, Y), "the model has no site y, only z, x"),
    "no draws": (lambda: draws(0), "n must be an integer of at least 1, got 0"),
    "half a draw": (lambda: draws(2.5), "n must be an integer of at least 1, got 2.5"),
    "labels of other draws": (lambda: draws(3, Y), "y has 4 rows, expected 3"),
    "latents of other draws": (lambda: draws(4, latents={"z": torch.zeros(3, 2)}), "z has 3 rows, but n = 4"),
    "latents of another width": (
        lambda: draws(4, latents={"z": torch.zeros(4, 3)}),
        "shape (..., 2), got shape (4, 3)",
    ),
}


@pytest.mark.parametrize(("call", "message"), as_parameters("evaluation", BAD_CALLS))
def test_bad_calls(call: Callable[[], Any], message: str) -> None:
    """A `ValueError` that says what was wrong."""
    with pytest.raises(ValueError, match=pattern(message)):
        call()
