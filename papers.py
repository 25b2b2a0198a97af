"""The one table of papers: each row builds a paper's objective, model and guide together, with the paper's settings.

The papers weigh sums over rows, an objective here weighs means. Divided by N_u, the number of unlabelled rows, a sum
over the unlabelled rows is a mean, and what stands beside it becomes a weight of a mean:

    J = Σ_u U + Σ_l L + α mean_l log q   →   J / N_u = mean_u U + (N_l / N_u) mean_l L + (α / N_u) mean_l log q
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from .guides import M2Guide, VAEGuide
from .inference import ELBO, Objective, SemiSupervisedELBO
from .models import M2, VAE


@dataclass(frozen=True)
class Paper:
    """A row of the table.

    Attributes:
        name: its key.
        title: title, authors and year of the paper.
        arxiv: arXiv number.
        classifies: whether the guide has `classify`.
        build: `build(x_dim, y_dim, **settings)` → objective; keywords are those of `Model.build` and of the objective.
        weights: `weights(n_labelled, n_unlabelled, labelled_batch, unlabelled_batch, **settings)` → the objective's
            weights that make its loss the paper's, divided by N_u.
    """

    name: str
    title: str
    arxiv: str
    classifies: bool
    build: Callable[..., Objective]
    weights: Callable[..., dict[str, float]]


def build_m1(x_dim: int, y_dim: int | None = None, *, num_samples: int = 1, **networks: Any) -> ELBO:
    """M1: a VAE, whose `guide.encode` gives the features. `y_dim` is not read."""
    model_only, shared = _split(networks, "likelihood", "scale")
    model = VAE.build(x_dim, **shared, **model_only)
    return ELBO(model, VAEGuide.build(x_dim, **shared), num_samples=num_samples)


def build_m2(
    x_dim: int,
    y_dim: int,
    *,
    labelled_weight: float = 0.1,
    classification_weight: float = 50.0,
    num_samples: int = 1,
    **networks: Any,
) -> SemiSupervisedELBO:
    """M2 with its classifier.

    The default weights are ours, chosen on the validation images of MNIST with a hundred labels and a learning rate of
    3e-3. Jurasiński's thesis has 1 and α = 1 on means over batches of 100 + 100; `weights_m2` gives those of the paper.
    """
    model_only, shared = _split(networks, "likelihood", "scale", "y_prior")
    model: nn.Module = M2.build(x_dim, y_dim, **shared, **model_only)
    return SemiSupervisedELBO(
        model,
        M2Guide.build(x_dim, y_dim, **shared),
        labelled_weight=labelled_weight,
        classification_weight=classification_weight,
        num_samples=num_samples,
    )


def weights_m1(n_labelled: int, n_unlabelled: int, labelled_batch: int, unlabelled_batch: int) -> dict[str, float]:
    """No weight: there is one term."""
    return {}


def weights_m2(
    n_labelled: int, n_unlabelled: int, labelled_batch: int, unlabelled_batch: int, *, alpha: float = 0.1
) -> dict[str, float]:
    """J = Σ_u U + Σ_l L + alpha · N · mean_l log q(y | x), N = N_l + N_u, with the paper's alpha = 0.1 (eq. 9).

    labelled_weight = N_l / N_u, classification_weight = alpha · (N_l + N_u) / N_u. A mean over a batch estimates the
    mean over all rows whatever the batch's size, so the batch sizes do not enter.
    """
    if n_labelled < 0 or n_unlabelled < 1:
        raise ValueError(f"the weights need unlabelled rows, got {n_labelled} labelled and {n_unlabelled} unlabelled")
    n = n_labelled + n_unlabelled
    return {"labelled_weight": n_labelled / n_unlabelled, "classification_weight": alpha * n / n_unlabelled}


def _split(settings: dict[str, Any], *names: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings with these names, and the others."""
    chosen = {name: value for name, value in settings.items() if name in names}
    return chosen, {name: value for name, value in settings.items() if name not in names}


_KINGMA_2014 = "Semi-supervised learning with deep generative models (Kingma, Rezende, Mohamed, Welling, 2014)"

PAPERS: dict[str, Paper] = {
    "m1": Paper("m1", _KINGMA_2014, "1406.5298", False, build_m1, weights_m1),
    "m2": Paper("m2", _KINGMA_2014, "1406.5298", True, build_m2, weights_m2),
}
