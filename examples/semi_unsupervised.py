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
from matplotlib.figure import Figure
from pyro.distributions import OneHotCategorical
from semipyro import plots
from semipyro.contract import Classifier
from semipyro.distributions import CategoricalNet
from semipyro.inference import Objective, classes_used, cluster_accuracy, component_kl, unit_kl_by_cluster
from semipyro.papers import PAPERS, semi_unsupervised_prior
from semipyro.papers import SEMI_UNSUPERVISED_WEIGHTS as WEIGHTS
from shared.baseline import train_on_labels
from shared.command import Parser, command, count, natural, say
from shared.figures import latent_figures, save_figures
from shared.fitting import Fitting, read_fitting
from shared.flags import add_network_flags, add_weight_flags, make_parser
from shared.recipe import POSTERIOR, Recipe, network_settings, weight_settings
from shared.report import print_files, print_table, tell_bound, tell_classes
from shared.run_folder import Output, folder_of_form, read_output
from shared.summary import measure_bound, write_summary
from shared.task import Task, make_task, read_data
from shared.training import begin_run, train
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
    return flags


def run(args: argparse.Namespace) -> None:
    """Reads the flags, and takes the steps from the data to the figures."""
    fitting = read_fitting(args)
    output = read_output(args, folder_of_form(args, args.model, usual="gm-dgm"), clusters=True)

    # The data.
    hidden = () if args.labels == 0 else args.hide
    task = make_task(
        read_data(args), likelihood=args.likelihood, hidden=hidden, extra=args.extra_classes, clusters=True
    )
    if task.y_dim > len(task.y):
        raise ValueError(f"--extra-classes makes {task.y_dim} components, but there are {len(task.y)} training rows")

    # Model, guide and objective.
    recipe = choose(args, task)
    torch.manual_seed(task.seed)
    objective = PAPERS[recipe.paper].build(**recipe.build)
    with begin_run(objective, recipe, task, fitting, output):
        # Fit. The bound on the validation rows chooses the epoch, as it needs no label.
        history = train(objective, task, fitting, output, monitor="unlabelled")

        # Measure: q(y | x), averaged over draws of a where there is one.
        classifier = partial(objective.guide.classify, num_samples=args.test_samples)
        torch.manual_seed(task.seed)
        measured = measure(classifier, task)
        measured["baseline_accuracy"] = (
            labels_alone(task, recipe, fitting) if task.num_labels else measured["kmeans_accuracy"]
        )
        measured["bound"] = measure_bound(objective, task)
        measured["classes_used"] = classes_used(classifier, task.x_unlabelled)
        summary = write_summary(recipe, task, fitting, output, history, measured)

        # Tell, and draw.
        tell(recipe, task, output, summary)
        if output.figures:
            save_figures(output.folder, figures(objective, recipe, task, history, classifier))
        print_files(output, recipe.paper)


def choose(args: argparse.Namespace, task: Task) -> Recipe:
    """The row of papers.py, and the keywords of its `build`."""
    build = network_settings(args, task) | weight_settings(args, task, "gm-dgm", WEIGHTS, "alpha")
    if args.model in ("agm-dgm", "adgm"):
        build["a_dim"] = args.a_dim
    if task.hidden and not args.uniform_prior:
        build["y_prior"] = semi_unsupervised_prior(task.num_classes, task.hidden, task.extra)
    return Recipe(args.model, MODELS[args.model], build)


def fair_accuracy(classifier: Classifier, task: Task, **keywords: Any) -> float:
    """Accuracy on the test rows, where each component counts as the class that most of its validation rows have."""
    test, validation = task.dataset.test, task.dataset.validation
    return cluster_accuracy(classifier, test.x, test.y, map_from=(validation.x, validation.y), **keywords)


