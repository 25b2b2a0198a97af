"""What the examples share: the data with its labels hidden, training, the baseline, and what is shown and written."""

import argparse
import copy
import json
import math
import platform
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent
from typing import Any

import semipyro
import torch
from command_line import given_weights, posterior_settings, prepare_folder, write_json
from matplotlib.figure import Figure
from pyro.distributions import OneHotCategorical
from semipyro import plots
from semipyro.data import Batches, Dataset, batches, binarize, load, mask_labels
from semipyro.distributions import CategoricalNet
from semipyro.inference import (
    Objective,
    accuracy,
    check_fit_settings,
    classes_used,
    evaluate,
    fit,
    load_weights,
    unit_kl,
)
from semipyro.inference.training.precision import computing_device, network_precision
from semipyro.modules import evaluating
from semipyro.papers import PAPERS
from torch import Tensor, nn

Classifier = Callable[[Tensor], OneHotCategorical]

EPOCHS = {"moons": 60, "circles": 60, "mnist": 60, "fashion-mnist": 60, "omniglot": 60}
LABELS = 100


@dataclass(frozen=True)
class Task:
    """A data set with its labels masked, ready to be trained on."""

    dataset: Dataset
    y: Tensor
    batches: Batches
    binarized: bool
    hidden: tuple[int, ...] = ()
    extra: int = 0

    @property
    def num_classes(self) -> int:
        """How many true classes there are."""
        return self.dataset.num_classes

    @property
    def y_dim(self) -> int:
        """K: the classes and the extra components."""
        return self.num_classes + self.extra

    @property
    def x_unlabelled(self) -> Tensor:
        """The training rows without a label; all of them where every row has one."""
        without = self.y < 0
        return self.dataset.train.x[without] if without.any() else self.dataset.train.x

    @property
    def sizes(self) -> tuple[int, int]:
        """Labelled and unlabelled rows: the arguments of a paper's `weights`."""
        return self.batches.num_labelled, self.batches.num_unlabelled

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


def make_task(
    args: argparse.Namespace, *, hidden: Collection[int] = (), extra: int = 0, usual: int | None = LABELS
) -> Task:
    """Loads the data, hides all but `--labels` labels, and makes the batches; decides what the flags leave open.

    No row of a class in `hidden` keeps its label, the model gets `extra` components beyond the classes, and where the
    flags do not say, `usual` rows keep their label (None: all of the other classes).
    """
    args.epochs = args.epochs or EPOCHS.get(args.data, 100)
    check_fit_settings(**fit_settings(args))
    dataset = load(args.data, args.data_root)
    decide_likelihood(args, dataset)
    y = keep_labels(args, dataset, set(hidden), usual)
    args.labels = int((y >= 0).sum())
    nameless = [*hidden, *range(dataset.num_classes, dataset.num_classes + extra)]
    rows = batches(
        dataset.train.x, y, labelled_batch_size=args.labelled_batch_size if args.labels else 0,
        unlabelled_batch_size=args.batch_size, include_labelled=args.include_labelled, binarize=args.binarize,
        seed=args.seed, num_classes=dataset.num_classes + extra, hidden_classes=nameless if args.labels else (),
    )  # fmt: skip
    return Task(dataset, y, rows, args.binarize, tuple(sorted(set(hidden))), extra)


