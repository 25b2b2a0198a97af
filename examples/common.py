"""What the examples share: the data with its labels hidden, training, the baseline, and what is shown and written."""

import argparse
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent
from typing import Any

import semipyro
import torch
from command_line import write_json
from semipyro import plots
from semipyro.data import Batches, Dataset, batches, binarize, load, mask_labels
from semipyro.inference import Objective, accuracy, check_fit_settings, evaluate, fit
from torch import Tensor, nn

EPOCHS = {"moons": 60, "circles": 60, "mnist": 60, "fashion-mnist": 60, "omniglot": 60}
LABELS = 100


@dataclass(frozen=True)
class Task:
    """A data set with its labels masked, ready to be trained on."""

    dataset: Dataset
    y: Tensor
    batches: Batches
    binarized: bool

    @property
    def num_classes(self) -> int:
        """K."""
        return self.dataset.num_classes

    @property
    def x_dim(self) -> int:
        """D."""
        return self.dataset.train.x.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in which a row is drawn: (H, W), also of images with one channel, or else (D,)."""
        sides = tuple(side for side in self.dataset.shape if side > 1)
        return sides if len(sides) == 2 else (self.x_dim,)

    def bound_x(self, x: Tensor) -> Tensor | None:
        """The rows on which bounds are measured where the images were binarised: x binarised once; else None."""
        return binarize(x, seed=0) if self.binarized else None


def make_task(args: argparse.Namespace) -> Task:
    """Loads the data, hides all but `--labels` labels, and makes the batches; decides what the flags leave open."""
    args.epochs = args.epochs or EPOCHS.get(args.data, 100)
    check_fit_settings(**fit_settings(args))
    dataset = load(args.data, args.data_root)
    decide_likelihood(args, dataset)
    y = keep_labels(args, dataset)
    args.labels = int((y >= 0).sum())
    rows = batches(
        dataset.train.x, y, labelled_batch_size=args.labelled_batch_size, unlabelled_batch_size=args.batch_size,
        binarize=args.binarize, seed=args.seed, num_classes=dataset.num_classes,
    )  # fmt: skip
    return Task(dataset, y, rows, args.binarize)


def fit_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Keywords of `fit`, from the flags."""
    names = ("epochs", "learning_rate", "weight_decay", "kl_warmup", "device", "precision")
    return {name: getattr(args, name) for name in names} | {"gradient_clip_norm": args.gradient_clip}


def decide_likelihood(args: argparse.Namespace, dataset: Dataset) -> None:
    """Decides --likelihood auto and --binarize by the data, and refuses what does not go with them."""
    splits = (dataset.train, dataset.validation, dataset.test)
    low, high = min(split.x.min().item() for split in splits), max(split.x.max().item() for split in splits)
    if args.likelihood == "auto":
        args.likelihood = "bernoulli" if low >= 0 and high <= 1 else "normal"
    bernoulli = args.likelihood == "bernoulli"
    args.binarize = bernoulli if args.binarize is None else args.binarize
    if (bernoulli or args.binarize) and (low < 0 or high > 1):
        flag = "--likelihood bernoulli" if bernoulli else "--binarize"
        raise ValueError(f"{flag} needs data in [0, 1], but {args.data} has values from {low:g} to {high:g}")
    if args.scale is not None and bernoulli:
        raise ValueError("--scale needs a normal likelihood; add --likelihood normal, or leave --scale out")


