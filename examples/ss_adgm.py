"""ADGM and SDGM: an auxiliary variable makes q(y | x) a mixture, and the posterior of z more than a Gaussian.

"Improving semi-supervised learning with auxiliary deep generative models" (Maaløe et al., 2015) and "Auxiliary deep
generative models" (Maaløe et al., 2016), arXiv:1602.05473. Without flags: 8x8 digits, 100 labels, about a minute on two
cores, with narrow networks. `--form workshop` is the first paper's, `icml` the second's, `sdgm` its skip model, and
`deterministic` the comparison of the first paper's Fig. 4: M2 whose classifier reads features of x that have no noise.
The papers' task is `--data mnist --labels 100 --hidden 500 500`.
"""

import argparse
from collections.abc import Sequence
from functools import partial

from command_line import Parser, add_network_flags, add_weight_flags, command, count, make_parser, name_folder
from common import Task, learn_from_labels, make_task, network_settings, unit_figure, weight_settings
from matplotlib.figure import Figure
from semipyro.inference import Objective
from semipyro.papers import SEMI_SUPERVISED_WEIGHTS as WEIGHTS

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
    """Trains, measures, draws."""
    name_folder(args, args.form, "workshop")
    paper, title = FORMS[args.form]
    if args.averaged_classifier and args.form == "deterministic":
        raise ValueError("--averaged-classifier averages over draws of a; --form deterministic has none")
    task = make_task(args)
    build = network_settings(args, task) | weight_settings(args, task, paper, WEIGHTS, "beta")
    build |= {"a_dim": args.a_dim, "averaged_classifier": args.averaged_classifier}
    learn_from_labels(
        args, paper, title, task, build,
        classifier=lambda adgm: partial(adgm.guide.classify, num_samples=args.test_samples),
        baseline=(lambda m2: m2.guide.q_y) if args.form == "deterministic" else None,
        figures=lambda adgm: figures(args, adgm, task),
    )  # fmt: skip


def figures(args: argparse.Namespace, objective: Objective, task: Task) -> dict[str, Figure]:
    """KL per unit of z, and of a where it is a latent variable: Fig. 3 of the workshop paper."""
    return unit_figure(args, objective, task, ("a", "z") if hasattr(objective.guide, "q_a") else ("z",))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
