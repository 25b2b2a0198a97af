"""M1+M2, stacked: M2 learns from a hundred labels, on the latents of an M1 that saw all rows and is then left alone.

"Semi-supervised learning with deep generative models" (Kingma et al., 2014), arXiv:1406.5298. Without flags: 8x8
digits, 100 labels, about a minute on two cores; M1 is trained first, where `--m1` holds none yet. As in the authors'
code, the features of a batch are drawn anew from M1's posterior, those of validation and test rows are its means, and
units of M1 whose means hardly vary are left out. The paper's task is `--data mnist --labels 100`.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ss_vae_m1
import torch
from command_line import Parser, add_network_flags, add_weight_flags, command, make_parser
from common import Task, learn_from_labels, make_task, network_settings, say, weight_settings
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.data import Split, batches
from semipyro.inference import Objective, load_weights, sample
from semipyro.papers import PAPERS
from torch import Tensor

WEIGHTS = {"labelled_weight": 0.1, "classification_weight": 50.0}
LEAST_SPREAD = 0.1  # standard deviation of a unit's posterior means over the training rows, for it to be a feature


def parser() -> Parser:
    """All flags."""
    flags = make_parser("ss_vae_m1_m2", __doc__)
    add_network_flags(flags, hidden=(300,))
    add_weight_flags(flags, WEIGHTS, "alpha", "both weights as in eq. (9) of the paper, which has 0.1")
    flags.add_argument("--m1", type=Path, default=Path("runs") / "ss_vae_m1", help="folder of a run of ss_vae_m1.py on "
        "the same data; where there is none, it is trained there with that script's settings")  # fmt: skip
    return flags


def run(args: argparse.Namespace) -> None:
    """Trains M1 where there is none, then M2 on its latents; measures, draws."""
    task = make_task(args)
    m1 = trained_m1(args)
    mean, _ = posterior(m1, task.dataset.train.x)
    kept = (mean.std(0) > LEAST_SPREAD).nonzero().flatten()
    say(args, f"M1 in {args.m1}: {len(kept)} of {mean.shape[1]} units are features")
    features = encoded(args, task, m1, kept)
    args.likelihood, args.binarize = "normal", False
    build = network_settings(args, features) | weight_settings(args, features, "m1-m2", WEIGHTS, "alpha")
    learn_from_labels(
        args, "m1-m2", "M1+M2", features, build,
        baseline=lambda m2: m2.guide.q_y,
        figures=lambda m2: figures(m1, m2, task, kept),
        drawn=(),
    )  # fmt: skip


def trained_m1(args: argparse.Namespace) -> Objective:
    """M1 of a finished run; of a new one where the folder holds none, or one that was stopped."""
    if not (args.m1 / "summary.json").exists():
        given = ("data", "seed", "device", "precision")
        flags = [text for name in given for text in (f"--{name}", str(getattr(args, name)))]
        flags += ["--data-root", args.data_root] if args.data_root else []
        flags += ["--quiet"] * args.quiet + ["--resume"] * (args.m1 / "settings.json").exists()
        ss_vae_m1.run(ss_vae_m1.parser().parse_args([*flags, "--out", str(args.m1)]))
    settings = json.loads((args.m1 / "settings.json").read_text())
    if (settings.get("paper"), settings.get("data")) != ("m1", args.data):
        found = f"{settings.get('paper')} on {settings.get('data')}"
        raise ValueError(f"--m1 {args.m1} holds a run of {found}, not of m1 on {args.data}; name another folder")
    m1 = PAPERS["m1"].build(**settings["build"])
    load_weights(m1, args.m1 / "checkpoints" / "best.ckpt")
    return m1.eval()


@torch.no_grad()
def posterior(m1: Objective, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of q(z | x), (N, L) each."""
    q_z = [m1.guide.q_z(part) for part in x.split(1000)]
    return torch.cat([q.mean for q in q_z]), torch.cat([q.stddev for q in q_z])


def encoded(args: argparse.Namespace, task: Task, m1: Objective, kept: Tensor) -> Task:
    """The task on M1's latents: means for the splits, and draws, new in each batch, for training."""
    mean, scale = (part[:, kept] for part in posterior(m1, task.dataset.train.x))
    dataset = task.dataset
    dataset = replace(
        dataset,
        shape=(len(kept),),
        train=Split(mean, dataset.train.y),
        validation=Split(posterior(m1, dataset.validation.x)[0][:, kept], dataset.validation.y),
        test=Split(posterior(m1, dataset.test.x)[0][:, kept], dataset.test.y),
    )
    rows = batches(
        torch.cat([mean, scale], 1), task.y, labelled_batch_size=args.labelled_batch_size,
        unlabelled_batch_size=args.batch_size, include_labelled=args.include_labelled, transform=draw, seed=args.seed,
        num_classes=dataset.num_classes,
    )  # fmt: skip
    return Task(dataset, task.y, rows, binarized=False)


def draw(rows: Tensor) -> Tensor:
    """Draws of the Gaussians whose means and standard deviations stand side by side in the rows."""
    mean, scale = rows.chunk(2, dim=1)
    return mean + scale * torch.randn_like(mean)


def figures(m1: Objective, m2: Objective, task: Task, kept: Tensor) -> dict[str, Figure]:
    """Samples of each class: features by M2, pictures of them by M1."""
    y = torch.eye(task.num_classes).repeat_interleave(10, 0)
    z = torch.zeros(len(y), m1.model.z_dim)
    z[:, kept] = sample(m2.model, len(y), y, mean=True)
    with torch.no_grad():
        x = m1.model.p_x(z).mean
    return {
        "class_samples": plots.image_grid(
            x, rows=task.num_classes, columns=10, shape=task.shape, row_labels=[str(k) for k in range(task.num_classes)]
        )
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
