"""M1+M2, stacked: M2 learns from a hundred labels, on the latents of an M1 that saw all rows and is then left alone.

"Semi-supervised learning with deep generative models" (Kingma et al., 2014), arXiv:1406.5298. Without flags: 8x8
digits, 100 labels, about a minute on two cores; M1 is trained first, where `--m1` holds none yet. As in the authors'
code, the features of a batch are drawn anew from M1's posterior, those of validation and test rows are its means, and
units of M1 whose means hardly vary are left out. The paper's task is `--data mnist --labels 100`.
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ss_vae_m1
import torch
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.data import Split, batches
from semipyro.inference import Objective, accuracy, classes_used, sample
from semipyro.inference.evaluation.features import draw_features, features
from semipyro.papers import PAPERS
from semipyro.papers import SEMI_SUPERVISED_WEIGHTS as WEIGHTS
from shared.baseline import train_on_labels
from shared.command import Parser, command, say
from shared.figures import latent_figures, save_figures
from shared.fitting import read_fitting, usual_epochs
from shared.flags import add_network_flags, add_weight_flags, make_parser
from shared.recipe import Recipe, given_weights, network_settings, weight_settings
from shared.report import print_files, print_table, tell_details
from shared.run_folder import Output, check_folder, load_run, read_output, read_settings
from shared.summary import measure_bound, write_summary
from shared.task import DataSettings, Task, make_task, read_data
from shared.training import begin_run, train
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
    """Reads the flags, and takes the steps from the data, over the features of M1, to the figures."""
    fitting, output, settings = read_fitting(args), read_output(args), read_data(args)

    # The data, and M1's features of them, which M2 learns from.
    pixels = make_task(settings, likelihood=args.likelihood)
    check(args, pixels, output)
    m1 = trained_m1(args, pixels)
    rows = features(m1, pixels.dataset.train.x)
    kept = varying_units(rows, args.m1)
    say(f"M1 in {args.m1}: {len(kept)} of {rows.shape[1] // 2} units are features", quiet=output.quiet)
    task = encode(settings, pixels, m1, rows, kept)
    test = task.dataset.test

    # Model, guide and objective, and the classifier that will learn from the labels alone.
    build = network_settings(args, task) | weight_settings(args, task, "m1-m2", WEIGHTS, "alpha")
    recipe = Recipe("m1-m2", "M1+M2", build)
    torch.manual_seed(task.seed)
    objective = PAPERS[recipe.paper].build(**recipe.build)
    with begin_run(objective, recipe, task, fitting, output):
        untrained = copy.deepcopy(objective.guide.q_y)

        # Fit, and train the classifier of the labels alone.
        history = train(objective, task, fitting, output)
        baseline = train_on_labels(untrained, task, learning_rate=fitting.learning_rate, device=fitting.device)

        # Measure.
        torch.manual_seed(task.seed)
        measured = {
            "test_accuracy": accuracy(objective.guide.classify, test.x, test.y),
            "baseline_accuracy": accuracy(baseline, test.x, test.y),
            "bound": measure_bound(objective, task),
            "classes_used": classes_used(objective.guide.classify, task.x_unlabelled),
            "features": kept.tolist(),
            "bound_of": "the features, which compares with no other run's",
        }
        summary = write_summary(recipe, task, fitting, output, history, measured)

        # Tell, and draw.
        print_table(output, "test accuracy", {
            f"M1+M2, {task.num_labels} labels and the unlabelled rows": summary["test_accuracy"],
            f"the same classifier, {task.num_labels} labels alone": summary["baseline_accuracy"],
        })  # fmt: skip
        tell_details(output, recipe, task, summary)
        if output.figures:
            drawn = figures(objective, task, history)
            save_figures(output.folder, drawn | {"class_samples": class_samples(m1, objective, pixels, kept)})
        print_files(output, recipe.paper)


def check(args: argparse.Namespace, task: Task, output: Output) -> None:
    """A ValueError for what would otherwise be refused only after M1 was trained."""
    if task.likelihood == "bernoulli" or task.binarized:
        raise ValueError("M2 learns from features, which are not in [0, 1]; leave --likelihood and --binarize out")
    if args.m1.resolve() == output.folder.resolve():
        raise ValueError(f"--m1 and --out are both {output.folder}; M1 and M2 each need a folder")
    given_weights(args, WEIGHTS, "alpha")
    PAPERS["m1-m2"].build(**network_settings(args, task))  # with its flow, of any width of x
    check_folder(output)


def trained_m1(args: argparse.Namespace, task: Task) -> Objective:
    """M1 of the run in --m1, which is trained first where there is none, or trained on where it was stopped."""
    if not (args.m1 / "summary.json").exists():
        train_m1(args, task)
    found = read_settings(args.m1 / "settings.json")
    if (found["paper"], found.get("data")) != ("m1", task.data):
        raise ValueError(f"--m1 {args.m1} holds a run of {found['paper']} on {found.get('data')}, not of m1 on "
                         f"{task.data}; name another folder")  # fmt: skip
    return load_run(args.m1)


def train_m1(args: argparse.Namespace, task: Task) -> None:
    """Trains M1 as ss_vae_m1.py does without flags, on the same data and labels, in the folder --m1."""
    usual = ss_vae_m1.parser().parse_args([])
    same = {name: vars(args)[name] for name in ("data", "data_root", "seed", "device", "precision")}
    labels = task.num_labels if (task.dataset.train.y >= 0).all() else None  # or the data's own
    settings = replace(read_data(usual), data=task.data, data_root=args.data_root, labels=labels, seed=task.seed)
    fitting = replace(read_fitting(usual), epochs=usual_epochs(task.data), device=args.device, precision=args.precision)
    output = Output(
        folder=args.m1, resume=(args.m1 / "settings.json").exists(), overwrite=False, figures=args.figures,
        quiet=args.quiet, flags={**vars(usual), **same},
    )  # fmt: skip
    own = make_task(settings, likelihood=usual.likelihood)
    ss_vae_m1.learn(own, ss_vae_m1.choose(usual, own), fitting, output, usual.classifier)


def varying_units(rows: Tensor, folder: Path) -> Tensor:
    """The units of M1 whose means vary over the rows; a ValueError where none does."""
    mean, _ = rows.chunk(2, dim=1)
    kept = (mean.std(0) > LEAST_SPREAD).nonzero().flatten()
    if not len(kept):
        raise ValueError(f"--m1 {folder}: no unit's mean varies; train M1 for longer, or with other settings")
    return kept


@torch.no_grad()
def encode(settings: DataSettings, task: Task, m1: Objective, rows: Tensor, kept: Tensor) -> Task:
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
        torch.cat([mean, scale], 1), task.y, labelled_batch_size=settings.labelled_batch_size,
        unlabelled_batch_size=settings.batch_size, include_labelled=settings.include_labelled, transform=draw_features,
        seed=settings.seed, num_classes=dataset.num_classes,
    )  # fmt: skip
    return replace(task, dataset=dataset, batches=draws)


def figures(objective: Objective, task: Task, history: list[dict[str, float]]) -> dict[str, Figure]:
    """Training, classes and latent space of M2."""
    guide, test = objective.guide, task.dataset.test
    torch.manual_seed(task.seed)
    return {
        "training_curves": plots.training_curves(history),
        "confusion_matrix": plots.confusion_matrix(guide.classify, test.x, test.y, num_classes=task.y_dim),
        **latent_figures(objective, task),
    }


def class_samples(m1: Objective, m2: Objective, pixels: Task, kept: Tensor) -> Figure:
    """Samples of each class: features drawn by M2, pictures of them, which are means, by M1."""
    y = torch.eye(pixels.num_classes).repeat_interleave(10, 0)
    z = torch.zeros(len(y), m1.model.z_dim)
    z[:, kept] = sample(m2.model, len(y), y)
    with torch.no_grad():
        x = m1.model.p_x(z).mean
    names = [str(k) for k in range(pixels.num_classes)]
    return plots.image_grid(
        x, rows=len(names), columns=10, shape=pixels.shape, row_labels=names, title="Samples of each class"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
