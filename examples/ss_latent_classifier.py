"""The thesis' models: the classifier reads the latent space, p(y | z), and no part of it is set apart for the class.

"Towards deeper understanding of semi-supervised learning with variational autoencoders" (K. Jurasiński, MSc thesis, TU
Delft, 2019). Without flags: 8x8 digits, 100 labels, about a minute on two cores. `--form ours` is the model with the
thesis' bound, `tight` the same with y summed inside the logarithm, `simplified` has p(x | z) in the place of
p(x | y, z), and `appendix-c` is its special case that resembles M2. The thesis' task is `--data mnist --labels 100
--learning-rate 1e-3 --scale 0.5`; it does not give σ, and 0.5 did best on validation images, of 0.3, 0.5, 0.7 and 1.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.contract import Classifier
from semipyro.distributions import CategoricalNet
from semipyro.inference import Objective, accuracy, classes_used
from semipyro.papers import PAPERS, THESIS_SCALE
from shared.baseline import train_on_labels
from shared.command import Parser, command, count, weight
from shared.figures import latent_figures, save_figures, unit_figure
from shared.fitting import read_fitting
from shared.flags import add_network_flags, add_start_flag, make_parser
from shared.pretraining import start_from
from shared.recipe import Recipe, network_settings
from shared.report import print_files, print_table, tell_details
from shared.run_folder import folder_of_form, read_output
from shared.summary import measure_bound, write_summary
from shared.task import Task, make_task, read_data
from shared.training import begin_run, train

FORMS = {
    "ours": ("latent-classifier", "the thesis' model", 0.5),
    "tight": ("latent-classifier-tight", "the thesis' model, tight bound", 0.5),
    "simplified": ("simplified", "the simplified model", 0.1),
    "appendix-c": ("appendix-c", "the model of Appendix C", 0.1),
}


def parser() -> Parser:
    """All flags."""
    flags = make_parser("ss_latent_classifier", __doc__)
    add_network_flags(flags, likelihood="normal", scale=THESIS_SCALE)
    add = flags.add_argument_group("model and objective").add_argument
    add("--form", choices=list(FORMS), default="ours", help="which model and bound")
    add("--lambda", dest="lam", type=weight, help="weight of the mean labelled bound beside the unlabelled (default: "
        "0.5, for simplified and appendix-c 0.1)")  # fmt: skip
    add(
        "--zy-dim", type=count, help="appendix-c: width of z_y, the part of z that p(y|z) reads (default: a fifth of z)"
    )
    add("--test-samples", type=count, default=100, help="draws of z over which the classifier is averaged for the test")
    add_start_flag(flags)
    flags.set_defaults(binarize=False)
    return flags


def run(args: argparse.Namespace) -> None:
    """Reads the flags, and takes the steps from the data to the figures."""
    fitting, output = read_fitting(args), read_output(args, folder_of_form(args, args.form, usual="ours"))

    # The data.
    task = make_task(read_data(args), likelihood=args.likelihood)
    test = task.dataset.test

    # Model, guide and objective, and the classifier that will learn from the labels alone.
    recipe = choose(args, task)
    torch.manual_seed(task.seed)
    objective = PAPERS[recipe.paper].build(**recipe.build)
    start_from(args.start_from, objective)
    with begin_run(objective, recipe, task, fitting, output):
        untrained = CategoricalNet((task.x_dim,), task.y_dim, hidden=args.hidden, activation=args.activation)

        # Fit, and train the classifier of the labels alone.
        history = train(objective, task, fitting, output)
        baseline = train_on_labels(untrained, task, learning_rate=fitting.learning_rate, device=fitting.device)

        # Measure: p(y | z) is averaged over more draws of z than in training.
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
        print_table(output, "test accuracy", {
            f"{recipe.title}, {task.num_labels} labels and the unlabelled rows": summary["test_accuracy"],
            f"a classifier with the same layers, {task.num_labels} labels alone": summary["baseline_accuracy"],
        })  # fmt: skip
        tell_details(output, recipe, task, summary)
        if output.figures:
            save_figures(output.folder, figures(objective, recipe, task, history, classifier))
        print_files(output, recipe.paper)


def choose(args: argparse.Namespace, task: Task) -> Recipe:
    """The row of papers.py, and the keywords of its `build`."""
    paper, title, usual = FORMS[args.form]
    build = network_settings(args, task) | {"labelled_weight": usual if args.lam is None else args.lam}
    if args.zy_dim is None:
        return Recipe(paper, title, build)
    if args.form != "appendix-c":
        raise ValueError("--zy-dim belongs to --form appendix-c")
    return Recipe(paper, title, build | {"zy_dim": args.zy_dim})


def figures(
    objective: Objective, recipe: Recipe, task: Task, history: list[dict[str, float]], classifier: Classifier
) -> dict[str, Figure]:
    """Training, classes, latent space, KL per unit and reconstructions; analogies where x depends on y."""
    model, guide, test = objective.model, objective.guide, task.dataset.test
    torch.manual_seed(task.seed)
    drawn = {"training_curves": plots.training_curves(history)}
    if recipe.paper in ("latent-classifier", "latent-classifier-tight"):
        drawn["analogies"] = plots.analogies(model, guide, test.x[:10], task.y_dim, task.shape)
    return {
        **drawn,
        "confusion_matrix": plots.confusion_matrix(classifier, test.x, test.y, num_classes=task.y_dim),
        **latent_figures(objective, task),
        **unit_figure(objective, recipe, task),
        "reconstructions": plots.reconstructions(model, guide, task.test_x(1000)[:30], task.shape),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
