"""Classes that nobody labelled: GM-DGM and AGM-DGM find them, beside classes of which a few rows have labels.

"Semi-unsupervised learning with deep generative models" (Willetts et al., 2019), arXiv:1901.08560. Without flags: 8x8
digits, no label of 0 to 4 and 20 of each of 5 to 9, five extra components, about a minute on two cores, with narrow
networks and settings chosen on the validation digits. `--labels 0` clusters, without any label. `--model m2` and `adgm`
are the paper's comparisons. Its task is `--data fashion-mnist --labels 600 --hidden 500 500 --z-dim 200 --likelihood
bernoulli --learning-rate 3e-4`.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from command_line import (
    Parser,
    add_network_flags,
    add_weight_flags,
    command,
    count,
    make_parser,
    name_folder,
    natural,
    posterior_settings,
)
from common import (
    Classifier,
    Task,
    make_objective,
    make_task,
    measure_bound,
    network_settings,
    new_classifier,
    print_files,
    print_table,
    save_figures,
    say,
    standard_figures,
    summarise,
    tell_bound,
    tell_classes,
    test_rows,
    train,
    train_on_labels,
    weight_settings,
)
from matplotlib.figure import Figure
from pyro.distributions import OneHotCategorical
from semipyro import plots
from semipyro.inference import Objective, classes_used, cluster_accuracy, component_kl, unit_kl_by_cluster
from semipyro.papers import SEMI_UNSUPERVISED_WEIGHTS as WEIGHTS
from semipyro.papers import semi_unsupervised_prior
from torch import Tensor
from torch.nn.functional import one_hot

MODELS = {"gm-dgm": "GM-DGM", "agm-dgm": "AGM-DGM", "m2": "M2", "adgm": "ADGM"}
SCALE = 0.2  # σ of p(x | z)


def parser() -> Parser:
    """All flags."""
    flags = make_parser("semi_unsupervised", __doc__, labels="100 (0: none, to find clusters)")
    add_network_flags(flags, z_dim=10, hidden=(200, 200), activation="relu", likelihood="normal", scale=SCALE)
    add = flags.add_argument_group("model").add_argument
    add("--model", choices=list(MODELS), default="gm-dgm", help="which model")
    add("--hide", type=natural, nargs="*", default=[0, 1, 2, 3, 4], help="classes that get no label")
    add("--extra-classes", type=natural, default=5, help="components beyond the classes")
    add("--uniform-prior", action="store_true", help="p(y) uniform, and not that of the paper's eqs. (34)-(35)")
    add("--a-dim", type=count, default=100, help="width of the auxiliary variable a, for agm-dgm and adgm")
    add("--test-samples", type=count, default=100, help="draws of a over which the classifier is averaged for the test")
    add_weight_flags(flags, WEIGHTS, "alpha", "weights 1 and alpha, as in the authors' code, which has 1.1")
    flags.set_defaults(clusters=True)
    return flags


def run(args: argparse.Namespace) -> None:
    """Trains, measures, draws."""
    name_folder(args, args.model, "gm-dgm")
    title = MODELS[args.model]
    task = make_task(args, hidden=() if args.labels == 0 else args.hide, extra=args.extra_classes)
    if task.y_dim > len(task.y):
        raise ValueError(f"--extra-classes makes {task.y_dim} components, but there are {len(task.y)} training rows")
    objective = make_objective(args, args.model, title, task, settings(args, task))
    history = train(args, objective, task, monitor="unlabelled")
    classifier = classifier_of(args, objective)
    torch.manual_seed(args.seed)
    measured = measure(args, task, classifier) | measure_bound(objective, task)
    measured["classes_used"] = classes_used(classifier, task.x_unlabelled)
    summary = summarise(args, args.model, task, history, measured)
    tell(args, title, task, summary)
    if args.figures:
        save_figures(args.out, figures(args, objective, task, history))
    print_files(args, args.model)


def settings(args: argparse.Namespace, task: Task) -> dict[str, Any]:
    """Keywords of the paper's `build`."""
    build = network_settings(args, task) | weight_settings(args, task, "gm-dgm", WEIGHTS, "alpha")
    if args.model in ("agm-dgm", "adgm"):
        build["a_dim"] = args.a_dim
    if task.hidden and not args.uniform_prior:
        build["y_prior"] = semi_unsupervised_prior(task.num_classes, task.hidden, task.extra)
    return build


