"""CaGeM: two layers of latents with the class between them, which labels steer and do not overrule.

"Semi-supervised generation with cluster-aware generative models" (Maaløe et al., 2017), arXiv:1704.00637. Without
flags: 8x8 digits, 100 labels, about a minute on two cores, with narrow networks and settings chosen on the validation
digits. The paper's task is `--data mnist --hidden 1024 1024 --z2-hidden 512 512`. `--z2-dim 2` draws the meshes of its
Fig. 3; `--kl-warmup` is its temperature. All training rows count as unlabelled ones, as in the paper.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.contract import Classifier
from semipyro.distributions import CategoricalNet
from semipyro.inference import Objective, accuracy, cascade, classes_used
from semipyro.papers import PAPERS
from shared.baseline import train_on_labels
from shared.command import Parser, command, count
from shared.figures import latent_figures, save_figures, unit_figure
from shared.fitting import read_fitting
from shared.flags import add_network_flags, add_weight_flags, make_parser
from shared.recipe import Recipe, network_settings, weight_settings
from shared.report import print_files, print_table, tell_details
from shared.run_folder import read_output
from shared.summary import measure_bound, write_summary
from shared.task import Task, make_task, read_data
from shared.training import begin_run, train

WEIGHTS = {"classification_weight": 10.0}


def parser() -> Parser:
    """All flags."""
    flags = make_parser("ss_cagem", __doc__)
    add_network_flags(flags, hidden=(256, 256), activation="relu", z_dim=None)
    add = flags.add_argument_group("CaGeM").add_argument
    add("--z1-dim", type=count, default=64, help="width of z1")
    add("--z2-dim", type=count, default=32, help="width of z2")
    add(
        "--z2-hidden",
        type=count,
        nargs="*",
        default=[128, 128],
        help="widths of the hidden layers of the networks of z2",
    )
    add("--batch-norm", action=argparse.BooleanOptionalAction, default=True, help="normalise the hidden layers")
    add("--test-samples", type=count, default=10, help="draws of z1 and z2 over which p(y|x) is averaged for the test")
    add_weight_flags(flags, WEIGHTS, "beta", "the weight as in the paper, beta (N_l + N_u) / N_l for each labelled "
        "row; the paper does not give its beta")  # fmt: skip
    flags.set_defaults(learning_rate=1e-3, include_labelled=True, kl_warmup=30)
    return flags


def run(args: argparse.Namespace) -> None:
    """Reads the flags, and takes the steps from the data to the figures."""
    fitting, output = read_fitting(args), read_output(args)

    # The data.
    task = make_task(read_data(args), likelihood=args.likelihood)
    test = task.dataset.test

    # Model, guide and objective, and the classifier that will learn from the labels alone.
    recipe = choose(args, task)
    torch.manual_seed(task.seed)
    objective = PAPERS[recipe.paper].build(**recipe.build)
    with begin_run(objective, recipe, task, fitting, output):
        untrained = CategoricalNet((task.x_dim,), task.y_dim, hidden=args.hidden, activation=args.activation)

        # Fit, and train the classifier of the labels alone.
        history = train(objective, task, fitting, output)
        baseline = train_on_labels(untrained, task, learning_rate=fitting.learning_rate, device=fitting.device)

        # Measure both classifiers of CaGeM: q(y | x) of the guide, and p(y | x), which the paper reports.
        p_y = cascade(objective.model, objective.guide, args.test_samples)
        q_y = partial(objective.guide.classify, num_samples=args.test_samples)
        torch.manual_seed(task.seed)
        test_accuracy_q = accuracy(q_y, test.x, test.y)
        torch.manual_seed(task.seed)
        measured = {
            "test_accuracy": accuracy(p_y, test.x, test.y),
            "test_accuracy_q": test_accuracy_q,
            "baseline_accuracy": accuracy(baseline, test.x, test.y),
            "bound": measure_bound(objective, task),
            "classes_used": classes_used(p_y, task.x_unlabelled),
        }
        summary = write_summary(recipe, task, fitting, output, history, measured)

        # Tell, and draw.
        print_table(output, "test accuracy", {
            f"CaGeM, {task.num_labels} labels and the unlabelled rows": summary["test_accuracy"],
            "    by q(y|x)": summary["test_accuracy_q"],
            f"a classifier with the same layers, {task.num_labels} labels alone": summary["baseline_accuracy"],
        })  # fmt: skip
        tell_details(output, recipe, task, summary)
        if output.figures:
            save_figures(output.folder, figures(objective, recipe, task, history, p_y))
        print_files(output, recipe.paper)


def choose(args: argparse.Namespace, task: Task) -> Recipe:
    """CaGeM, and the keywords of its `build`."""
    build = network_settings(args, task) | weight_settings(args, task, "cagem", WEIGHTS, "beta")
    widths = {"z1_dim": args.z1_dim, "z2_dim": args.z2_dim, "z2_hidden": args.z2_hidden}
    return Recipe("cagem", "CaGeM", {**build, **widths, "batch_norm": args.batch_norm})


def figures(
    objective: Objective, recipe: Recipe, task: Task, history: list[dict[str, float]], classifier: Classifier
) -> dict[str, Figure]:
    """Training, samples, classes, both latents, reconstructions, and, for a z2 of two dimensions, meshes."""
    model, guide, test = objective.model, objective.guide, task.dataset.test
    x, y = task.test_x(1000), test.y[:1000]
    torch.manual_seed(task.seed)
    drawn = {
        "training_curves": plots.training_curves(history),
        "class_samples": plots.class_samples(model, task.y_dim, task.shape),
        "confusion_matrix": plots.confusion_matrix(classifier, test.x, test.y, num_classes=task.y_dim),
        **latent_figures(objective, task),
        **unit_figure(objective, recipe, task),
        "reconstructions": plots.reconstructions(model, guide, x[:30], task.shape),
    }
    if len(x) >= 3:  # fewer are not projected
        drawn["latent_pca_z1"] = plots.latent_space(guide, x, y, site="z1")
    if model.z2_dim == 2 and len(task.shape) == 2:
        drawn["mesh"] = plots.latent_mesh(model, guide, x, y, task.num_classes, task.shape, given=0)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
