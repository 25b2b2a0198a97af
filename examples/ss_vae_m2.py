"""M2 learns to classify, and to draw, from a hundred labels.

"Semi-supervised learning with deep generative models" (Kingma et al., 2014), arXiv:1406.5298. Without flags: 8x8
digits, 100 labels, about a minute on two cores. The paper's task is `--data mnist --labels 100`.
"""

import argparse
import copy
from collections.abc import Sequence

import torch
from common import (
    Parser,
    add_network_flags,
    command,
    draw_figures,
    make_parser,
    make_task,
    network_settings,
    prepare_folder,
    print_table,
    summarise,
    train,
    train_on_labels,
)
from semipyro.papers import PAPERS


def parser() -> Parser:
    """All flags."""
    flags = make_parser("ss_vae_m2", __doc__)
    add_network_flags(flags)
    add = flags.add_argument_group("objective").add_argument
    add("--labelled-weight", type=float, default=0.1, help="weight of the mean labelled bound beside the unlabelled")
    add("--classification-weight", type=float, default=50.0, help="weight of the mean log q(y|x) of the labelled rows")
    return flags


def run(args: argparse.Namespace) -> None:
    """Trains, measures, draws."""
    torch.manual_seed(args.seed)
    task = make_task(args)
    objective = PAPERS["m2"].build(
        task.x_dim,
        task.num_classes,
        labelled_weight=args.labelled_weight,
        classification_weight=args.classification_weight,
        **network_settings(args, task.dataset),
    )
    prepare_folder(args, "m2")
    untrained = copy.deepcopy(objective.guide.q_y)
    history = train(args, objective, task)
    baseline = train_on_labels(untrained, task, learning_rate=args.learning_rate, seed=args.seed)
    summary = summarise(args, "m2", objective, baseline, task, history)
    draw_figures(args.out, objective, task, history, args.seed)
    print_table(args, "M2", summary)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
