"""M2 learns to classify, and to draw, from a hundred labels.

"Semi-supervised learning with deep generative models" (Kingma et al., 2014), arXiv:1406.5298. Without flags: 8x8
digits, 100 labels, about a minute on two cores. The paper's task is `--data mnist --labels 100`. With `--adversary`, an
adversary keeps the class out of z (Jurasiński's thesis, Appendix E).
"""

import argparse
from collections.abc import Sequence

from command_line import (
    Parser,
    add_network_flags,
    add_start_flag,
    add_weight_flags,
    command,
    make_parser,
    name_folder,
    weight,
)
from common import learn_from_labels, make_task, network_settings, weight_settings
from semipyro.papers import SEMI_SUPERVISED_WEIGHTS as WEIGHTS


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
    """Trains, measures, draws."""
    name_folder(args, "m2" if args.adversary is None else "adversarial", "m2")
    task = make_task(args)
    paper, title = ("m2", "M2") if args.adversary is None else ("m2-adversarial", "adversarial M2")
    build = network_settings(args, task) | weight_settings(args, task, paper, WEIGHTS, "alpha")
    if args.adversary is not None:
        build["adversary_weight"] = args.adversary
    learn_from_labels(args, paper, title, task, build, baseline=lambda m2: m2.guide.q_y)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
