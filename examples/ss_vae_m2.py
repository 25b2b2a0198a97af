"""M2 learns to classify, and to draw, from a hundred labels.

"Semi-supervised learning with deep generative models" (Kingma et al., 2014), arXiv:1406.5298. Without flags: 8x8
digits, 100 labels, about a minute on two cores. The paper's task is `--data mnist --labels 100`. With `--adversary`, an
adversary keeps the class out of z (Jurasiński's thesis, Appendix E).
"""

import argparse
import copy
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.inference import Objective, accuracy, classes_used, evaluate, fit
from semipyro.papers import PAPERS
from semipyro.papers import SEMI_SUPERVISED_WEIGHTS as WEIGHTS
from shared.baseline import train_on_labels
from shared.command import Parser, command, weight
from shared.figures import latent_figures, save_figures
from shared.fitting import read_fitting
from shared.flags import add_network_flags, add_start_flag, add_weight_flags, make_parser
from shared.pretraining import start_from
from shared.recipe import Recipe, network_settings, weight_settings
from shared.report import print_files, print_table, tell_details
from shared.run_folder import folder_of_form, read_output
from shared.summary import write_summary
from shared.task import Task, make_task, read_data
from shared.training import begin_run, progress


def parser() -> Parser:
    """All flags."""
    flags = make_parser("ss_vae_m2", __doc__)
    add_network_flags(flags)
    add_weight_flags(flags, WEIGHTS, "alpha", "both weights as in eq. (9) of the paper, which has 0.1 (with "
        "--adversary the thesis' alpha, which is 1); the defaults were chosen on MNIST's validation images, with a "
        "hundred labels")  # fmt: skip
    flags.add_argument("--adversary", type=weight, nargs="?", const=1.0, help="train against an adversary that reads "
        "the class from z, with this weight (1 if none is given)")  # fmt: skip
    add_start_flag(flags)
    return flags


def run(args: argparse.Namespace) -> None:
    """Reads the flags, and takes the steps from the data to the figures."""
    form = "m2" if args.adversary is None else "adversarial"
    fitting, output = read_fitting(args), read_output(args, folder_of_form(args, form, usual="m2"))

    # The data: batches with and without labels to learn from, and two further splits to choose and to measure on.
    task = make_task(read_data(args), likelihood=args.likelihood)
    validation, test = task.dataset.validation, task.dataset.test

    # Model p(x, y, z), guide q(z, y | x), and the objective, which is the bound that both are trained on.
    recipe = choose(args, task)
    torch.manual_seed(task.seed)
    objective = PAPERS[recipe.paper].build(**recipe.build)
    start_from(args.start_from, objective)
    untrained = copy.deepcopy(objective.guide.q_y)
    with begin_run(objective, recipe, task, fitting, output):
        # Fit, with a checkpoint every epoch; the objective ends with the weights of the best one.
        history = fit(
            objective, task.batches, validation=(validation.x, validation.y),
            validation_bound_x=task.bound_x(validation.x), monitor="accuracy", restore_best=True, out=output.folder,
            resume=output.resume, **fitting.keywords, **progress(fitting, quiet=output.quiet),
        )  # fmt: skip

        # The baseline: the same classifier q(y | x), which learns from the labelled rows alone.
        baseline = train_on_labels(untrained, task, learning_rate=fitting.learning_rate, device=fitting.device)

        # Measure on the test rows, which nothing above has read.
        torch.manual_seed(task.seed)
        measured = {
            "test_accuracy": accuracy(objective.guide.classify, test.x, test.y),
            "baseline_accuracy": accuracy(baseline, test.x, test.y),
            "bound": evaluate(objective, test.x, bound_x=task.bound_x(test.x))["unlabelled"],
            "classes_used": classes_used(objective.guide.classify, task.x_unlabelled),
        }
        summary = write_summary(recipe, task, fitting, output, history, measured)

        # Tell, and draw.
        print_table(output, "test accuracy", {
            f"{recipe.title}, {task.num_labels} labels and the unlabelled rows": summary["test_accuracy"],
            f"the same classifier, {task.num_labels} labels alone": summary["baseline_accuracy"],
        })  # fmt: skip
        tell_details(output, recipe, task, summary)
        if output.figures:
            save_figures(output.folder, figures(objective, task, history))
        print_files(output, recipe.paper)


def choose(args: argparse.Namespace, task: Task) -> Recipe:
    """The row of papers.py, and the keywords of its `build`: networks and weights of the objective."""
    paper, title = ("m2", "M2") if args.adversary is None else ("m2-adversarial", "adversarial M2")
    build = network_settings(args, task) | weight_settings(args, task, paper, WEIGHTS, "alpha")
    adversary = {} if args.adversary is None else {"adversary_weight": args.adversary}
    return Recipe(paper, title, build | adversary)


def figures(objective: Objective, task: Task, history: list[dict[str, float]]) -> dict[str, Figure]:
    """What M2 has learnt, in pictures of its training, of what it generates, and of its latent space."""
    model, guide, test = objective.model, objective.guide, task.dataset.test
    torch.manual_seed(task.seed)
    return {
        "training_curves": plots.training_curves(history),
        "class_samples": plots.class_samples(model, task.y_dim, task.shape),
        "analogies": plots.analogies(model, guide, test.x[:10], task.y_dim, task.shape),
        "confusion_matrix": plots.confusion_matrix(guide.classify, test.x, test.y, num_classes=task.y_dim),
        **latent_figures(objective, task),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
