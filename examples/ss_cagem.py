"""CaGeM: two layers of latents with the class between them, which labels steer and do not overrule.

"Semi-supervised generation with cluster-aware generative models" (Maaløe et al., 2017), arXiv:1704.00637. Without
flags: 8x8 digits, 100 labels, about a minute on two cores, with narrow networks and settings chosen on the validation
digits. The paper's task is `--data mnist --hidden 1024 1024 --z2-hidden 512 512`. `--z2-dim 2` draws the meshes of its
Fig. 3; `--kl-warmup` is its temperature. All training rows count as unlabelled ones, as in the paper.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

from command_line import Parser, add_network_flags, add_weight_flags, command, count, make_parser
from common import Task, learn_from_labels, make_task, network_settings, test_rows, unit_figure, weight_settings
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.inference import Objective, cascade

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
    """Trains, measures, draws."""
    task = make_task(args)
    learn_from_labels(
        args, "cagem", "CaGeM", task, settings(args, task),
        classifier=lambda cagem: cascade(cagem.model, cagem.guide, args.test_samples),
        figures=lambda cagem: figures(args, cagem, task),
        drawn=("class_samples",),
        others={"q": lambda cagem: partial(cagem.guide.classify, num_samples=args.test_samples)},
    )  # fmt: skip


def settings(args: argparse.Namespace, task: Task) -> dict[str, Any]:
    """Keywords of the paper's `build`."""
    build = network_settings(args, task) | weight_settings(args, task, "cagem", WEIGHTS, "beta")
    return build | {name: getattr(args, name) for name in ("z1_dim", "z2_dim", "z2_hidden", "batch_norm")}


def figures(args: argparse.Namespace, objective: Objective, task: Task) -> dict[str, Figure]:
    """KL per unit, PCA of z1 (that of z2 is drawn anyway), reconstructions, and, for a z2 of two dimensions, meshes."""
    model, guide = objective.model, objective.guide
    x, y = test_rows(task, 1000), task.dataset.test.y[:1000]
    drawn = {
        **unit_figure(args, objective, task, ("z1", "z2")),
        "reconstructions": plots.reconstructions(model, guide, x[:30], task.shape),
    }
    if len(x) >= 3:  # fewer are not projected
        drawn["latent_pca_z1"] = plots.latent_space(guide, x, y, site="z1")
    if objective.model.z2_dim == 2 and len(task.shape) == 2:
        drawn["mesh"] = plots.latent_mesh(model, guide, x, y, task.num_classes, task.shape, given=0)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
