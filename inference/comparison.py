"""One model under several guides: how far each bound is from the likelihood, and what a step costs."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from .checks import check_rows
from .evaluation import accuracy, evaluate, log_likelihood
from .fit import Batch, fit
from .objective import Objective
from .semi_supervised import SemiSupervisedELBO

Row = dict[str, Any]
DECIMALS = {"accuracy": 3, "seconds_per_step": 4}


@dataclass(frozen=True)
class Comparison:
    """What `compare_guides` found; it prints as a table, and `pandas.DataFrame(found.rows)` is one.

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
    model: nn.Module,
    guides: Mapping[str, nn.Module],
    batches: Iterable[Batch],
    *,
    epochs: int,
    x: Tensor,
    y: Tensor | None = None,
    objective: Callable[[nn.Module, nn.Module], Objective] = SemiSupervisedELBO,
    num_samples: int = 100,
    draws: int = 10,
    seed: int = 0,
    **fit_settings: Any,
) -> Comparison:
    """Trains each guide with the same budget, from the same start of the model, and compares what they reach.

    A row has `bound` = E_q[log p(x, ·) − log q(· | x)]; `iw_bound`, which is `log_likelihood` with `num_samples` draws;
    `gap`, by how much that is larger, a lower estimate of KL(q ‖ p(· | x)); and `kl` = E_q[log q − log p] of all
    latents, p their prior: these four in nats per row of x. Then `accuracy`, where y is given and the guide
    classifies; the number of the guide's `parameters`; and `seconds_per_step`, of the median epoch.

    Args:
        model: p. It is left as it is: a copy is trained with each guide. To compare guides of a fixed model, freeze it
            (`model.requires_grad_(False)`).
        guides: q by name, such as {"diagonal": M2Guide.build(...), "iaf": M2Guide.build(..., posterior=...)}. They are
            left as they are too. Parts that a guide shares with the model, it shares with the copy.
        batches: as for `fit`; every guide gets the same, in the same order.
        epochs: of each guide.
        x: (N, D) held-out rows.
        y: (N,) their classes, -1 where unknown, or None.
        objective: makes the objective of a model and a guide, such as `ELBO`, or
            `partial(SemiSupervisedELBO, classification_weight=50.0)`.
        num_samples: draws of the importance-weighted bound.
        draws: over how many the bound and the KL are averaged.
        seed: of the training noise of each guide, and of the evaluation.
        fit_settings: further keywords of `fit`, such as `learning_rate`.

    Raises:
        ValueError: no guide; x is not (N, D) finite floats; a draw number below 1; or as `fit`.
    """
    check_rows(x, "x")
    if not guides:
        raise ValueError("guides is empty; give at least one by name, such as {'diagonal': guide}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    rows: list[Row] = []
    trained: dict[str, Objective] = {}
    with torch.random.fork_rng():
        for name, guide in guides.items():
            trained[name] = objective(*copy.deepcopy((model, guide)))
            own = copy.deepcopy(batches)
            torch.manual_seed(seed)
            history = fit(trained[name], own, epochs=epochs, **fit_settings)
            torch.manual_seed(seed)
            rows.append(
                {"guide": name, **_measured(trained[name], x, y, num_samples, draws), **_cost(history, guide, own)}
            )
    return Comparison(rows, trained)


def _measured(objective: Objective, x: Tensor, y: Tensor | None, num_samples: int, draws: int) -> Row:
    bound, reconstruction = _bound(objective, x, draws, 1.0), _bound(objective, x, draws, 0.0)
    likelihood = log_likelihood(objective.model, objective.guide, x, num_samples=num_samples).mean().item()
    found = {"bound": bound, "iw_bound": likelihood, "gap": likelihood - bound, "kl": reconstruction - bound}
    if y is not None and hasattr(objective.guide, "classify"):
        found["accuracy"] = accuracy(objective.guide.classify, x, y)
    return found


def _bound(objective: Objective, x: Tensor, draws: int, kl_weight: float) -> float:
    """The mean bound under a weight of the KL terms, with the same noise for every weight."""
    usual = objective.kl_weight.clone()
    with torch.random.fork_rng():
        try:
            objective.kl_weight.fill_(kl_weight)
            return sum(evaluate(objective, x)["unlabelled"] for _ in range(draws)) / draws
        finally:
            objective.kl_weight.copy_(usual)


def _cost(history: list[dict[str, float]], guide: nn.Module, batches: Iterable[Batch]) -> Row:
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
