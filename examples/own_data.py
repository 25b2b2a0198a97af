"""A table with few labels: the estimator beside scikit-learn's own means, by accuracy and by calibration.

Without flags: four data sets that come with scikit-learn, 1, 2, 5 and 10 labels of each class, ten draws of the labels,
which takes about an hour on two cores. `--data mine.npz` (arrays x and y) or `--data mine.csv` (a header, numbers, the
class in the last column or in the one that `--label` names) does the same for your own rows; try `--draws 1` first.
Every row needs its class; the script hides them. Every method sees the same rows and labels, with scikit-learn's
defaults but for label spreading's kernel, "knn". With `--resume`, what is done is not done again.
"""

import argparse
import csv
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from semipyro.compat import mend_torchvision
from semipyro.data import load, mask_labels
from semipyro.data.files import read_npz
from semipyro.estimator import SemiSupervisedClassifier
from semipyro.files import CHECKSUM, check_file, checksum, hold, read_json, write_between, write_whole
from semipyro.papers import CLASSIFYING, PAPERS
from semipyro.plots.common import new_figure
from shared.command import Parser, command, count, natural, say
from shared.figures import save_figures
from shared.summary import versions
from sklearn import datasets
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from tqdm import tqdm

Cell = dict[str, Any]
BUILT_IN = {
    "digits": datasets.load_digits,
    "breast-cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "iris": datasets.load_iris,
}
MNIST_ROWS = 10_000
MARKS = ("<!-- own_data -->", "<!-- end of own_data -->")
BINS = 10  # of the reliability plot
TEST_SHARE = 0.3
LABELS_ONLY = ("logistic regression", "random forest")


class Table(NamedTuple):
    """A data set: rows (N, D), classes (N,) from 0."""

    x: NDArray[np.float64]
    y: NDArray[np.int64]


