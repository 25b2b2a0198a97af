"""Training in reverse: labels without images make the classifier tell apart classes of which it has no label.

"Inverting VAEs for Improved Generative Accuracy" (Gemp, Parente, Mahadevan, 2017), "untapped". Without flags: 8x8
digits, every label of 0 to 4 and none of 5 to 9, about a minute on two cores, beside M2 without the reverse bound. The
paper's task is `--data mnist --batch-size 10000 --labelled-batch-size 10000 --epochs 150 --temperature 1`.
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from pyro.distributions import OneHotCategorical
from semipyro import plots
from semipyro.contract import Guide
from semipyro.distributions import CategoricalNet
from semipyro.inference import (
    Objective,
    accuracy,
    canonical_images,
    classes_used,
    cross_entropy,
    match_dimensions,
)
from semipyro.inference.objectives.inverted import GRADIENTS
from semipyro.papers import PAPERS
from shared.baseline import train_on_labels
from shared.command import Parser, command, count, natural, positive, say, weight
from shared.figures import latent_figures, save_figures
from shared.fitting import Fitting, read_fitting
from shared.flags import add_posterior_flags, add_sum_flag, make_parser
from shared.recipe import Recipe, posterior_settings, sum_settings
from shared.report import print_files, print_table, tell_bound, tell_classes
from shared.run_folder import Output, read_output
from shared.summary import measure_bound, write_summary
from shared.task import Task, make_task, read_data
from shared.training import begin_run, train
from torch import Tensor, nn
from torch.nn.functional import one_hot

ROWS = 5_000  # labelled rows over which z is averaged for the canonical images
BASELINE: dict[str, Any] = {
    "hidden": [50, 50],
    "activation": "tanh",
}  # layers of the classifier that learns from the labels alone


def parser() -> Parser:
    """All flags."""
    flags = make_parser("untapped", __doc__, labels="all those of the classes that are not hidden")
    add = flags.add_argument_group("model and objective").add_argument
    add("--hide", type=natural, nargs="+", default=[5, 6, 7, 8, 9], help="classes that get no label")
    add("--z-dim", type=count, default=2, help="width of the latent z")
    add("--half-width", type=positive, default=1.5, help="z lies between minus this and this")
    add("--reverse-weight", type=weight, default=1.0, help="weight of the reverse bound; 0 is M2")
    add("--discriminative-y-weight", type=weight, default=10.0, help="weight of the mean log q(y|x) of labelled rows")
    add("--discriminative-x-weight", type=weight, default=0.1, help="weight of the distance of labelled rows to their "
        "reconstruction")  # fmt: skip
    add("--gradient", choices=GRADIENTS, default="detached", help="of the draw of x in the reverse bound")
    add("--temperature", type=positive, help="relax y by Gumbel-softmax at this temperature, as the paper does with 1; "
        "without it, y is summed out exactly")  # fmt: skip
    add("--num-samples", type=count, default=1, help="draws of z that each bound averages over")
    add_sum_flag(flags)
    add_posterior_flags(flags)
    flags.set_defaults(include_labelled=True, learning_rate=0.01, gradient_clip=5.0)
    return flags


def run(args: argparse.Namespace) -> None:
    """Takes the steps from the data to the measures, tells what came of them, and draws."""
    learnt = learn(args)
    tell(learnt.task, learnt.output, learnt.summary)
    if learnt.output.figures:
        save_figures(learnt.output.folder, figures(learnt))
    print_files(learnt.output, "untapped")


class Extraction(NamedTuple):
    """What each dimension of y stands for, in a trained model.

    Attributes:
        images: the picture that each draws, (K, D).
        dimensions: the dimension of each class, (K,), after matching.
        read: the class that a logistic regression reads in each picture, (K,); one may come twice.
    """

    images: Tensor
    dimensions: Tensor
    read: Tensor


class Learnt(NamedTuple):
    """A run's outcome: untapped, and M2 from the same start without the reverse bound."""

    task: Task
    output: Output
    objective: Objective
    history: list[dict[str, float]]
    found: Extraction
    found_m2: Extraction
    summary: dict[str, Any]


