"""M1+M2, stacked: M2 learns from a hundred labels, on the latents of an M1 that saw all rows and is then left alone.

"Semi-supervised learning with deep generative models" (Kingma et al., 2014), arXiv:1406.5298. Without flags: 8x8
digits, 100 labels, about a minute on two cores; M1 is trained first, where `--m1` holds none yet. As in the authors'
code, the features of a batch are drawn anew from M1's posterior, those of validation and test rows are its means, and
units of M1 whose means hardly vary are left out. The paper's task is `--data mnist --labels 100`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ss_vae_m1
import torch
from command_line import (
    Parser,
    add_network_flags,
    add_weight_flags,
    check_folder,
    command,
    given_weights,
    make_parser,
    read_settings,
)
from common import Task, learn_from_labels, load_run, make_task, network_settings, say, weight_settings
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.data import Split, batches
from semipyro.inference import Objective, sample
from semipyro.inference.evaluation.features import draw_features, features
from semipyro.papers import PAPERS
from semipyro.papers import SEMI_SUPERVISED_WEIGHTS as WEIGHTS
from torch import Tensor

LEAST_SPREAD = 0.1  # standard deviation of a unit's posterior means over the training rows, for it to be a feature


def parser() -> Parser:
    """All flags."""
    flags = make_parser("ss_vae_m1_m2", __doc__)
    add_network_flags(flags, hidden=(300,), likelihood="normal")
    add_weight_flags(flags, WEIGHTS, "alpha", "both weights as in eq. (9) of the paper, which has 0.1")
    flags.add_argument("--m1", type=Path, default=Path("runs") / "ss_vae_m1", help="folder of a run of ss_vae_m1.py on "
        "the same data; where there is none, it is trained there with that script's settings")  # fmt: skip
    flags.set_defaults(gradient_clip=5.0)  # p(x | y, z) has a learnt variance, and without it a run broke
    return flags


def run(args: argparse.Namespace) -> None:
    """Trains M1 where there is none, then M2 on its latents; measures, draws."""
    task = make_task(args)
    check(args, task)
    m1 = trained_m1(args, task)
    rows = features(m1, task.dataset.train.x)
    mean, _ = rows.chunk(2, dim=1)
    kept = (mean.std(0) > LEAST_SPREAD).nonzero().flatten()
    if not len(kept):
        raise ValueError(f"--m1 {args.m1}: no unit's mean varies; train M1 for longer, or with other settings")
    say(args, f"M1 in {args.m1}: {len(kept)} of {mean.shape[1]} units are features")
    encoded = encode(args, task, m1, rows, kept)
    build = network_settings(args, encoded) | weight_settings(args, encoded, "m1-m2", WEIGHTS, "alpha")
    learn_from_labels(
        args, "m1-m2", "M1+M2", encoded, build,
        baseline=lambda m2: m2.guide.q_y,
        figures=lambda m2: figures(m1, m2, task, kept),
        drawn=(),
        noted={"features": kept.tolist(), "bound_of": "the features, which compares with no other run's"},
    )  # fmt: skip


def check(args: argparse.Namespace, task: Task) -> None:
    """A ValueError for what would otherwise be refused only after M1 was trained."""
    if args.likelihood == "bernoulli" or args.binarize:
        raise ValueError("M2 learns from features, which are not in [0, 1]; leave --likelihood and --binarize out")
    if args.m1.resolve() == args.out.resolve():
        raise ValueError(f"--m1 and --out are both {args.out}; M1 and M2 each need a folder")
    given_weights(args, WEIGHTS, "alpha")
    PAPERS["m1-m2"].build(**network_settings(args, task))  # with its flow, of any width of x
    check_folder(args)


def trained_m1(args: argparse.Namespace, task: Task) -> Objective:
    """M1 of a finished run; of a new one where the folder holds none, or one that was stopped."""
    if not (args.m1 / "summary.json").exists():
        given = ("data", "seed", "device", "precision")
        flags = [text for name in given for text in (f"--{name}", str(getattr(args, name)))]
        flags += ["--data-root", args.data_root] if args.data_root else []
        flags += ["--labels", str(args.labels)] if (task.dataset.train.y >= 0).all() else []
        flags += ["--quiet"] * args.quiet + ["--no-figures"] * (not args.figures)
        flags += ["--resume"] * (args.m1 / "settings.json").exists()
        ss_vae_m1.run(ss_vae_m1.parser().parse_args([*flags, "--out", str(args.m1)]))
    found = read_settings(args.m1 / "settings.json")
    if (found["paper"], found.get("data")) != ("m1", args.data):
        raise ValueError(f"--m1 {args.m1} holds a run of {found['paper']} on {found.get('data')}, not of m1 on "
                         f"{args.data}; name another folder")  # fmt: skip
    return load_run(args.m1)


@torch.no_grad()
def encode(args: argparse.Namespace, task: Task, m1: Objective, rows: Tensor, kept: Tensor) -> Task:
    """The task on M1's latents: means for the splits, and draws of the training rows' features, new in each batch."""
    mean, scale = (part[:, kept] for part in rows.chunk(2, dim=1))
    dataset = task.dataset
    dataset = replace(
        dataset,
        shape=(len(kept),),
        train=Split(mean, dataset.train.y),
        validation=Split(m1.guide.encode(dataset.validation.x)[:, kept], dataset.validation.y),
        test=Split(m1.guide.encode(dataset.test.x)[:, kept], dataset.test.y),
    )
    draws = batches(
        torch.cat([mean, scale], 1), task.y, labelled_batch_size=args.labelled_batch_size,
        unlabelled_batch_size=args.batch_size, include_labelled=args.include_labelled, transform=draw_features,
        seed=args.seed, num_classes=dataset.num_classes,
    )  # fmt: skip
    return Task(dataset, task.y, draws, binarized=False)


def figures(m1: Objective, m2: Objective, task: Task, kept: Tensor) -> dict[str, Figure]:
    """Samples of each class: features drawn by M2, pictures of them, which are means, by M1."""
    y = torch.eye(task.num_classes).repeat_interleave(10, 0)
    z = torch.zeros(len(y), m1.model.z_dim)
    z[:, kept] = sample(m2.model, len(y), y)
    with torch.no_grad():
        x = m1.model.p_x(z).mean
    names = [str(k) for k in range(task.num_classes)]
    samples = plots.image_grid(
        x, rows=len(names), columns=10, shape=task.shape, row_labels=names, title="Samples of each class"
    )
    return {"class_samples": samples}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
