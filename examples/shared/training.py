"""Training: makes the folder of the run, fits the objective, and tells how far it is."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from semipyro.inference import Objective, evaluate, fit

from .command import say
from .fitting import Fitting
from .recipe import Recipe
from .report import announce
from .run_folder import Output, prepare_folder
from .task import Task


@contextmanager
def begin_run(objective: Objective, recipe: Recipe, task: Task, fitting: Fitting, output: Output) -> Iterator[None]:
    """Evaluates two rows, makes the folder of the run with its settings.json, and says what will be trained.

    Until the block ends, no other process gets into the folder.

    Raises:
        ValueError: data that the networks cannot take, or a folder that cannot be this run's; nothing is written then.
    """
    rehearse(objective, task)
    with prepare_folder(output, recipe, task, fitting):
        announce(recipe.title, task, fitting, output)
        yield


def rehearse(objective: Objective, task: Task) -> None:
    """Evaluates two rows of the data, so that what the networks cannot take is refused before a folder is touched."""
    x = task.dataset.train.x[:2]
    try:
        with torch.random.fork_rng(devices=[]):
            terms = evaluate(objective, x)
    except FloatingPointError as error:
        raise ValueError(f"--data {task.data}: {error}") from error
    if not all(map(math.isfinite, terms.values())):
        scale = f"x lies between {x.min().item():g} and {x.max().item():g}; bring its columns to a scale of about 1"
        raise ValueError(f"--data {task.data}: the bound of the first rows is NaN or infinite ({scale})")


def train(
    objective: Objective,
    task: Task,
    fitting: Fitting,
    output: Output,
    *,
    monitor: str = "accuracy",
    report: Callable[[dict[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    """Fits the objective, as ss_vae_m2.py does it, and returns the history.

    There is a checkpoint every epoch. The objective ends with the weights of the epoch whose `monitor` was the best on
    the validation rows: "accuracy", or "unlabelled", the bound, for which no label is read. Where there is a `report`,
    it is called with the numbers of each epoch, and no line is printed.
    """
    x, y = task.dataset.validation.x, task.dataset.validation.y
    return fit(
        objective, task.batches, validation=(x, y if monitor == "accuracy" else None),
        validation_bound_x=task.bound_x(x), monitor=monitor, restore_best=True, out=output.folder,
        resume=output.resume, **fitting.keywords, **progress(fitting, quiet=output.quiet, report=report),
    )  # fmt: skip


def progress(
    fitting: Fitting, *, quiet: bool, report: Callable[[dict[str, float]], None] | None = None
) -> dict[str, Any]:
    """Keywords of `fit` for what is shown: nothing if `quiet`, a bar on a terminal, or else a line now and then."""
    lines = None if sys.stderr.isatty() else reporter(fitting, quiet)
    return {"progress": False if quiet else None, "report": report or lines}


def reporter(fitting: Fitting, quiet: bool) -> Callable[[dict[str, float]], None]:
    """A function that prints the numbers of an epoch, for every tenth of the epochs."""

    def report(row: dict[str, float]) -> None:
        epoch, every = int(row["epoch"]), -(-fitting.epochs // 10)
        if epoch % every == 0 or epoch in (1, fitting.epochs):
            bound, share = row.get("validation_unlabelled"), row.get("validation_accuracy")
            measured = "" if bound is None else f"validation bound {bound:.2f} nats, "
            measured += "" if share is None else f"validation accuracy {share:.1%}, "
            say(f"epoch {epoch}: loss {row['loss']:.2f}, {measured}{row['seconds']:.1f} s", quiet=quiet)

    return report