def learn(args: argparse.Namespace) -> Learnt:
    """Reads the flags, and takes the steps from the data to the measures."""
    fitting, output = read_fitting(args), read_output(args, scale=None, **BASELINE)

    # The data.
    task = make_task(read_data(args), likelihood="bernoulli", hidden=args.hide, usual=None)
    test = task.dataset.test

    # Model, guide and objective, with a reverse process that is made of the same networks.
    recipe = Recipe("untapped", "untapped", settings(args, task))
    torch.manual_seed(task.seed)
    objective = PAPERS[recipe.paper].build(**recipe.build)
    with begin_run(objective, recipe, task, fitting, output):
        # Fit, and fit M2 beside it, on the same batches; read what each dimension of y stands for.
        same = replace(task, batches=copy.deepcopy(task.batches))
        history = train(objective, task, fitting, output, monitor="unlabelled")
        m2 = train_m2(recipe, same, fitting, output)
        found, found_m2 = (extract(each, task) for each in (objective, m2))

        # The baseline: a classifier that learns from the labelled rows alone.
        torch.manual_seed(task.seed)
        baseline = CategoricalNet((task.x_dim,), task.y_dim, **BASELINE)
        train_on_labels(baseline, task, learning_rate=1e-3, device=fitting.device)

        # Measure.
        measured = {
            "hidden_classes": list(task.hidden),
            **{f"test_{name}": value for name, value in measure(objective, task, found.dimensions).items()},
            **{f"m2_{name}": value for name, value in measure(m2, task, found_m2.dimensions).items()},
            "read": found.read.tolist(),
            "m2_read": found_m2.read.tolist(),
            "baseline_accuracy": accuracy(baseline, test.x, test.y),
            "bound": measure_bound(objective, task),
            "classes_used": classes_used(objective.guide.classify, task.x_unlabelled),
        }
        summary = write_summary(recipe, task, fitting, output, history, measured)
        return Learnt(task, output, objective, history, found, found_m2, summary)


def settings(args: argparse.Namespace, task: Task) -> dict[str, Any]:
    """Keywords of the row's `build`."""
    names = (
        "z_dim", "half_width", "reverse_weight", "discriminative_y_weight", "discriminative_x_weight", "gradient",
        "temperature", "num_samples",
    )  # fmt: skip
    given = {name: getattr(args, name) for name in names} | posterior_settings(args) | sum_settings(args)
    return {"x_dim": task.x_dim, "y_dim": task.y_dim, **given}


def train_m2(recipe: Recipe, task: Task, fitting: Fitting, output: Output) -> Objective:
    """The paper's comparison: the same networks from the same start, without the reverse bound."""
    say("and the same without the reverse bound, which is M2:", quiet=output.quiet)
    torch.manual_seed(task.seed)
    m2 = PAPERS[recipe.paper].build(**{**recipe.build, "reverse_weight": 0.0})
    inside = replace(output, folder=output.folder / "m2")
    inside.folder.mkdir(exist_ok=True)
    train(m2, task, fitting, inside, monitor="unlabelled")
    return m2


def extract(objective: Objective, task: Task) -> Extraction:
    """What each dimension of y stands for.

    Dimensions without labels are matched to classes without labels by a logistic regression that saw all of the
    training labels, as in the paper; an optimal assignment takes the place of the paper's rule for ties.
    """
    from sklearn.linear_model import LogisticRegression

    train, known = task.dataset.train, task.y >= 0
    x, y = train.x[known][:ROWS], one_hot(task.y[known][:ROWS], task.y_dim).to(train.x)
    images = canonical_images(objective.model, objective.guide, x, y)
    scorer = LogisticRegression(C=0.1, max_iter=1000).fit(train.x[:20_000].numpy(), train.y[:20_000].numpy())
    scores = torch.as_tensor(scorer.predict_log_proba(images.numpy())).T  # class, dimension
    dimensions, hidden = torch.arange(task.y_dim), torch.tensor(task.hidden)
    dimensions[hidden] = hidden[match_dimensions(scores[hidden][:, hidden])]
    return Extraction(images, dimensions, scores.argmax(0))