def parser() -> Parser:
    """All flags."""
    flags = Parser(prog="own_data.py", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = flags.add_argument_group("data").add_argument
    add("--data", nargs="+", default=list(BUILT_IN), help=f"any of {', '.join(BUILT_IN)} and mnist ({MNIST_ROWS:,} "
        "of its rows), or .npz and .csv files")  # fmt: skip
    add("--data-root", default=argparse.SUPPRESS, help="folder of mnist; without it SEMIPYRO_DATA, else the user's "
        "cache folder")  # fmt: skip
    add("--label", default=argparse.SUPPRESS, help="column of a .csv that holds the class; without it, the last")
    add("--labels", nargs="+", type=count, default=[1, 2, 5, 10], help="labelled rows of each class")
    add("--draws", type=count, default=10, help="draws of the labelled rows, and of the test rows")
    add("--seed", type=natural, default=0, help="of the first draw; the others follow")
    add = flags.add_argument_group("methods").add_argument
    add("--models", nargs="+", choices=CLASSIFYING, default=["m2"], help="rows of papers.py, with their default "
        "settings")  # fmt: skip
    add = flags.add_argument_group("results").add_argument
    add("--jobs", type=count, default=1, help="cells that are computed at the same time")
    add("--out", type=Path, default=Path("runs") / "own_data", help="folder for cells.json and figures")
    group = flags.add_mutually_exclusive_group()
    group.add_argument("--resume", action="store_true", help="go on in --out; data, models and draws can be added")
    group.add_argument("--overwrite", action="store_true", help="start again, in the same folder")
    add("--page", type=Path, help=f"page of documentation that receives the table, between {MARKS[0]} and {MARKS[1]}")
    add("--quiet", action="store_true", help="show nothing but warnings and errors")
    return flags


def run(args: argparse.Namespace) -> None:
    """Reads the data and the cells that are there, and computes what is missing in a folder that is ours alone."""
    path = args.out / "cells.json"
    read_cells(args, path)
    if len({Path(name).stem for name in args.data}) < len(args.data):
        raise ValueError(f"--data: two of {', '.join(args.data)} have the same name")
    tables = {Path(name).stem: read(name, getattr(args, "label", None), getattr(args, "data_root", None))
              for name in args.data}  # fmt: skip
    with hold(args.out):
        cells = compute(args, tables, read_cells(args, path), path)
        say(markdown(cells), quiet=args.quiet)
        save_figures(args.out, figures(cells))
    if args.page:
        write_between(args.page, MARKS, markdown(cells))
    say(f"Cells and figures are in {args.out}.", quiet=args.quiet)


def compute(args: argparse.Namespace, tables: dict[str, Table], cells: list[Cell], path: Path) -> list[Cell]:
    """The cells with those that were missing, each of which is written when it is done."""
    missing = [job for job in jobs(args, tables) if not any(key(cell) == job for cell in cells)]
    say(f"{len(missing)} cells to compute, {len(cells)} are there", quiet=args.quiet)
    work = Parallel(n_jobs=args.jobs, return_as="generator_unordered")(
        delayed(measure)(tables[job[0]], *job) for job in missing
    )
    for cell in tqdm(work, total=len(missing), disable=True if args.quiet else None):
        cells.append(cell)
        write_cells(cells, path)
    return cells


def write_cells(cells: Sequence[Cell], path: Path) -> None:
    """A line for each cell, which is small enough to be kept beside the code."""
    content = {"versions": versions(), "cells": sorted(cells, key=key)}
    lines = ",\n".join(map(json.dumps, content["cells"]))
    head = f'"versions": {json.dumps(content["versions"])}, "{CHECKSUM}": "{checksum(content)}"'
    text = f'{{{head}, "cells": [\n{lines}\n]}}\n'
    write_whole(path, lambda temporary: temporary.write_text(text))


def read_cells(args: argparse.Namespace, path: Path) -> list[Cell]:
    """Those that are there; a ValueError where the folder is another's, or its cells are not to be gone on with."""
    if not args.out.exists() or (args.out.is_dir() and all(file.name == ".lock" for file in args.out.iterdir())):
        if args.resume:
            raise ValueError(f"--resume: {args.out} holds no cells; leave --resume out to start")
        return []
    if not path.is_file():
        raise ValueError(f"--out {args.out} is no folder of this script; choose another")
    if args.overwrite:
        return []
    if not args.resume:
        raise ValueError(f"--out {args.out} holds cells; add --resume or --overwrite, or choose another folder")
    try:
        return list(read_json(path)["cells"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no cells of this script ({error}); choose another folder") from error


# The data


def read(name: str, label: str | None = None, root: str | None = None) -> Table:
    """A data set by its name or its file.

    Raises:
        ValueError: an unknown name, or a file that is not a table of numbers with a class.
    """
    if name in BUILT_IN:
        found = BUILT_IN[name]()
        x = found.data / 16 if name == "digits" else found.data
        return Table(x.astype(float), found.target.astype(int))
    if name == "mnist":
        train = load("mnist", root).train
        return Table(train.x[:MNIST_ROWS].double().numpy(), train.y[:MNIST_ROWS].numpy())
    if name.endswith(".npz"):
        arrays = read_npz(Path(name), ("x", "y"))
        if len(arrays) < 2:
            raise ValueError(f"--data {name}: no arrays x and y in it, only {' '.join(arrays) or 'others'}")
        return _table(name, **arrays)
    if name.endswith(".csv"):
        return _table(name, *_columns(name, label))
    raise ValueError(f"--data {name} is none of {', '.join(BUILT_IN)}, mnist, and no .npz or .csv file")


def _columns(name: str, label: str | None) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """The numbers and the class of a .csv with a header."""
    check_file(name)
    try:
        with Path(name).open(newline="", encoding="utf-8-sig") as file:
            header, *lines = [line for line in csv.reader(file) if line] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"--data {name} must be text in UTF-8, with commas between its columns: {error}") from error
    if not lines:
        raise ValueError(f"--data {name} has no rows")
    if label is not None and header.count(label) != 1:
        raise ValueError(f"--label {label} is {'two' if label in header else 'none'} of the columns of {name}: "
                         f"{', '.join(header)}")  # fmt: skip
    if others := {len(line) for line in lines} - {len(header)}:
        raise ValueError(f"--data {name}: every line must have {len(header)} columns, as the first, got {min(others)}")
    place = header.index(label) if label is not None else len(header) - 1
    try:
        x = np.array([[float(value) for i, value in enumerate(line) if i != place] for line in lines])
    except ValueError as error:
        raise ValueError(f"--data {name}: columns beside the class must be numbers, in every line ({error})") from error
    return x, np.array([line[place] for line in lines])


def _table(name: str, x: NDArray[Any], y: NDArray[Any]) -> Table:
    """Rows of any shape, flattened, and classes, numbered from 0."""
    if x.dtype.kind not in "iufb" or x.ndim < 2 or not x.size or y.shape != x.shape[:1]:
        raise ValueError(f"--data {name}: expected rows of numbers and a class for each, got {x.dtype} of shape "
                         f"{x.shape} and classes of shape {y.shape}")  # fmt: skip
    if not np.isfinite(x).all():
        raise ValueError(f"--data {name}: expected finite numbers, got NaN or infinity; fill them in or drop the rows")
    if unknown := sum(str(label) in ("-1", "", "nan", "None") for label in y.tolist()):
        raise ValueError(f"--data {name} has {unknown} rows without a class (-1 or empty); this script hides labels "
                         "itself, and needs the class of every row")  # fmt: skip
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"--data {name} has {len(classes)} classes; expected two or more")
    return Table(x.reshape(len(x), -1).astype(float), codes)


# The cells


def jobs(args: argparse.Namespace, tables: dict[str, Table]) -> Iterator[tuple[Any, ...]]:
    """Data, method, labels of each class and draw of each cell, those of the first draw first."""
    methods = [*args.models, *LABELS_ONLY, "label spreading", "self-training"]
    for draw, data, labels in product(range(args.seed, args.seed + args.draws), tables, args.labels):
        smallest = int(np.bincount(tables[data].y).min() * (1 - TEST_SHARE))
        if labels > smallest:
            raise ValueError(f"--labels {labels}: the smallest class of {data} has {smallest} training rows")
        yield from ((data, method, labels, draw) for method in methods)


def key(cell: Cell) -> tuple[Any, ...]:
    """What makes a cell another one."""
    return cell["data"], cell["method"], cell["labels"], cell["draw"]


def measure(table: Table, data: str, method: str, labels: int, draw: int) -> Cell:
    """Fits one method to one draw, and measures on the test rows."""
    torch.set_num_threads(1)
    x, x_test, y, y_test = train_test_split(*table, test_size=TEST_SHARE, stratify=table.y, random_state=draw)
    masked = mask_labels(y, per_class=labels, seed=draw).numpy()
    classifier = make(method, draw)
    if method not in PAPERS and not (table.x.min() >= 0 and table.x.max() <= 1):  # the estimator's own rule
        scaler = StandardScaler().fit(x)
        x, x_test = scaler.transform(x), scaler.transform(x_test)
    if method in LABELS_ONLY:
        x, masked = x[masked >= 0], masked[masked >= 0]
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):  # 0 / 0 of label spreading, see `unknown`
        # label spreading's alone, which is used as it comes: it stops at max_iter; a regression's is shown
        warnings.filterwarnings("ignore", "max_iter=.* was reached without convergence", ConvergenceWarning)
        start = time.perf_counter()
        probabilities = classifier.fit(x, masked).predict_proba(x_test)
        seconds = time.perf_counter() - start
    unknown = np.isnan(probabilities).all(1)  # label spreading, where no neighbour has heard of a label
    probabilities[unknown] = 1 / probabilities.shape[1]
    return {
        "data": data, "method": method, "labels": labels, "draw": draw, **scores(probabilities, y_test),
        "seconds": round(seconds, 2),
    }  # fmt: skip


