"""M2 learns to classify, and to draw, from a hundred labels.

"Semi-supervised learning with deep generative models" (Kingma et al., 2014), arXiv:1406.5298. Without flags: 8x8
digits, 100 labels, about a minute on two cores. The paper's task is `--data mnist --labels 100`.
"""

import argparse
import copy
from collections.abc import Sequence

import torch
from command_line import Parser, add_network_flags, command, make_parser, prepare_folder, weight
from common import (
    Task,
    announce,
    draw_figures,
    make_task,
    network_settings,
    print_files,
    print_table,
    rehearse,
    summarise,
    train,
    train_on_labels,
)
from semipyro.papers import PAPERS

WEIGHTS = {"labelled_weight": 0.1, "classification_weight": 50.0}


def parser() -> Parser:
    """All flags."""
    flags = make_parser("ss_vae_m2", __doc__)
    add_network_flags(flags)
    group = flags.add_argument_group(
        "objective", "The defaults were chosen on MNIST's validation images, with a hundred labels."
    )
    add = group.add_argument
    add("--labelled-weight", type=weight, help="weight of the mean labelled bound beside the unlabelled (default: 0.1)")
    add("--classification-weight", type=weight, help="weight of the mean log q(y|x) of the labelled rows (default: 50)")
    add("--alpha", type=weight, help="both weights as in eq. (9) of the paper, which has 0.1")
    return flags


def weights(args: argparse.Namespace, task: Task) -> dict[str, float]:
    """The objective's two weights: the flags', or those that an alpha stands for."""
    given = {name: getattr(args, name) for name in WEIGHTS if getattr(args, name) is not None}
    if args.alpha is None:
        return WEIGHTS | given
    if given:
        raise ValueError("--alpha sets both weights; leave --labelled-weight and --classification-weight out")
    rows = task.batches
    sizes = (rows.num_labelled, rows.num_unlabelled, rows.labelled_batch_size, rows.unlabelled_batch_size)
    return PAPERS["m2"].weights(*sizes, alpha=args.alpha)


def run(args: argparse.Namespace) -> None:
    """Trains, measures, draws."""
    task = make_task(args)
    build = network_settings(args, task) | weights(args, task)
    torch.manual_seed(args.seed)
    objective = PAPERS["m2"].build(**build)
    rehearse(args, objective, task)
    prepare_folder(args, "m2", build)
    announce(args, "M2", task)
    untrained = copy.deepcopy(objective.guide.q_y)
    history = train(args, objective, task)
    baseline = train_on_labels(untrained, task, learning_rate=args.learning_rate, seed=args.seed)
    summary = summarise(args, "m2", objective, baseline, task, history)
    print_table(args, "M2", summary)
    draw_figures(args.out, objective, task, history, args.seed)
    print_files(args, "m2")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