def keep_labels(args: argparse.Namespace, dataset: Dataset) -> Tensor:
    """`--labels` of the training labels, as many of each class, or the data's own where some rows have none."""
    y, num_classes = dataset.train.y, dataset.num_classes
    if num_classes < 2:
        raise ValueError(f"--data {args.data} has {num_classes} classes; this example needs labels of two or more")
    sizes = y[y >= 0].bincount(minlength=num_classes)
    if not sizes.all():
        raise ValueError(f"--data {args.data} has no training row labelled {sizes.argmin()}; it needs classes 0 to K-1")
    if (y < 0).any():
        if args.labels is not None:
            raise ValueError(f"--labels: {args.data} keeps its own, since some rows have none (y = -1); leave it out")
        return y
    asked, most = args.labels or LABELS, num_classes * int(sizes.min())
    if not num_classes <= asked <= most:
        raise ValueError(f"--labels must be from {num_classes}, one for each class of {args.data}, to {most}, as many "
                         f"of each as class {sizes.argmin()} has, got {asked}")  # fmt: skip
    return mask_labels(y, per_class=asked // num_classes, seed=args.seed)


def network_settings(args: argparse.Namespace, task: Task) -> dict[str, Any]:
    """Keywords of a paper's `build`, from the flags and the data."""
    names = ("z_dim", "hidden", "activation", "num_samples", "likelihood")
    scale = {} if args.scale is None else {"scale": args.scale}
    return {"x_dim": task.x_dim, "y_dim": task.num_classes, **{name: getattr(args, name) for name in names}, **scale}


def say(args: argparse.Namespace, text: str) -> None:
    """Prints at once, also into a file or a pipe, unless --quiet."""
    if not args.quiet:
        print(text, flush=True)


def announce(args: argparse.Namespace, model_name: str, task: Task) -> None:
    """One line on what is about to be trained."""
    own = bool((task.dataset.train.y < 0).any())
    whose = "its own" if own else f"{args.labels // task.num_classes} of each class"
    say(args, f"{model_name} on {args.data}: {len(task.y)} training rows, {args.labels} labels ({whose}); "
        f"D = {task.x_dim}, K = {task.num_classes}; {args.likelihood} likelihood{', binarised' * task.binarized}; "
        f"{args.epochs} epochs, {'resumed' if args.resume else 'written'} in {args.out}")  # fmt: skip


def reporter(args: argparse.Namespace) -> Callable[[dict[str, float]], None] | None:
    """Where there is no terminal for a progress bar: prints a line every tenth of the epochs."""
    if sys.stderr.isatty():
        return None

    def report(row: dict[str, float]) -> None:
        epoch, every = int(row["epoch"]), -(-args.epochs // 10)
        if epoch % every == 0 or epoch in (1, args.epochs):
            say(args, f"epoch {epoch}: loss {row['loss']:.2f}, validation bound {row['validation_unlabelled']:.2f} "
                f"nats, validation accuracy {row['validation_accuracy']:.1%}, {row['seconds']:.1f} s")  # fmt: skip

    return report


def rehearse(args: argparse.Namespace, objective: Objective, task: Task) -> None:
    """Two rows of the data, so that what the networks cannot take is refused before a folder is touched."""
    try:
        with torch.random.fork_rng(devices=[]):
            evaluate(objective, task.dataset.train.x[:2])
    except FloatingPointError as error:
        raise ValueError(f"--data {args.data}: {error}") from error


def train(args: argparse.Namespace, objective: Objective, task: Task) -> list[dict[str, float]]:
    """Fits the objective, with a checkpoint every epoch; leaves it with the weights of the best validation epoch."""
    held_out = task.dataset.validation
    return fit(
        objective, task.batches, validation=(held_out.x, held_out.y), validation_bound_x=task.bound_x(held_out.x),
        restore_best=True, out=args.out, resume=args.resume, progress=False if args.quiet else None,
        report=reporter(args), **fit_settings(args),
    )  # fmt: skip


def train_on_labels(
    classifier: nn.Module, task: Task, *, learning_rate: float, seed: int, steps: int = 1000
) -> nn.Module:
    """The baseline: the same classifier, trained by cross-entropy on the labelled rows alone.

    Full batches, binarised anew where the task's are. Every 20 steps its accuracy on the validation set is taken, and
    the best weights are kept, as they are for the model.
    """
    torch.manual_seed(seed)
    known = task.y >= 0
    x, y, held_out = task.dataset.train.x[known], task.y[known], task.dataset.validation
    optimizer = torch.optim.Adam(classifier.parameters(), lr=learning_rate)
    best, weights = -1.0, classifier.state_dict()
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        logits = classifier(torch.bernoulli(x) if task.binarized else x).logits
        nn.functional.cross_entropy(logits, y).backward()
        optimizer.step()
        if step % 20 == 0 and (found := accuracy(classifier, held_out.x, held_out.y)) > best:
            best, weights = found, {name: value.clone() for name, value in classifier.state_dict().items()}
    classifier.load_state_dict(weights)
    return classifier


def summarise(
    args: argparse.Namespace,
    paper: str,
    objective: Objective,
    baseline: nn.Module,
    task: Task,
    history: list[dict[str, float]],
) -> dict[str, Any]:
    """Measures the test set, once, and writes summary.json."""
    test = task.dataset.test
    measured = evaluate(objective, test.x, test.y, bound_x=task.bound_x(test.x))
    best = max(history, key=lambda row: row["validation_accuracy"])
    summary = {
        "paper": paper,
        "data": args.data,
        "labels": args.labels,
        "validation_labels": int((task.dataset.validation.y >= 0).sum()),
        "seed": args.seed,
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "seconds": round(sum(row["seconds"] for row in history), 1),
        "validation_accuracy": best["validation_accuracy"],
        "test_accuracy": measured["accuracy"],
        "baseline_accuracy": accuracy(baseline, test.x, test.y),
        "bound": measured["unlabelled"],
        "versions": versions(),
    }
    write_json(summary, args.out / "summary.json")
    return summary


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    packages = ("torch", "pyro-ppl", "lightning", "numpy")
    return {"python": platform.python_version(), "semipyro": semipyro.__version__} | {p: version(p) for p in packages}


def print_table(args: argparse.Namespace, model_name: str, summary: dict[str, Any]) -> None:
    """What the run has found."""
    rows = [
        (f"{model_name}, {summary['labels']} labels and the unlabelled rows", summary["test_accuracy"]),
        (f"the same classifier, {summary['labels']} labels alone", summary["baseline_accuracy"]),
    ]
    say(args, f"\n{'':52}test accuracy")
    for name, value in rows:
        say(args, f"{name:52}{value:13.1%}")
    say(args, f"For both, the epoch was chosen by accuracy on the {summary['validation_labels']} validation labels: "
        f"{model_name}'s is {summary['best_epoch']} of {summary['epochs']}.\n"
        f"Test bound {summary['bound']:.2f} nats; trained in {summary['seconds']:.0f} s.")  # fmt: skip


def draw_figures(out: Path, objective: Objective, task: Task, history: list[dict[str, float]], seed: int) -> None:
    """Training curves, samples, analogies, latent space and confusion matrix, as figures/*.png."""
    torch.manual_seed(seed)
    model, guide = objective.model, objective.guide
    x, y = task.dataset.test.x, task.dataset.test.y
    few, some = slice(10), slice(1000)
    figures = {
        "training_curves": plots.training_curves(history),
        "class_samples": plots.class_samples(model, task.num_classes, task.shape),
        "analogies": plots.analogies(model, guide, x[few], task.num_classes, task.shape),
        "confusion_matrix": plots.confusion_matrix(guide.classify, x, y, num_classes=task.num_classes),
    }
    if len(x) >= 3:  # fewer are not projected
        figures["latent_pca"] = plots.latent_space(guide, x[some], y[some])
        figures["latent_tsne"] = plots.latent_space(guide, x[some], y[some], method="tsne", seed=seed % 2**32)
    for name, figure in figures.items():
        plots.save(figure, out / "figures" / f"{name}.png")


def print_files(args: argparse.Namespace, paper: str) -> None:
    """Where the run's files are, and how to use what was learnt."""
    text = f"""
    Settings, numbers, checkpoints and figures are in {args.out}. To use the model in Python:

        import json
        from pathlib import Path
        from semipyro.inference import load_weights
        from semipyro.papers import PAPERS

        out = Path("{args.out}")
        {paper} = PAPERS["{paper}"].build(**json.loads((out / "settings.json").read_text())["build"])
        load_weights({paper}, out / "checkpoints" / "best.ckpt")"""
    say(args, dedent(text))
