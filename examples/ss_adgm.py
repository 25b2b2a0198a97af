"""ADGM and SDGM: an auxiliary variable makes q(y | x) a mixture, and the posterior of z more than a Gaussian.

"Improving semi-supervised learning with auxiliary deep generative models" (Maaløe et al., 2015) and "Auxiliary deep
generative models" (Maaløe et al., 2016), arXiv:1602.05473. Without flags: 8x8 digits, 100 labels, about a minute on two
cores, with narrow networks. `--form workshop` is the first paper's, `icml` the second's, `sdgm` its skip model, and
`deterministic` the comparison of the first paper's Fig. 4: M2 whose classifier reads features of x that have no noise.
The papers' task is `--data mnist --labels 100 --hidden 500 500`.
"""

import argparse
import copy
from collections.abc import Sequence
from functools import partial

import torch
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.contract import Classifier
from semipyro.distributions import CategoricalNet
from semipyro.inference import Objective, accuracy, classes_used
from semipyro.papers import PAPERS
from semipyro.papers import SEMI_SUPERVISED_WEIGHTS as WEIGHTS
from shared.baseline import train_on_labels
from shared.command import Parser, command, count
from shared.figures import latent_figures, save_figures, unit_figure
from shared.fitting import read_fitting
from shared.flags import add_network_flags, add_weight_flags, make_parser
from shared.recipe import Recipe, network_settings, weight_settings
from shared.report import print_files, print_table, tell_details
from shared.run_folder import folder_of_form, read_output
from shared.summary import measure_bound, write_summary
from shared.task import Task, make_task, read_data
from shared.training import begin_run, train
from torch import nn

FORMS = {
    "workshop": ("adgm-workshop", "ADGM (workshop form)"),
    "icml": ("adgm", "ADGM"),
    "deterministic": ("adgm-deterministic", "M2 on deterministic features"),
    "sdgm": ("sdgm", "SDGM"),
}


def parser() -> Parser:
    """All flags."""
    flags = make_parser("ss_adgm", __doc__)
    add_network_flags(flags, z_dim=100, hidden=(200, 200), activation="relu")
    add = flags.add_argument_group("ADGM").add_argument
    add("--form", choices=list(FORMS), default="workshop", help="which model")
    add("--a-dim", type=count, default=100, help="width of the auxiliary variable a")
    add("--averaged-classifier", action="store_true", help="train on the authors' bound, with q(y|x) averaged over the "
        "draws of a, in the place of U")  # fmt: skip
    add("--test-samples", type=count, default=100, help="draws of a over which the classifier is averaged for the test")
    add_weight_flags(
        flags, WEIGHTS, "beta", "both weights as in the papers, which do not give it; the authors' SDGM code has 0.1"
    )
    flags.set_defaults(learning_rate=1e-3)
    return flags


def run(args: argparse.Namespace) -> None:
    """Reads the flags, and takes the steps from the data to the figures."""
    if args.averaged_classifier and args.form == "deterministic":
        raise ValueError("--averaged-classifier averages over draws of a; --form deterministic has none")
    fitting, output = read_fitting(args), read_output(args, folder_of_form(args, args.form, usual="workshop"))

    # The data.
    task = make_task(read_data(args), likelihood=args.likelihood)
    test = task.dataset.test

    # Model, guide and objective, and the classifier that will learn from the labels alone.
    recipe = choose(args, task)
    torch.manual_seed(task.seed)
    objective = PAPERS[recipe.paper].build(**recipe.build)
    with begin_run(objective, recipe, task, fitting, output):
        untrained = new_baseline(args, objective, task)

        # Fit, and train the classifier of the labels alone.
        history = train(objective, task, fitting, output)
        baseline = train_on_labels(untrained, task, learning_rate=fitting.learning_rate, device=fitting.device)

        # Measure: the classifier is averaged over more draws of a than in training.
        classifier = partial(objective.guide.classify, num_samples=args.test_samples)
        torch.manual_seed(task.seed)
        measured = {
            "test_accuracy": accuracy(classifier, test.x, test.y),
            "baseline_accuracy": accuracy(baseline, test.x, test.y),
            "bound": measure_bound(objective, task),
            "classes_used": classes_used(classifier, task.x_unlabelled),
        }
        summary = write_summary(recipe, task, fitting, output, history, measured)

        # Tell, and draw.
        alike = "the same classifier" if args.form == "deterministic" else "a classifier with the same layers"
        print_table(output, "test accuracy", {
            f"{recipe.title}, {task.num_labels} labels and the unlabelled rows": summary["test_accuracy"],
            f"{alike}, {task.num_labels} labels alone": summary["baseline_accuracy"],
        })  # fmt: skip
        tell_details(output, recipe, task, summary)
        if output.figures:
            save_figures(output.folder, figures(objective, recipe, task, history, classifier))
        print_files(output, recipe.paper)


def choose(args: argparse.Namespace, task: Task) -> Recipe:
    """The row of papers.py, and the keywords of its `build`."""
    paper, title = FORMS[args.form]
    build = network_settings(args, task) | weight_settings(args, task, paper, WEIGHTS, "beta")
    return Recipe(paper, title, build | {"a_dim": args.a_dim, "averaged_classifier": args.averaged_classifier})


def new_baseline(args: argparse.Namespace, objective: Objective, task: Task) -> nn.Module:
    """The untrained classifier of the model, where it is a network of x; else one of x with the same hidden layers."""
    if args.form == "deterministic":
        return copy.deepcopy(objective.guide.q_y)
    return CategoricalNet((task.x_dim,), task.y_dim, hidden=args.hidden, activation=args.activation)


def figures(
    objective: Objective, recipe: Recipe, task: Task, history: list[dict[str, float]], classifier: Classifier
) -> dict[str, Figure]:
    """Training, samples, classes and latent space; KL per unit of z and of a is Fig. 3 of the workshop paper."""
    model, guide, test = objective.model, objective.guide, task.dataset.test
    torch.manual_seed(task.seed)
    return {
        "training_curves": plots.training_curves(history),
        "class_samples": plots.class_samples(model, task.y_dim, task.shape),
        "analogies": plots.analogies(model, guide, test.x[:10], task.y_dim, task.shape),
        "confusion_matrix": plots.confusion_matrix(classifier, test.x, test.y, num_classes=task.y_dim),
        **latent_figures(objective, task),
        **unit_figure(objective, recipe, task),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