def classifier_of(args: argparse.Namespace, objective: Objective) -> Classifier:
    """q(y | x), averaged over draws of a where there is one."""
    samples = args.test_samples if hasattr(objective.guide, "q_a") else 1
    return partial(objective.guide.classify, num_samples=samples)


def measure(args: argparse.Namespace, task: Task, classifier: Classifier) -> dict[str, Any]:
    """Accuracies of the model, of k-means on the same rows, and of a classifier that learnt from the labels alone."""
    test, held_out = task.dataset.test, task.dataset.validation
    shown = [label for label in range(task.num_classes) if label not in task.hidden]
    fair = partial(cluster_accuracy, map_from=(held_out.x, held_out.y))
    measured = {
        "hidden_classes": list(task.hidden),
        "extra_classes": task.extra,
        "map": "majority class of each cluster on the validation split",
        "test_accuracy": fair(classifier, test.x, test.y),
        "test_accuracy_map_on_test": cluster_accuracy(classifier, test.x, test.y),
        "kmeans_accuracy": fair(k_means(args, task), test.x, test.y),
    }
    if task.hidden:
        measured["test_accuracy_hidden"] = fair(classifier, test.x, test.y, classes=task.hidden)
        measured["test_accuracy_labelled"] = fair(classifier, test.x, test.y, classes=shown)
    if not args.labels:
        return measured | {"baseline_accuracy": measured["kmeans_accuracy"]}
    torch.manual_seed(args.seed)
    labels_only = train_on_labels(
        new_classifier(args, task), task, learning_rate=args.learning_rate, seed=args.seed, device=args.device
    )
    return measured | {"baseline_accuracy": fair(labels_only, test.x, test.y)}


def k_means(args: argparse.Namespace, task: Task) -> Classifier:
    """scikit-learn's k-means with as many clusters as the model has components, as a classifier."""
    from sklearn.cluster import KMeans

    found = KMeans(task.y_dim, n_init=10, random_state=args.seed % 2**32).fit(task.dataset.train.x.numpy())

    def classify(x: Tensor) -> OneHotCategorical:
        return OneHotCategorical(one_hot(torch.as_tensor(found.predict(x.numpy())).long(), task.y_dim).float())

    return classify


def tell(args: argparse.Namespace, title: str, task: Task, summary: dict[str, Any]) -> None:
    """The table."""
    rows = {f"{title}, all classes": summary["test_accuracy"]}
    if task.hidden:
        rows["    classes with labels"] = summary["test_accuracy_labelled"]
        rows["    classes without labels"] = summary["test_accuracy_hidden"]
    rows["    all classes, the map fitted on the test set"] = summary["test_accuracy_map_on_test"]
    if args.labels:
        rows[f"a classifier with the same layers, {args.labels} labels alone"] = summary["baseline_accuracy"]
    rows[f"k-means with {task.y_dim} clusters, without labels"] = summary["kmeans_accuracy"]
    print_table(args, "test accuracy", rows)
    say(args, "Each component counts as the class that most of its validation rows have, where nothing else is said. "
        f"The epoch was chosen by the validation bound, which needs no label: {summary['best_epoch']} of "
        f"{summary['epochs']}.")  # fmt: skip
    tell_bound(args, summary)
    tell_classes(args, task, summary["classes_used"])


def figures(
    args: argparse.Namespace, objective: Objective, task: Task, history: list[dict[str, float]]
) -> dict[str, Figure]:
    """Those of every example, the confusion matrix of clusters (Fig. 4), and KL per unit (Figs. C.5 and C.6)."""
    drawn = standard_figures(objective, task, history, args.seed, drawn=("class_samples",))
    model, guide, test = objective.model, objective.guide, task.dataset.test
    drawn["confusion_matrix"] = plots.confusion_matrix(
        classifier_of(args, objective), test.x, test.y, num_classes=task.num_classes, clusters=True
    )
    if not posterior_settings(args):  # with another posterior, units depend on each other
        x, y = test_rows(task, 2000), test.y[:2000]
        drawn["cluster_kl"] = plots.cluster_kl(unit_kl_by_cluster(model, guide, guide.classify, x, labels=y))
    if args.model in ("gm-dgm", "agm-dgm"):
        drawn["component_kl"] = plots.component_kl(component_kl(model.p_z, task.y_dim))
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