def measure(objective: Objective, task: Task, dimensions: Tensor) -> dict[str, float]:
    """After matching: accuracy, and cross-entropy and accuracy on the classes without labels."""
    test, classify = task.dataset.test, objective.guide.classify
    matched = Matched(objective.guide, dimensions)
    unseen = torch.where(torch.isin(test.y, torch.tensor(task.hidden)), test.y, -1)
    return {
        "accuracy": accuracy(matched, test.x, test.y),
        "accuracy_hidden": accuracy(matched, test.x, unseen),
        "cross_entropy_hidden": cross_entropy(classify, test.x, unseen, dimensions=dimensions),
    }


class Matched(nn.Module):
    """The guide's classifier with its dimensions in the order of the classes."""

    guide: Guide

    def __init__(self, guide: Guide, dimensions: Tensor) -> None:
        super().__init__()
        self.guide = guide
        self.dimensions = dimensions

    def forward(self, x: Tensor) -> OneHotCategorical:
        """q(y | x), its columns permuted."""
        return OneHotCategorical(logits=self.guide.classify(x).logits[:, self.dimensions])


def tell(task: Task, output: Output, summary: dict[str, Any]) -> None:
    """The table, cross-entropies, the bound, and the classes in use."""
    hidden = " ".join(map(str, task.hidden))
    print_table(output, "test accuracy", {
        "untapped": summary["test_accuracy"],
        f"    on the classes without labels ({hidden})": summary["test_accuracy_hidden"],
        "M2, the same without the reverse bound": summary["m2_accuracy"],
        f"    on the classes without labels ({hidden}) ": summary["m2_accuracy_hidden"],
        "a classifier that learnt from the labels alone": summary["baseline_accuracy"],
    })  # fmt: skip
    chance = torch.tensor(float(task.y_dim)).log().item()
    say(f"Cross-entropy on the classes without labels: {summary['test_cross_entropy_hidden']:.2f} nats, M2 "
        f"{summary['m2_cross_entropy_hidden']:.2f}, chance {chance:.2f}. Their dimensions of y were matched by a "
        "logistic regression on what the model draws for each.", quiet=output.quiet)  # fmt: skip
    tell_bound(output, summary)
    tell_classes(output, task, summary["classes_used"])


def figures(learnt: Learnt) -> dict[str, Figure]:
    """Those of M2, and the digits of each dimension of y, with and without the reverse bound: Fig. 2."""
    task, model, guide = learnt.task, learnt.objective.model, learnt.objective.guide
    test, matched = task.dataset.test, Matched(guide, learnt.found.dimensions)
    torch.manual_seed(task.seed)
    drawn = {
        "training_curves": plots.training_curves(learnt.history),
        "class_samples": plots.class_samples(model, task.y_dim, task.shape, class_names=task.class_names),
        "analogies": plots.analogies(model, guide, test.x[:10], task.y_dim, task.shape),
        "confusion_matrix": plots.confusion_matrix(matched, test.x, test.y, num_classes=task.y_dim),
        **latent_figures(learnt.objective, task),
    }
    labelled = [label for label in range(task.num_classes) if label not in task.hidden]
    for name, found in (("digit_extraction", learnt.found), ("digit_extraction_m2", learnt.found_m2)):
        if len(task.shape) == 2:
            names = [str(int((found.dimensions == k).nonzero())) for k in range(task.y_dim)]
            drawn[name] = plots.digit_extraction(found.images, task.shape, labelled=labelled, names=names)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