def make(method: str, seed: int) -> ClassifierMixin:
    """A method, with its defaults; label spreading's own kernel, "rbf", has a width that is that of no table."""
    if method in PAPERS:
        return SemiSupervisedClassifier(method, random_state=seed)
    return {
        "logistic regression": LogisticRegression(max_iter=1000),
        "random forest": RandomForestClassifier(random_state=seed),
        "label spreading": LabelSpreading(kernel="knn", max_iter=100),
        "self-training": SelfTrainingClassifier(LogisticRegression(max_iter=1000)),
    }[method]


def scores(probabilities: NDArray[np.float64], y: NDArray[np.int64]) -> dict[str, Any]:
    """Accuracy, expected calibration error, and what the reliability plot needs: rows, right ones and confidence."""
    mend_torchvision()  # torchmetrics imports it
    from torchmetrics.functional.classification import multiclass_calibration_error

    confidence, right = probabilities.max(1), probabilities.argmax(1) == y
    error = multiclass_calibration_error(
        torch.as_tensor(probabilities), torch.as_tensor(y), num_classes=probabilities.shape[1], n_bins=15
    )
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    sums = (np.bincount(place, weights, minlength=BINS).round(2).tolist() for weights in (None, right, confidence))
    bins = dict(zip(("rows", "right", "confidence"), sums, strict=True))
    return {"accuracy": round(float(right.mean()), 6), "calibration_error": round(float(error), 6), "bins": bins}