def fit_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Keywords of `fit`, from the flags."""
    names = ("epochs", "learning_rate", "weight_decay", "kl_warmup", "gradient_clip_value", "device", "precision")
    return {name: getattr(args, name) for name in names} | {"gradient_clip_norm": args.gradient_clip}


def schedule(args: argparse.Namespace) -> Callable[[int], float] | None:
    """The factor of the learning rate by epoch."""
    return None if args.decay_every is None else lambda epoch: args.decay ** (epoch // args.decay_every)


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
    if args.scale is None and not bernoulli:
        args.scale = args.usual_scale
    if args.scale is not None and bernoulli:
        raise ValueError("--scale needs a normal likelihood; add --likelihood normal, or leave --scale out")


def keep_labels(args: argparse.Namespace, dataset: Dataset, hidden: set[int], usual: int | None) -> Tensor:
    """`--labels` of the training labels, as many of each class, or the data's own where some rows have none."""
    y, num_classes = dataset.train.y, dataset.num_classes
    if num_classes < 2:
        raise ValueError(f"--data {args.data} has {num_classes} classes; this example needs labels of two or more")
    if not hidden < set(range(num_classes)):
        got = " ".join(map(str, sorted(hidden)))
        raise ValueError(f"--hide must be among the classes 0 to {num_classes - 1} of {args.data}, not all, got {got}")
    sizes = y[y >= 0].bincount(minlength=num_classes)
    if not sizes.all():
        raise ValueError(f"--data {args.data} has no training row labelled {sizes.argmin()}; it needs classes 0 to K-1")
    if args.labels == 0 and getattr(args, "clusters", False):
        return torch.full_like(y, -1)
    if (y < 0).any():
        if args.labels is not None:
            raise ValueError(f"--labels: {args.data} keeps its own, since some rows have none (y = -1); leave it out")
        return torch.where(torch.isin(y, torch.tensor(sorted(hidden))), -1, y)
    if args.labels is None and usual is None:
        return mask_labels(y, fraction=1.0, hidden_classes=sorted(hidden), seed=args.seed)
    shown = [label for label in range(num_classes) if label not in hidden]
    scarce = min(shown, key=lambda label: int(sizes[label]))
    asked, most = args.labels if args.labels is not None else usual or 0, len(shown) * int(sizes[scarce])
    if not len(shown) <= asked <= most:
        raise ValueError(f"--labels must be from {len(shown)}, one for each class of {args.data}, to {most}, as many "
                         f"of each as class {scarce} has, got {asked}")  # fmt: skip
    return mask_labels(y, per_class=asked // len(shown), hidden_classes=sorted(hidden), seed=args.seed)


def network_settings(args: argparse.Namespace, task: Task) -> dict[str, Any]:
    """Keywords of a paper's `build`, from the flags and the data."""
    names = ("z_dim", "hidden", "activation", "num_samples", "likelihood", "scale")
    given = {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
    return {"x_dim": task.x_dim, "y_dim": task.y_dim, **given, **posterior_settings(args)}


def weight_settings(
    args: argparse.Namespace, task: Task, paper: str, defaults: dict[str, float], keyword: str
) -> dict[str, float]:
    """The objective's weights: those of the flags, or the paper's, where `--KEYWORD` gives its constant."""
    given = given_weights(args, defaults, keyword)
    return given if given is not None else PAPERS[paper].weights(*task.sizes, **{keyword: getattr(args, keyword)})


def say(args: argparse.Namespace, text: str) -> None:
    """Prints at once, also into a file or a pipe, unless --quiet."""
    if not args.quiet:
        print(text, flush=True)


def announce(args: argparse.Namespace, title: str, task: Task) -> None:
    """One line on what is about to be trained."""
    own = bool((task.dataset.train.y < 0).any())
    sizes = task.y[task.y >= 0].unique(return_counts=True)[1]
    each = f"{sizes[0]} of each class" if len(set(sizes.tolist())) == 1 else "all of their classes"
    hidden = f", none of class {' '.join(map(str, task.hidden))}" if task.hidden and args.labels else ""
    whose = f" ({'its own' if own else each}{hidden})" if args.labels else ""
    extra = f" ({task.num_classes} classes)" if task.extra else ""
    say(args, f"{title} on {args.data}: {len(task.y)} training rows, {args.labels} labels{whose}; "
        f"D = {task.x_dim}, K = {task.y_dim}{extra}; {args.likelihood} likelihood{', binarised' * task.binarized}; "
        f"{args.epochs} epochs, {'resumed' if args.resume else 'written'} in {args.out}")  # fmt: skip


def reporter(args: argparse.Namespace, monitor: str | None) -> Callable[[dict[str, float]], None] | None:
    """Where there is no terminal for a progress bar: prints a line every tenth of the epochs.

    It has the validation bound, and accuracy where that is what is monitored; neither for a `monitor` of None.
    """
    if sys.stderr.isatty():
        return None

    def report(row: dict[str, float]) -> None:
        epoch, every = int(row["epoch"]), -(-args.epochs // 10)
        if epoch % every == 0 or epoch in (1, args.epochs):
            bound = f"validation bound {row['validation_unlabelled']:.2f} nats, " if monitor else ""
            accurate = f"validation accuracy {row['validation_accuracy']:.1%}, " if monitor == "accuracy" else ""
            say(args, f"epoch {epoch}: loss {row['loss']:.2f}, {bound}{accurate}{row['seconds']:.1f} s")

    return report


def make_objective(args: argparse.Namespace, paper: str, title: str, task: Task, build: dict[str, Any]) -> Objective:
    """The paper's objective with its first weights; makes the folder of the run once nothing is known to be wrong."""
    torch.manual_seed(args.seed)
    objective = PAPERS[paper].build(**build)
    if getattr(args, "start_from", None):
        start_from(args, objective)
    rehearse(args, objective, task)
    prepare_folder(args, paper, build)
    announce(args, title, task)
    return objective


@torch.no_grad()
def start_from(args: argparse.Namespace, objective: Objective) -> None:
    """Copies p(x | z) and q(z | x) of a run of `ss_vae_m1.py`; weights of y, which M1 does not read, start at zero.

    Raises:
        ValueError: that run has other networks.
    """
    vae, whose = load_run(args.start_from), f"--start-from {args.start_from}"
    copy_network(vae.model.p_x, objective.model.p_x, lambda width: slice(-width, None), whose)  # p(x | y, z): z is last
    copy_network(vae.guide.q_z, objective.guide.q_z, lambda width: slice(width), whose)  # q(z | x, y): x is first


def copy_network(source: nn.Module, target: nn.Module, columns: Callable[[int], slice], whose: str) -> None:
    """Copies weights; where the target reads more, into these columns, and the others become zero."""
    weights, into = source.state_dict(), target.state_dict()
    if weights.keys() != into.keys():
        raise ValueError(f"{whose} has other networks: both need as many --hidden layers, and the same posterior")
    for name, value in weights.items():
        place = into[name].zero_()[..., columns(value.shape[-1])]
        if place.shape != value.shape:
            shapes = f"{name} is {tuple(value.shape)}, here {tuple(into[name].shape)}"
            raise ValueError(
                f"{whose} has other layers ({shapes}): both need the same --z-dim, --hidden and likelihood"
            )
        place.copy_(value)


def rehearse(args: argparse.Namespace, objective: Objective, task: Task) -> None:
    """Two rows of the data, so that what the networks cannot take is refused before a folder is touched."""
    x = task.dataset.train.x[:2]
    try:
        with torch.random.fork_rng(devices=[]):
            terms = evaluate(objective, x)
    except FloatingPointError as error:
        raise ValueError(f"--data {args.data}: {error}") from error
    if not all(map(math.isfinite, terms.values())):
        scale = f"x lies between {x.min().item():g} and {x.max().item():g}; bring its columns to a scale of about 1"
        raise ValueError(f"--data {args.data}: the bound of the first rows is NaN or infinite ({scale})")


def train(
    args: argparse.Namespace,
    objective: Objective,
    task: Task,
    *,
    monitor: str = "accuracy",
    report: Callable[[dict[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    """Fits the objective, with a checkpoint every epoch; leaves it with the weights of the best validation epoch.

    `report` is called with each epoch's row, in the place of what is printed.
    """
    held_out = task.dataset.validation
    return fit(
        objective, task.batches, validation=(held_out.x, held_out.y if monitor == "accuracy" else None),
        validation_bound_x=task.bound_x(held_out.x), monitor=monitor, restore_best=True, out=args.out,
        resume=args.resume, progress=False if args.quiet else None,
        report=report or reporter(args, monitor), schedule=schedule(args), **fit_settings(args),
    )  # fmt: skip


def new_classifier(args: argparse.Namespace, task: Task) -> nn.Module:
    """An untrained classifier of x with the model's hidden layers."""
    return CategoricalNet((task.x_dim,), task.y_dim, hidden=args.hidden, activation=args.activation)


def train_on_labels(
    classifier: nn.Module, task: Task, *, learning_rate: float, seed: int, device: str, steps: int = 1000
) -> nn.Module:
    """The baseline: the same classifier, trained by cross-entropy on the labelled rows alone.

    Full batches, binarised anew where the task's are. Every 20 steps its accuracy on the validation set is taken, and
    the best weights are kept, as they are for the model. It computes on `device`, and is on the CPU when it returns.
    """
    torch.manual_seed(seed)
    known, place = task.y >= 0, computing_device(device)
    classifier.to(place)
    x, y, held_out = task.dataset.train.x[known].to(place), task.y[known].to(place), task.dataset.validation
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
    return classifier.cpu()


def learn_from_labels(
    args: argparse.Namespace,
    paper: str,
    title: str,
    task: Task,
    build: dict[str, Any],
    *,
    classifier: Callable[[Objective], Classifier] = lambda objective: objective.guide.classify,
    baseline: Callable[[Objective], nn.Module] | None = None,
    figures: Callable[[Objective], Mapping[str, Figure]] = lambda objective: {},
    drawn: Collection[str] = ("class_samples", "analogies"),
    noted: Mapping[str, Any] | None = None,
    others: Mapping[str, Callable[[Objective], Classifier]] | None = None,
) -> None:
    """The whole of a semi-supervised example: trains, measures beside the labels alone, draws, and tells.

    Args:
        args: the flags.
        paper: a row of `PAPERS`.
        title: what the model is called.
        task: the data.
        build: keywords of the row's `build`.
        classifier: the classifier of a trained objective that the test accuracy is measured with.
        baseline: the untrained classifier of an untrained objective that learns from the labels alone; without it, one
            with the model's hidden layers.
        figures: figures of the trained objective beyond those of every example.
        drawn: which figures of what the model generates are drawn.
        noted: what else goes into summary.json.
        others: other classifiers of a trained objective, by the letter of their density, to be measured too.
    """
    objective = make_objective(args, paper, title, task, build)
    untrained = new_classifier(args, task) if baseline is None else copy.deepcopy(baseline(objective))
    history = train(args, objective, task)
    labels_only = train_on_labels(untrained, task, learning_rate=args.learning_rate, seed=args.seed, device=args.device)
    torch.manual_seed(args.seed)
    test, best = task.dataset.test, classifier(objective)
    others_measured = {name: accuracy(make(objective), test.x, test.y) for name, make in (others or {}).items()}
    torch.manual_seed(args.seed)
    measured = {
        "test_accuracy": accuracy(best, test.x, test.y),
        **{f"test_accuracy_{name}": value for name, value in others_measured.items()},
        "baseline_accuracy": accuracy(labels_only, test.x, test.y),
        **measure_bound(objective, task),
        "classes_used": classes_used(best, task.x_unlabelled),
        **(noted or {}),
    }
    summary = summarise(args, paper, task, history, measured)
    alike = "the same classifier" if baseline is not None else "a classifier with the same layers"
    print_table(args, "test accuracy", {
        f"{title}, {summary['labels']} labels and the unlabelled rows": summary["test_accuracy"],
        **{f"    by {name}(y|x)": value for name, value in others_measured.items()},
        f"{alike}, {summary['labels']} labels alone": summary["baseline_accuracy"],
    })  # fmt: skip
    say(args, f"For both, the epoch was chosen by accuracy on the {summary['validation_labels']} validation labels (of "
        f"q(y|x) with one draw): {title}'s is {summary['best_epoch']} of {summary['epochs']}.")  # fmt: skip
    tell_bound(args, summary)
    tell_classes(args, task, summary["classes_used"])
    if args.figures:
        usual = standard_figures(objective, task, history, args.seed, classifier=best, drawn=drawn)
        save_figures(args.out, usual | dict(figures(objective)))
    print_files(args, paper)


def test_rows(task: Task, rows: int) -> Tensor:
    """The first of the test rows, as the model was trained on them: binarised once where it saw binary ones."""
    x = task.dataset.test.x[:rows]
    binary = task.bound_x(x)
    return x if binary is None else binary


def measure_bound(objective: Objective, task: Task) -> dict[str, float]:
    """`bound`: the mean over the test rows of the bound on log p(x), in nats."""
    test = task.dataset.test
    return {"bound": evaluate(objective, test.x, bound_x=task.bound_x(test.x))["unlabelled"]}


def tell_classes(args: argparse.Namespace, task: Task, used: int) -> None:
    """How many classes the classifier uses, with a warning where they are fewer than those with labels."""
    labelled = len(task.y[task.y >= 0].unique())
    rows = "unlabelled" if (task.y < 0).any() else "training"
    say(args, f"On the {rows} rows the classifier uses {used} of {task.y_dim} classes.")
    if used < labelled:
        print(f"warning: the classifier uses {used} of {task.y_dim} classes on the {rows} rows, fewer than the "
              f"{labelled} with labels: it has collapsed", file=sys.stderr)  # fmt: skip


def summarise(
    args: argparse.Namespace, paper: str, task: Task, history: list[dict[str, float]], measured: dict[str, Any]
) -> dict[str, Any]:
    """Writes summary.json: what was run, and what was measured on the test set, once."""
    monitor = "validation_accuracy" if "validation_accuracy" in history[0] else "validation_unlabelled"
    best = max(history, key=lambda row: row[monitor])
    summary = {
        "paper": paper,
        "data": args.data,
        "labels": args.labels,
        "validation_labels": int((task.dataset.validation.y >= 0).sum()),
        "seed": args.seed,
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "seconds": round(sum(row["seconds"] for row in history), 1),
        "precision": network_precision(args.precision, args.device),
        monitor: best[monitor],
        **measured,
        "versions": versions(),
    }
    write_json(summary, args.out / "summary.json")
    return summary


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    packages = ("torch", "pyro-ppl", "lightning", "numpy")
    return {"python": platform.python_version(), "semipyro": semipyro.__version__} | {p: version(p) for p in packages}


def print_table(args: argparse.Namespace, measure: str, rows: dict[str, float]) -> None:
    """What the run has found, in percent."""
    width = max(52, 2 + max(map(len, rows)))
    say(args, f"\n{'':{width}}{measure}")
    for name, value in rows.items():
        say(args, f"{name:{width}}{value:{len(measure)}.1%}")


def tell_bound(args: argparse.Namespace, summary: dict[str, Any]) -> None:
    """The bound, and the time."""
    of = f" (of {summary['bound_of']})" if "bound_of" in summary else ""
    say(args, f"Test bound {summary['bound']:.2f} nats{of}; trained in {summary['seconds']:.0f} s.")


def unit_figure(
    args: argparse.Namespace, objective: Objective, task: Task, sites: Sequence[str] = ("z",)
) -> dict[str, Figure]:
    """KL per unit of the latents; without a diagonal posterior there is none, as its units depend on each other."""
    if posterior_settings(args):
        return {}
    x = test_rows(task, 1000)
    return {"unit_kl": plots.unit_kl({site: unit_kl(objective.model, objective.guide, x, site=site) for site in sites})}


def standard_figures(
    objective: Objective,
    task: Task,
    history: list[dict[str, float]],
    seed: int,
    *,
    classifier: Classifier | None = None,
    drawn: Collection[str] = ("class_samples", "analogies"),
) -> dict[str, Figure]:
    """Training curves, latent space, those of samples and analogies that are asked for, and a confusion matrix."""
    torch.manual_seed(seed)
    model, guide = objective.model, objective.guide
    x, y = task.dataset.test.x, task.dataset.test.y
    few, some = slice(10), slice(1000)
    figures = {"training_curves": plots.training_curves(history)}
    if "class_samples" in drawn:
        names = [f"y = {k}" for k in range(task.y_dim)] if task.hidden or task.extra else None  # clusters, not classes
        figures["class_samples"] = plots.class_samples(model, task.y_dim, task.shape, class_names=names)
    if "analogies" in drawn:
        figures["analogies"] = plots.analogies(model, guide, x[few], task.y_dim, task.shape)
    if classifier is not None:
        figures["confusion_matrix"] = plots.confusion_matrix(classifier, x, y, num_classes=task.y_dim)
    site = "z2" if hasattr(guide, "q_z2") else "z"
    with evaluating(guide):
        width = guide.encode(x[:1], site).shape[1]
    methods = {"latent_pca": "pca", "latent_tsne": "tsne"} if len(x) >= 3 else {}  # fewer rows are not projected
    for name, method in methods.items() if width > 2 else [("latent_space", "pca")]:
        figures[name] = plots.latent_space(guide, x[some], y[some], method=method, seed=seed % 2**32, site=site)
    return figures


def save_figures(out: Path, figures: Mapping[str, Figure]) -> None:
    """As figures/*.png."""
    for name, figure in figures.items():
        plots.save(figure, out / "figures" / f"{name}.png")


def load_run(folder: Path) -> Objective:
    """The objective that a script trained, with the weights of its best epoch."""
    settings = json.loads((folder / "settings.json").read_text())
    objective = PAPERS[settings["paper"]].build(**settings["build"])
    load_weights(objective, folder / "checkpoints" / "best.ckpt")
    return objective.eval()


def print_files(args: argparse.Namespace, paper: str) -> None:
    """Where the run's files are, and how to use what was learnt."""
    text = f"""
    Settings, numbers, checkpoints and figures are in {args.out}. To use the model in Python:

        import json
        from pathlib import Path
        from semipyro.inference import load_weights
        from semipyro.papers import PAPERS

        out = Path("{args.out}")
        objective = PAPERS["{paper}"].build(**json.loads((out / "settings.json").read_text())["build"])
        load_weights(objective, out / "checkpoints" / "best.ckpt")"""
    say(args, dedent(text))
