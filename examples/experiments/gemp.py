"""Inverting VAEs for improved generative accuracy (Gemp et al., 2017): "untapped"."""

import math
from pathlib import Path

import torch
import untapped
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.plots.common import new_figure

from .base import Claim, Experiment, Metrics, Number, Record, Settings, budgeted, parsed, read_run, script

PAPER = "Gemp et al. (2017)"
HIDDEN = range(5, 10)


def settings(budget: str) -> dict[str, Settings]:
    """The paper's relaxed y and, for comparison, y summed out; each beside M2 from the same start."""
    own = {"batch_size": 10_000, "labelled_batch_size": 10_000, "gradient_clip_value": 1.0}
    small = {"batch_size": 200, "labelled_batch_size": 200}
    epochs = {"desk": 150, "paper": 150}
    forms = {"gumbel-softmax": {"temperature": 1.0}} | ({} if budget == "desk" else {"enumerated": {}})
    return {name: script("untapped", **budgeted(budget, epochs, small, **own, **form)) for name, form in forms.items()}


def measure(settings: Settings, seed: int, folder: Path) -> Metrics:
    """Trains untapped and M2, counts which digits without labels the dimensions without labels draw, and draws them."""
    learnt = untapped.learn(parsed(settings, seed, folder))
    if len(learnt.task.shape) == 2:
        for name, found in (("extraction", learnt.found), ("extraction_m2", learnt.found_m2)):
            figure = plots.digit_extraction(
                found.images, learnt.task.shape, labelled=range(5), names=list(map(str, found.read.tolist())),
                title="class that a logistic regression reads",
            )  # fmt: skip
            plots.save(figure, folder / "figures" / f"{name}.png")
    distinct = {
        f"{prefix}distinct": len(set(found.read[list(HIDDEN)].tolist()) & set(HIDDEN))
        for prefix, found in (("test_", learnt.found), ("m2_", learnt.found_m2))
    }
    return read_run(folder) | distinct


def draw(records: list[Record]) -> dict[str, Figure]:
    """Cross-entropy on the digits without labels, a line for each trial."""
    figure = new_figure(5.2, 3.6)
    axes = figure.add_subplot()
    for place, name in enumerate(dict.fromkeys(record["cell"] for record in records)):
        found = [record["metrics"] for record in records if record["cell"] == name]
        pairs = torch.tensor([[one["m2_cross_entropy_hidden"], one["test_cross_entropy_hidden"]] for one in found])
        for trial, pair in enumerate(pairs.tolist()):
            axes.plot([0, 1], pair, "o-", color=f"C{place}", alpha=0.6, label=None if trial else name, markersize=4)
    axes.axhline(math.log(10), color="0.5", linestyle=":", label="chance, ln 10")
    axes.set(xticks=[0, 1], xticklabels=["M2", "untapped"], xlim=(-0.3, 1.3), ylabel="cross-entropy on 5 to 9, nats")
    axes.legend(frameon=False)
    return {"cross_entropy": figure}


EXPERIMENTS = [
    Experiment(
        "untapped",
        PAPER,
        "MNIST, labels of 0 to 4: cross-entropy on 5 to 9 after matching, and Fig. 2",
        settings,
        measure,
        {"smoke": 1, "desk": 10, "paper": 10},
        tuple(
            number
            for cell in ("gumbel-softmax", "enumerated")
            for number in (
                Number(f"untapped, {cell}: cross-entropy on 5 to 9", cell, "2.07", "test_cross_entropy_hidden", "nats"),
                Number(f"M2, {cell}: cross-entropy on 5 to 9", cell, "2.30", "m2_cross_entropy_hidden", "nats"),
                Number(
                    f"untapped, {cell}: digits of 5 to 9 that a dimension draws", cell, "5", "test_distinct", "number"
                ),
                Number(f"M2, {cell}: digits of 5 to 9 that a dimension draws", cell, "4", "m2_distinct", "number"),
            )
        ),
        draw,
        ("extraction", "extraction_m2"),
        note="Unlabelled rows are of all digits, as in the authors' code, which draws 20,000 of them; Adam's ε is "
        "1e-8, the paper's 1e-4. The paper's mean over 10 trials; 2.30 is ln 10, chance. Measured on the 10,000 "
        "test images' digits 5 to 9, the paper's code on all of them, training images among them. Fig. 2 is of "
        "one trial; below each picture stands the class that a logistic regression reads in it, before any "
        "matching. Minutes are untapped's; M2 beside it takes its own.",
        claims=(
            Claim(
                "untapped has a lower cross-entropy on 5 to 9 than M2",
                ("gumbel-softmax", "m2_cross_entropy_hidden"),
                ("gumbel-softmax", "test_cross_entropy_hidden"),
                "nats",
            ),
            Claim(
                "untapped's dimensions draw more of these digits than M2's",
                ("gumbel-softmax", "test_distinct"),
                ("gumbel-softmax", "m2_distinct"),
                "",
            ),
        ),
    ),
]
