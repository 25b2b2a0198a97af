"""The summary: what was run, and what was measured on the test set, in summary.json."""

import platform
from importlib.metadata import version
from typing import Any

import semipyro
from semipyro.files import write_json
from semipyro.inference import Objective, evaluate
from semipyro.inference.training.precision import network_precision

from .fitting import Fitting
from .recipe import Recipe
from .run_folder import Output
from .task import Task


def measure_bound(objective: Objective, task: Task) -> float:
    """The mean over the test rows of the bound on log p(x), in nats."""
    x = task.dataset.test.x
    return evaluate(objective, x, bound_x=task.bound_x(x))["unlabelled"]


def write_summary(
    recipe: Recipe,
    task: Task,
    fitting: Fitting,
    output: Output,
    history: list[dict[str, float]],
    measured: dict[str, Any],
) -> dict[str, Any]:
    """Writes summary.json, and returns what is in it."""
    monitor = "validation_accuracy" if "validation_accuracy" in history[0] else "validation_unlabelled"
    best = max(history, key=lambda row: row[monitor])
    summary = {
        "paper": recipe.paper,
        "data": task.data,
        "labels": task.num_labels,
        "validation_labels": int((task.dataset.validation.y >= 0).sum()),
        "seed": task.seed,
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "seconds": round(sum(row["seconds"] for row in history), 1),
        "precision": network_precision(fitting.precision, fitting.device),
        monitor: best[monitor],
        **measured,
        "versions": versions(),
    }
    write_json(output.folder / "summary.json", summary)
    return summary


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    packages = ("torch", "pyro-ppl", "lightning", "numpy")
    return {"python": platform.python_version(), "semipyro": semipyro.__version__} | {p: version(p) for p in packages}
