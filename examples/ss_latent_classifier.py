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

from command_line import Parser, add_network_flags, add_start_flag, command, count, make_parser, name_folder, weight
from common import Task, learn_from_labels, make_task, network_settings, test_rows, unit_figure
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.inference import Objective
from semipyro.papers import THESIS_SCALE

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
    """Trains, measures, draws."""
    name_folder(args, args.form, "ours")
    paper, title, lam = FORMS[args.form]
    task = make_task(args)
    build = network_settings(args, task) | {"labelled_weight": lam if args.lam is None else args.lam}
    if args.zy_dim is not None and args.form != "appendix-c":
        raise ValueError("--zy-dim belongs to --form appendix-c")
    if args.zy_dim is not None:
        build["zy_dim"] = args.zy_dim
    learn_from_labels(
        args, paper, title, task, build,
        classifier=lambda ours: partial(ours.guide.classify, num_samples=args.test_samples),
        figures=lambda ours: figures(args, ours, task),
        drawn=("analogies",) if args.form in ("ours", "tight") else (),
    )  # fmt: skip


def figures(args: argparse.Namespace, objective: Objective, task: Task) -> dict[str, Figure]:
    """KL per unit of z, and reconstructions."""
    x = test_rows(task, 1000)
    model, guide = objective.model, objective.guide
    return {
        **unit_figure(args, objective, task),
        "reconstructions": plots.reconstructions(model, guide, x[:30], task.shape),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