def measure(classifier: Classifier, task: Task) -> dict[str, Any]:
    """Accuracies of the model, on all classes and on those with and without labels, and of k-means."""
    test = task.dataset.test
    measured = {
        "hidden_classes": list(task.hidden),
        "extra_classes": task.extra,
        "map": "majority class of each cluster on the validation split",
        "test_accuracy": fair_accuracy(classifier, task),
        "test_accuracy_map_on_test": cluster_accuracy(classifier, test.x, test.y),
        "kmeans_accuracy": fair_accuracy(k_means(task), task),
    }
    if task.hidden:
        shown = [label for label in range(task.num_classes) if label not in task.hidden]
        measured["test_accuracy_hidden"] = fair_accuracy(classifier, task, classes=task.hidden)
        measured["test_accuracy_labelled"] = fair_accuracy(classifier, task, classes=shown)
    return measured


def labels_alone(task: Task, recipe: Recipe, fitting: Fitting) -> float:
    """Accuracy of a classifier that learns from the labelled rows alone."""
    torch.manual_seed(task.seed)
    layers = {name: recipe.build[name] for name in ("hidden", "activation")}
    classifier = CategoricalNet((task.x_dim,), task.y_dim, **layers)
    train_on_labels(classifier, task, learning_rate=fitting.learning_rate, device=fitting.device)
    return fair_accuracy(classifier, task)


def k_means(task: Task) -> Classifier:
    """scikit-learn's k-means with as many clusters as the model has components, as a classifier."""
    from sklearn.cluster import KMeans

    found = KMeans(task.y_dim, n_init=10, random_state=task.seed % 2**32).fit(task.dataset.train.x.numpy())

    def classify(x: Tensor) -> OneHotCategorical:
        return OneHotCategorical(one_hot(torch.as_tensor(found.predict(x.numpy())).long(), task.y_dim).float())

    return classify


def tell(recipe: Recipe, task: Task, output: Output, summary: dict[str, Any]) -> None:
    """The table, how the epoch was chosen, the bound, and the classes in use."""
    rows = {f"{recipe.title}, all classes": summary["test_accuracy"]}
    if task.hidden:
        rows["    classes with labels"] = summary["test_accuracy_labelled"]
        rows["    classes without labels"] = summary["test_accuracy_hidden"]
    rows["    all classes, the map fitted on the test set"] = summary["test_accuracy_map_on_test"]
    if task.num_labels:
        rows[f"a classifier with the same layers, {task.num_labels} labels alone"] = summary["baseline_accuracy"]
    rows[f"k-means with {task.y_dim} clusters, without labels"] = summary["kmeans_accuracy"]
    print_table(output, "test accuracy", rows)
    say("Each component counts as the class that most of its validation rows have, where nothing else is said. The "
        f"epoch was chosen by the validation bound, which needs no label: {summary['best_epoch']} of "
        f"{summary['epochs']}.", quiet=output.quiet)  # fmt: skip
    tell_bound(output, summary)
    tell_classes(output, task, summary["classes_used"])


def figures(
    objective: Objective, recipe: Recipe, task: Task, history: list[dict[str, float]], classifier: Classifier
) -> dict[str, Figure]:
    """Training, samples, latent space, the confusion matrix of clusters (Fig. 4), KL per unit (Figs. C.5 and C.6)."""
    model, guide, test = objective.model, objective.guide, task.dataset.test
    torch.manual_seed(task.seed)
    drawn = {
        "training_curves": plots.training_curves(history),
        "class_samples": plots.class_samples(model, task.y_dim, task.shape, class_names=task.class_names),
        **latent_figures(objective, task),
        "confusion_matrix": plots.confusion_matrix(
            classifier, test.x, test.y, num_classes=task.num_classes, clusters=True
        ),
    }
    if not recipe.build.keys() & set(POSTERIOR):  # with another posterior, units depend on each other
        x, y = task.test_x(2000), test.y[:2000]
        drawn["cluster_kl"] = plots.cluster_kl(unit_kl_by_cluster(model, guide, guide.classify, x, labels=y))
    if recipe.paper in ("gm-dgm", "agm-dgm"):
        drawn["component_kl"] = plots.component_kl(component_kl(model.p_z, task.y_dim))
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
