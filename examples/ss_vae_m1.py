"""M1: a variational autoencoder learns features from all rows, and a classifier learns from the features of a hundred.

"Semi-supervised learning with deep generative models" (Kingma et al., 2014), arXiv:1406.5298, eq. (1). Without flags:
8x8 digits, 100 labels, about a minute on two cores. The classifier is scikit-learn's, and the baseline the same one on
the rows themselves. `ss_vae_m1_m2.py` goes on from a run of this script. The paper's task is
`--data mnist --labels 100`.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from command_line import Parser, add_network_flags, command, make_parser
from common import (
    Task,
    make_objective,
    make_task,
    measure_bound,
    network_settings,
    print_files,
    print_table,
    save_figures,
    standard_figures,
    summarise,
    tell_bound,
    test_rows,
    train,
    unit_figure,
)
from semipyro import plots
from semipyro.inference import Objective, active_units
from torch import Tensor

CLASSIFIERS = ("svm", "logistic", "knn", "label-spreading")


def parser() -> Parser:
    """All flags."""
    flags = make_parser("ss_vae_m1", __doc__)
    add_network_flags(flags)
    add = flags.add_argument_group("classifier").add_argument
    add("--classifier", choices=CLASSIFIERS, default="svm", help="of the features, with scikit-learn's own settings; "
        "label-spreading reads the unlabelled rows too")  # fmt: skip
    flags.set_defaults(include_labelled=True)
    return flags


def run(args: argparse.Namespace) -> None:
    """Trains, measures, draws."""
    task = make_task(args)
    objective = make_objective(args, "m1", "M1", task, network_settings(args, task))
    history = train(args, objective, task, monitor="unlabelled")
    torch.manual_seed(args.seed)  # the same draws for a run that was resumed
    measured = {
        "classifier": args.classifier,
        "test_accuracy": features_accuracy(args, objective, task),
        "baseline_accuracy": rows_accuracy(args, task),
        **measure_bound(objective, task),
        "active_units": active_units(objective.guide, task.dataset.test.x),
    }
    summary = summarise(args, "m1", task, history, measured)
    print_table(args, "test accuracy", {
        f"M1, {args.classifier} on the features of {args.labels} labelled rows": summary["test_accuracy"],
        f"the same classifier on the {args.labels} rows themselves": summary["baseline_accuracy"],
    })  # fmt: skip
    tell_bound(args, summary)
    if args.figures:
        draw(args, objective, task, history)
    print_files(args, "m1")


def features_accuracy(args: argparse.Namespace, objective: Objective, task: Task) -> float:
    """Of the classifier on posterior means."""
    with torch.no_grad():
        train_x, test_x = (objective.guide.encode(split.x) for split in (task.dataset.train, task.dataset.test))
    return classifier_accuracy(args, task, train_x, test_x, standardised=False)


def rows_accuracy(args: argparse.Namespace, task: Task) -> float:
    """Of the same classifier on the rows themselves, which are standardised where they go beyond [0, 1]."""
    x = task.dataset.train.x
    outside = bool((x < 0).any() or (x > 1).any())
    return classifier_accuracy(args, task, x, task.dataset.test.x, standardised=outside)


def classifier_accuracy(
    args: argparse.Namespace, task: Task, train_x: Tensor, test_x: Tensor, *, standardised: bool
) -> float:
    """Trains scikit-learn's classifier on the rows with a label (or on all), and measures it on the test rows."""
    rows = torch.ones_like(task.y, dtype=torch.bool) if args.classifier == "label-spreading" else task.y >= 0
    known = task.dataset.test.y >= 0
    classifier = make_classifier(args.classifier, standardised=standardised)
    classifier.fit(train_x[rows].numpy(), task.y[rows].numpy())
    return float(classifier.score(test_x[known].numpy(), task.dataset.test.y[known].numpy()))


def make_classifier(name: str, *, standardised: bool) -> Any:
    """The classifier; behind a standardisation for the columns of a table, which differ in scale.

    Features and pixels are read as they are: a scale of 1 would blow up the units and pixels that hardly vary.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.semi_supervised import LabelSpreading
    from sklearn.svm import SVC

    makers = {
        "svm": SVC,
        "logistic": lambda: LogisticRegression(max_iter=1000),
        "knn": KNeighborsClassifier,
        "label-spreading": lambda: LabelSpreading(kernel="knn"),
    }
    return make_pipeline(StandardScaler(), makers[name]()) if standardised else makers[name]()


def draw(args: argparse.Namespace, objective: Objective, task: Task, history: list[dict[str, float]]) -> None:
    """Training curves, latent space, KL per unit, reconstructions."""
    x = test_rows(task, 1000)
    model, guide = objective.model, objective.guide
    figures = {
        **standard_figures(objective, task, history, args.seed, drawn=()),
        **unit_figure(args, objective, task),
        "reconstructions": plots.reconstructions(model, guide, x[:30], task.shape),
    }
    save_figures(args.out, figures)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