# What is shown


def titled(method: str) -> str:
    """How a method is called."""
    return {"m2": "M2", "gm-dgm": "GM-DGM", "m1-m2": "M1+M2"}.get(method, method)


def markdown(cells: Sequence[Cell]) -> str:
    """A table for each data set: accuracy, with the standard deviation over draws, and the calibration error."""
    lines = []
    for data in unique(cells, "data"):
        numbers, own = sorted(unique(cells, "labels")), [cell for cell in cells if cell["data"] == data]
        lines += ["", f"| {data}, labels of each class | " + " | ".join(map(str, numbers)) + " | seconds |"]
        lines += ["|---" * (len(numbers) + 2) + "|"]
        for method in methods_of(own):
            each = [[c for c in own if (c["method"], c["labels"]) == (method, number)] for number in numbers]
            seconds = np.median([cell["seconds"] for found in each for cell in found])
            took = f"{seconds:.0f}" if seconds >= 1 else "below 1"
            lines.append(f"| {titled(method)} | {' | '.join(map(_written, each))} | {took} |")
    return "\n".join(lines).strip()


def _written(cells: Sequence[Cell]) -> str:
    if not cells:
        return "–"
    right = 100 * np.array([cell["accuracy"] for cell in cells])
    error = 100 * np.mean([cell["calibration_error"] for cell in cells])
    return f"{right.mean():.1f} ± {right.std():.1f} ({error:.0f})"


def figures(cells: Sequence[Cell]) -> dict[str, Figure]:
    """Accuracy over the number of labels, and reliability with the most labels; a panel for each data set."""
    return {"accuracy": _panels(cells, _draw_accuracy), "reliability": _panels(cells, _draw_reliability)}


def _panels(cells: Sequence[Cell], draw: Any) -> Figure:
    names = unique(cells, "data")
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(3.1 * columns + 0.4, 2.9 * rows + 0.5)
    methods = methods_of(cells)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes, data in zip(panels, names, strict=False):
        for place, method in enumerate(methods):
            own = [cell for cell in cells if (cell["data"], cell["method"]) == (data, method)]
            draw(axes, own, label=titled(method), color=f"C{place}", zorder=3 if method in PAPERS else 2)
        axes.set_title(data, fontsize="medium")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def _draw_accuracy(axes: Any, cells: Sequence[Cell], **look: Any) -> None:
    numbers = sorted(unique(cells, "labels"))
    found = [[cell["accuracy"] for cell in cells if cell["labels"] == number] for number in numbers]
    error = [np.std(each) / len(each) ** 0.5 for each in found]
    axes.errorbar(numbers, list(map(np.mean, found)), error, marker="o", markersize=4, linewidth=1.2, elinewidth=0.8,
                  **look)  # fmt: skip
    axes.set(xscale="log", xlabel="labels of each class", xticks=numbers, xticklabels=numbers)
    axes.set_ylabel("accuracy, ± standard error")
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _draw_reliability(axes: Any, cells: Sequence[Cell], **look: Any) -> None:
    most = max(unique(cells, "labels"), default=0)
    bins = [cell["bins"] for cell in cells if cell["labels"] == most]
    rows, right, confidence = (np.sum([each[name] for each in bins], 0) for name in ("rows", "right", "confidence"))
    full = rows >= 10  # fewer say little
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, zorder=1)
    axes.plot(confidence[full] / rows[full], right[full] / rows[full], "o-", markersize=4, linewidth=1.2, **look)
    axes.set(xlabel=f"confidence, {most} labels of each class", ylabel="share that is right")


def methods_of(cells: Sequence[Cell]) -> list[str]:
    """The methods, models first."""
    return sorted(unique(cells, "method"), key=lambda method: (method not in PAPERS, method))


def unique(cells: Sequence[Cell], name: str) -> list[Any]:
    """The values in the order in which they first occur."""
    return list(dict.fromkeys(cell[name] for cell in cells))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
