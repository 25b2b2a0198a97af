"""What a run prints: what it will train, tables of what it measured, and where its files are."""

import sys
from textwrap import dedent
from typing import Any

from .command import say
from .fitting import Fitting
from .recipe import Recipe
from .run_folder import Output
from .task import Task


def announce(title: str, task: Task, fitting: Fitting, output: Output) -> None:
    """Prints a line on what is about to be trained."""
    extra = f" ({task.num_classes} classes)" if task.extra else ""
    say(f"{title} on {task.data}: {len(task.y)} training rows, {task.num_labels} labels{whose_labels(task)}; "
        f"D = {task.x_dim}, K = {task.y_dim}{extra}; {task.likelihood} likelihood{', binarised' * task.binarized}; "
        f"{fitting.epochs} epochs, {'resumed' if output.resume else 'written'} in {output.folder}",
        quiet=output.quiet)  # fmt: skip


def whose_labels(task: Task) -> str:
    """In brackets, how the labels are spread over the classes; nothing where there is no label."""
    if not task.num_labels:
        return ""
    sizes = task.y[task.y >= 0].unique(return_counts=True)[1]
    each = f"{sizes[0]} of each class" if len(set(sizes.tolist())) == 1 else "all of their classes"
    hidden = f", none of class {' '.join(map(str, task.hidden))}" if task.hidden else ""
    return f" ({'its own' if (task.dataset.train.y < 0).any() else each}{hidden})"


def print_table(output: Output, measure: str, rows: dict[str, float]) -> None:
    """Prints a table of what was measured, in percent."""
    width = max(52, 2 + max(map(len, rows)))
    say(f"\n{'':{width}}{measure}", quiet=output.quiet)
    for name, value in rows.items():
        say(f"{name:{width}}{value:{len(measure)}.1%}", quiet=output.quiet)


def tell_details(output: Output, recipe: Recipe, task: Task, summary: dict[str, Any]) -> None:
    """Prints how the epoch was chosen, the bound, and how many classes are in use."""
    say(f"For both, the epoch was chosen by accuracy on the {summary['validation_labels']} validation labels (of "
        f"q(y|x) with one draw): {recipe.title}'s is {summary['best_epoch']} of {summary['epochs']}.",
        quiet=output.quiet)  # fmt: skip
    tell_bound(output, summary)
    tell_classes(output, task, summary["classes_used"])


def tell_bound(output: Output, summary: dict[str, Any]) -> None:
    """Prints the bound, and how long the training took."""
    of = f" (of {summary['bound_of']})" if "bound_of" in summary else ""
    say(f"Test bound {summary['bound']:.2f} nats{of}; trained in {summary['seconds']:.0f} s.", quiet=output.quiet)


def tell_classes(output: Output, task: Task, used: int) -> None:
    """Prints how many classes the classifier uses, and warns where they are fewer than those with labels."""
    labelled = len(task.y[task.y >= 0].unique())
    rows = "unlabelled" if (task.y < 0).any() else "training"
    say(f"On the {rows} rows the classifier uses {used} of {task.y_dim} classes.", quiet=output.quiet)
    if used < labelled:
        print(f"warning: the classifier uses {used} of {task.y_dim} classes on the {rows} rows, fewer than the "
              f"{labelled} with labels: it has collapsed", file=sys.stderr)  # fmt: skip


def print_files(output: Output, paper: str) -> None:
    """Prints where the files of the run are, and how the model is loaded in Python."""
    text = f"""
    Settings, numbers, checkpoints and figures are in {output.folder}. To use the model in Python:

        import json
        from pathlib import Path
        from semipyro.inference import load_weights
        from semipyro.papers import PAPERS

        out = Path("{output.folder}")
        objective = PAPERS["{paper}"].build(**json.loads((out / "settings.json").read_text())["build"])
        load_weights(objective, out / "checkpoints" / "best.ckpt")"""
    say(dedent(text), quiet=output.quiet)
