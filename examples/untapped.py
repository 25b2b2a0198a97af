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
from command_line import (
    Parser,
    add_posterior_flags,
    command,
    count,
    make_parser,
    natural,
    positive,
    posterior_settings,
    weight,
)
from common import (
    Task,
    make_objective,
    make_task,
    measure_bound,
    new_classifier,
    print_files,
    print_table,
    save_figures,
    say,
    standard_figures,
    summarise,
    tell_bound,
    tell_classes,
    train,
    train_on_labels,
)
from matplotlib.figure import Figure
from pyro.distributions import OneHotCategorical
from semipyro import plots
from semipyro.contract import Guide
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
from torch import Tensor, nn
from torch.nn.functional import one_hot

ROWS = 5_000  # labelled rows over which z is averaged for the canonical images


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
    add_posterior_flags(flags)
    flags.set_defaults(
        include_labelled=True,
        learning_rate=0.01,
        gradient_clip=5.0,
        likelihood="bernoulli",
        scale=None,
        usual_scale=None,
        hidden=[50, 50],
        activation="tanh",
    )
    return flags


def run(args: argparse.Namespace) -> None:
    """Trains, measures, draws."""
    learnt = learn(args)
    tell(args, learnt.task, learnt.summary)
    if args.figures:
        save_figures(args.out, figures(args, learnt))
    print_files(args, "untapped")


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
    objective: Objective
    history: list[dict[str, float]]
    found: Extraction
    found_m2: Extraction
    summary: dict[str, Any]


def learn(args: argparse.Namespace) -> Learnt:
    """Trains both, measures, and writes summary.json."""
    task = make_task(args, hidden=args.hide, usual=None)
    build = settings(args, task)
    objective = make_objective(args, "untapped", "untapped", task, build)
    rows = copy.deepcopy(task.batches)  # as they are now, in a resumed run too
    history = train(args, objective, task, monitor="unlabelled")
    m2 = train_m2(args, build, replace(task, batches=rows))
    found, found_m2 = (extract(part, task) for part in (objective, m2))
    torch.manual_seed(args.seed)
    labels_only = train_on_labels(
        new_classifier(args, task), task, learning_rate=1e-3, seed=args.seed, device=args.device
    )
    test = task.dataset.test
    measured = {
        "hidden_classes": list(task.hidden),
        **{f"test_{name}": value for name, value in measure(objective, task, found.dimensions).items()},
        **{f"m2_{name}": value for name, value in measure(m2, task, found_m2.dimensions).items()},
        "read": found.read.tolist(),
        "m2_read": found_m2.read.tolist(),
        "baseline_accuracy": accuracy(labels_only, test.x, test.y),
        **measure_bound(objective, task),
        "classes_used": classes_used(objective.guide.classify, task.x_unlabelled),
    }
    return Learnt(task, objective, history, found, found_m2, summarise(args, "untapped", task, history, measured))


def settings(args: argparse.Namespace, task: Task) -> dict[str, Any]:
    """Keywords of the paper's `build`."""
    names = (
        "z_dim", "half_width", "reverse_weight", "discriminative_y_weight", "discriminative_x_weight", "gradient",
        "temperature", "num_samples",
    )  # fmt: skip
    given = {name: getattr(args, name) for name in names} | posterior_settings(args)
    return {"x_dim": task.x_dim, "y_dim": task.y_dim, **given}


def train_m2(args: argparse.Namespace, build: dict[str, Any], task: Task) -> Objective:
    """The paper's comparison: the same networks from the same start, without the reverse bound."""
    say(args, "and the same without the reverse bound, which is M2:")
    torch.manual_seed(args.seed)
    m2 = PAPERS["untapped"].build(**{**build, "reverse_weight": 0.0})
    args = copy.copy(args)
    args.out = args.out / "m2"
    args.out.mkdir(exist_ok=True)
    train(args, m2, task, monitor="unlabelled")
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


def tell(args: argparse.Namespace, task: Task, summary: dict[str, Any]) -> None:
    """The table."""
    hidden = " ".join(map(str, task.hidden))
    print_table(args, "test accuracy", {
        "untapped": summary["test_accuracy"],
        f"    on the classes without labels ({hidden})": summary["test_accuracy_hidden"],
        "M2, the same without the reverse bound": summary["m2_accuracy"],
        f"    on the classes without labels ({hidden}) ": summary["m2_accuracy_hidden"],
        "a classifier that learnt from the labels alone": summary["baseline_accuracy"],
    })  # fmt: skip
    chance = torch.tensor(float(task.y_dim)).log().item()
    say(args, f"Cross-entropy on the classes without labels: {summary['test_cross_entropy_hidden']:.2f} nats, M2 "
        f"{summary['m2_cross_entropy_hidden']:.2f}, chance {chance:.2f}. Their dimensions of y were matched by a "
        "logistic regression on what the model draws for each.")  # fmt: skip
    tell_bound(args, summary)
    tell_classes(args, task, summary["classes_used"])


def figures(args: argparse.Namespace, learnt: Learnt) -> dict[str, Figure]:
    """Those of every example, and the digits of each dimension of y, with and without the reverse bound: Fig. 2."""
    task, objective = learnt.task, learnt.objective
    matched = Matched(objective.guide, learnt.found.dimensions)
    drawn = standard_figures(objective, task, learnt.history, args.seed, classifier=matched)
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
