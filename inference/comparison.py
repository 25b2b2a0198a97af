"""Guides side by side: how far each bound is from the likelihood, and what a step costs."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from .. import contract
from ..checks import check_counts
from ..contract import Guide, Model
from .evaluation import accuracy, evaluate, log_likelihood
from .objectives import Objective, SemiSupervisedELBO
from .objectives.checks import check_rows
from .objectives.kl_weight import weighted_by
from .training import Batch, fit

Row = dict[str, Any]
DECIMALS = {"accuracy": 3, "seconds_per_step": 4}


@dataclass(frozen=True)
class Comparison:
    """What a comparison found; it prints as a table, and `pandas.DataFrame(found.rows)` is one.

    Attributes:
        rows: a dict for each guide.
        objectives: the trained objective of each guide.
    """

    rows: list[Row]
    objectives: dict[str, Objective]

    def __str__(self) -> str:
        """A line for each guide, under the names of the columns."""
        names = [name.replace("_", " ") for name in self.rows[0]]
        lines = [names, *([_written(*item) for item in row.items()] for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
        )


def compare_guides(
    model: Model,
    guides: Mapping[str, Guide],
    batches: Iterable[Batch],
    *,
    objective: Callable[..., Objective] = SemiSupervisedELBO,
    **settings: Any,
) -> Comparison:
    """Trains each guide with the same budget, from the same start of the model, and compares what they reach.

    Args:
        model: p. It is left as it is: a copy is trained with each guide. To compare guides of a fixed model, freeze it
            (`model.requires_grad_(False)`).
        guides: q by name, such as {"diagonal": M2Guide.build(...), "iaf": M2Guide.build(..., posterior=...)}. They are
            left as they are too. Parts that a guide shares with the model, as the thesis' guide does p(y | z), it
            shares with the copy.
        batches: as for `fit`; every guide gets the same, in the same order.
        objective: makes the objective of a model and a guide, such as `ELBO`, or
            `partial(SemiSupervisedELBO, classification_weight=50.0)`.
        settings: keywords of `compare_objectives`: `epochs`, `x`, `y`, …

    Raises:
        ValueError: as `compare_objectives`.
    """
    made = {name: objective(*copy.deepcopy((model, guide))) for name, guide in guides.items()}
    return compare_objectives(made, batches, **settings)


def compare_objectives(
    objectives: Mapping[str, Objective],
    batches: Iterable[Batch],
    *,
    epochs: int,
    x: Tensor,
    y: Tensor | None = None,
    bound_x: Tensor | None = None,
    num_samples: int = 100,
    draws: int = 10,
    seed: int = 0,
    **fit_settings: Any,
) -> Comparison:
    """Trains each objective with the same budget, and compares what they reach.

    Objectives that one row of `papers.py` built with the same seed, but with different posteriors, start from the same
    weights of the model.

    A row has `bound` = E_q[log p(x, ·) − log q(· | x)]; `iw_bound`, which is `log_likelihood` with `num_samples` draws;
    `gap`, by how much that is larger, a lower estimate of KL(q ‖ p(· | x)); and `kl` = E_q[log q − log p] of all
    latents, p their prior: these four in nats per row of x. Then `accuracy`, where y is given and the guide
    classifies, with `num_samples` draws; the number of the guide's `parameters`; and `seconds_per_step`, of the median
    epoch.

    Args:
        objectives: by the names of their guides. They are left as they are: copies are trained.
        batches: as for `fit`; every objective gets the same, in the same order.
        epochs: of each.
        x: (N, D) held-out rows.
        y: (N,) their classes, -1 where unknown, or None.
        bound_x: the rows on which bounds and KL are computed, where they differ from x: binarised, or fewer.
        num_samples: draws of the importance-weighted bound and of the classifier.
        draws: over how many the bound and the KL are averaged.
        seed: of the training noise, and of the evaluation.
        fit_settings: further keywords of `fit`, such as `learning_rate`.

    Raises:
        ValueError: nothing to compare; x or bound_x is not (N, D) finite floats; a draw number below 1; or as `fit`.
    """
    check_rows(x, "x")
    measured_x = x if bound_x is None else bound_x
    check_rows(measured_x, "bound_x")
    if not objectives:
        raise ValueError("there is nothing to compare; give at least one guide by name, such as {'diagonal': guide}")
    check_counts(draws=draws)
    rows: list[Row] = []
    trained: dict[str, Objective] = {}
    with torch.random.fork_rng():
        for name, objective in objectives.items():
            own, its_batches = copy.deepcopy(objective), copy.deepcopy(batches)
            torch.manual_seed(seed)
            history = fit(own, its_batches, epochs=epochs, **fit_settings)
            torch.manual_seed(seed)
            found = _bounds(own, measured_x, num_samples, draws)
            if y is not None and contract.classifies(own.guide):
                torch.manual_seed(seed)
                classify = contract.classifier(own.guide)
                found["accuracy"] = accuracy(partial(classify, num_samples=num_samples), x, y)
            rows.append({"guide": name, **found, **_cost(history, own.guide, its_batches)})
            trained[name] = own
    return Comparison(rows, trained)


def _bounds(objective: Objective, x: Tensor, num_samples: int, draws: int) -> Row:
    bound, reconstruction = _bound(objective, x, draws, 1.0), _bound(objective, x, draws, 0.0)
    likelihood = log_likelihood(objective.model, objective.guide, x, num_samples=num_samples).mean().item()
    return {"bound": bound, "iw_bound": likelihood, "gap": likelihood - bound, "kl": reconstruction - bound}


def _bound(objective: Objective, x: Tensor, draws: int, kl_weight: float) -> float:
    """The mean of the bound over the draws at this `kl_weight`; the noise is the same for every weight."""
    with torch.random.fork_rng(), weighted_by(objective.kl_weight, kl_weight):
        return sum(evaluate(objective, x)["unlabelled"] for _ in range(draws)) / draws


def _cost(history: list[dict[str, float]], guide: Guide, batches: Iterable[Batch]) -> Row:
    steps = len(batches) if isinstance(batches, Sized) else sum(1 for _ in batches)
    seconds = median(row["seconds"] for row in history)
    return {
        "parameters": sum(parameter.numel() for parameter in guide.parameters()),
        "seconds_per_step": seconds / steps,
    }


def _written(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.{DECIMALS.get(name, 2)}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
