"""What a training step costs: milliseconds beside loops written by hand, and memory.

    python benchmarks/speed.py run                       every table; 15 minutes on an idle machine with two cores
    python benchmarks/speed.py run --tables step fit     some of them; the others stay as they are
    python benchmarks/speed.py show                      writes the page and its figure anew from what was measured

What is compared takes its steps in turn, so that a noisy machine slows all alike; a ratio is the median of the ratios
round by round. Numbers go to results/speed.json, the page is results/speed.md, and its figure results/speed.png.
"""

import argparse
import multiprocessing
import platform
import re
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from by_hand import Concatenating, Fastest
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.distributions import MLP
from semipyro.files import read_json, write_json, write_whole
from semipyro.inference import Objective, fit
from semipyro.inference.objectives.checks import unchecked
from semipyro.inference.training.precision import multiplies_bf16
from semipyro.papers import PAPERS
from semipyro.plots.common import new_figure
from torch import Tensor
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
ROWS = 100  # labelled, and as many without labels
MNIST = 784
STEPS = 20  # of an epoch of the table of `fit`
WARM = 2  # steps that are not counted

Step = Callable[[], float]  # takes one step, or several, and returns the milliseconds of one
Row = dict[str, Any]


class Size(NamedTuple):
    """The widths of a data set and of M2's networks.

    Attributes:
        x_dim: D.
        hidden: width of the hidden layers.
        z_dim: L.
        y_dim: K.
        threads: of PyTorch.
    """

    x_dim: int
    hidden: int
    z_dim: int
    y_dim: int
    threads: int = 1

    def __str__(self) -> str:
        """As in 784-500-50, K = 10, two threads."""
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        return f"{self.x_dim}-{self.hidden}-{self.z_dim}, K = {self.y_dim}{threads}"

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Binary rows with labels, the labels, and binary rows without."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(2 * ROWS, self.x_dim, generator=generator).round()
        y = torch.nn.functional.one_hot(torch.arange(ROWS) % self.y_dim, self.y_dim).float()
        return x[:ROWS], y, x[ROWS:]

    def m2(self, **settings: Any) -> Objective:
        """The library's M2."""
        return PAPERS["m2"].build(self.x_dim, self.y_dim, z_dim=self.z_dim, hidden=(self.hidden,), **settings)

    def by_hand(self, kind: type[Concatenating]) -> Concatenating:
        """M2 by hand."""
        return kind(self.x_dim, self.y_dim, z_dim=self.z_dim, hidden=self.hidden)


SIZES = (Size(MNIST, 500, 50, 10, threads=2), Size(64, 200, 20, 10), Size(4, 200, 20, 3))
CLASSES = tuple(Size(MNIST, 500, 50, k) for k in (2, 10, 50, 1000))
MOST_EXACT = 50  # classes whose whole sum is timed; a thousand take a minute and 10 GB a step
MODELS = {  # what is built for MNIST's images, with the paper's networks
    "m2": {}, "m2-adversarial": {}, "adgm-workshop": {}, "adgm": {}, "sdgm": {}, "gm-dgm": {"y_dim": 30},
    "agm-dgm": {"y_dim": 30}, "cagem": {}, "latent-classifier": {}, "untapped": {"z_dim": 50},
}  # fmt: skip


# Measuring


def timed(step: Callable[[], object]) -> Step:
    """Takes the step and returns its milliseconds."""

    def run() -> float:
        start = time.perf_counter()
        step()
        return 1000 * (time.perf_counter() - start)

    return run


def stepper(objective: Objective, *, bf16: bool = False) -> Callable[..., None]:
    """Takes a step on a batch without `fit`: as `fit` takes it after its first epoch, which checks values."""
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3, fused=True)
    for network in objective.modules():
        if isinstance(network, MLP) and bf16:
            network.autocast_dtype = torch.bfloat16

    def step(*batch: Tensor) -> None:
        optimizer.zero_grad()
        with unchecked():
            objective(*batch)["loss"].backward()
        optimizer.step()

    return step


def library_step(objective: Objective, batch: tuple[Tensor, ...], *, bf16: bool = False) -> Step:
    """A step of the library."""
    return timed(partial(stepper(objective, bf16=bf16), *batch))


def hand_step(model: Concatenating, batch: tuple[Tensor, ...], *, bf16: bool = False) -> Step:
    """A step of the loop by hand; in bf16, its networks compute in bfloat16."""

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(*batch)
        model.optimizer.zero_grad()
        loss.backward()
        model.optimizer.step()

    return timed(step)


def fit_step(objective: Objective, batch: tuple[Tensor, Tensor, Tensor]) -> Step:
    """A step of the second epoch of `fit`: Lightning's part, and that of the history, are in it."""

    def run() -> float:
        history = fit(objective, [batch] * STEPS, epochs=2, device="cpu", progress=False)
        return 1000 * history[-1]["seconds"] / STEPS

    return run


def in_turn(contenders: Mapping[str, Step], rounds: int, threads: int) -> list[Row]:
    """Median milliseconds of each, and the median of its ratios to the first one."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        taken = [{name: step() for name, step in contenders.items()} for _ in range(WARM + rounds)][WARM:]
    finally:
        torch.set_num_threads(before)
    first = next(iter(contenders))
    return [
        {
            "name": name,
            "ms": round(statistics.median(row[name] for row in taken), 2),
            "ratio": round(statistics.median(row[name] / row[first] for row in taken), 3),
        }
        for name in contenders
    ]


# Tables


def step_table(rounds: int) -> Iterable[Row]:
    """M2's step at three sizes, beside the loops by hand; in bfloat16 too, where the processor multiplies it."""
    for size in SIZES:
        batch, contenders = size.batch(), dict[str, Step]()
        for bf16 in (False, True) if multiplies_bf16() and size.x_dim == MNIST else (False,):
            precision = ", bf16" if bf16 else ""
            contenders |= {
                f"by hand, concatenating{precision}": hand_step(size.by_hand(Concatenating), batch, bf16=bf16),
                f"by hand, fastest{precision}": hand_step(size.by_hand(Fastest), batch, bf16=bf16),
                f"all classes{precision}": library_step(size.m2(), batch, bf16=bf16),
                f"summed_classes=1{precision}": library_step(size.m2(summed_classes=1), batch, bf16=bf16),
            }
        yield from ({"size": str(size), **row} for row in in_turn(contenders, rounds, size.threads))


def fit_table(rounds: int) -> Iterable[Row]:
    """The same through `fit`."""
    for size in SIZES:
        batch = size.batch()
        contenders = {
            "by hand, concatenating": several(hand_step(size.by_hand(Concatenating), batch)),
            "all classes": fit_step(size.m2(), batch),
            "summed_classes=1": fit_step(size.m2(summed_classes=1), batch),
        }
        yield from ({"size": str(size), **row} for row in in_turn(contenders, max(1, rounds // STEPS), size.threads))


def several(step: Step) -> Step:
    """The mean of as many steps as `fit_step` takes."""
    return lambda: statistics.mean(step() for _ in range(STEPS))


def classes_table(rounds: int) -> Iterable[Row]:
    """M2's step and its memory by the number of classes."""
    for size in CLASSES:
        batch, summed = size.batch(), {"all classes": None, "summed_classes=1": 1}
        if size.y_dim > MOST_EXACT:
            del summed["all classes"]
        contenders = {name: library_step(size.m2(summed_classes=m), batch) for name, m in summed.items()}
        if size.y_dim <= MOST_EXACT:
            contenders = {"by hand, concatenating": hand_step(size.by_hand(Concatenating), batch), **contenders}
        for row in in_turn(contenders, rounds, size.threads):
            row["MB"] = memory(size, summed[row["name"]]) if row["name"] in summed else None
            yield {"K": size.y_dim, **row}


def memory(size: Size, summed_classes: int | None) -> float:
    """The megabytes that the rows of a step take, beside weights, gradients and Adam's means of them."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peak, size, summed_classes).result()


def peak(size: Size, summed_classes: int | None) -> float:
    """By how much three steps raise the largest memory of this process, after one step on two rows of each kind."""
    torch.set_num_threads(1)
    step, batch = stepper(size.m2(summed_classes=summed_classes)), size.batch()
    step(*(rows[:2] for rows in batch))  # which leaves gradients and the means
    before = largest()
    for _ in range(3):
        step(*batch)
    return round(largest() - before, 1)


def largest() -> float:
    """The largest memory that this process has had, in megabytes.

    On Linux `getrusage` counts what the process that started this one had, and /proc does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return float(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024  # type: ignore[index] # it is there
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if platform.system() == "Darwin" else 2**10)


def models_table(rounds: int) -> Iterable[Row]:
    """The step of every model with a sum over y: some of the classes beside all."""
    for name, settings in MODELS.items():
        size = Size(MNIST, 0, 0, int(settings.get("y_dim", 10)))
        build = partial(PAPERS[name].build, **{"x_dim": MNIST, "y_dim": 10, **settings})
        contenders = {
            "all classes": library_step(build(), size.batch()),
            "summed_classes=1": library_step(build(summed_classes=1), size.batch()),
        }
        yield from ({"model": name, "K": size.y_dim, **row} for row in in_turn(contenders, rounds, size.threads))


TABLES: dict[str, Callable[[int], Iterable[Row]]] = {
    "step": step_table, "fit": fit_table, "classes": classes_table, "models": models_table,
}  # fmt: skip


# The page

INTRODUCTION = """# What a training step costs

Written by `benchmarks/speed.py`; a test writes it anew from `speed.json` and compares. A step is one of M2 on 100
labelled and 100 unlabelled rows, unless a table says otherwise: loss, gradients, Adam. "By hand" is `by_hand.py`, plain
PyTorch for this one model: *concatenating*, as most people write it, and the *fastest* that we can write. What is
compared takes its steps in turn; milliseconds are medians, and a ratio is the median of the ratios round by round, to
the first line of its group. `summed_classes=1` sums the most probable class of a row and one drawn class in the place
of all the others, without bias. Sizes are widths of x, of the hidden layers and of z.

![Milliseconds of a step by the number of classes](speed.png)
"""
TITLES = {
    "step": "## A step by itself",
    "fit": "## A step through `fit`\n\nOf the second epoch; in the first, Pyro checks sites and values.",
    "classes": "## By the number of classes\n\nM2, 784-500-50. The memory is that of the rows of a step, beside "
    "weights, gradients and Adam's means of them.",
    "models": "## Every model with a sum over y\n\nWith the networks of its paper, on rows of 784 pixels.",
}


def page(measured: Mapping[str, Any]) -> str:
    """The page of what was measured."""
    parts = [INTRODUCTION]
    for name, title in TITLES.items():
        if name in measured:
            told = measured[name]
            parts.append(
                f"{title}\n\n{as_table(told['rows'])}\n\nMeasured on {told['machine']}; {told['rounds']} rounds.\n"
            )
    return "\n".join(parts)


def as_table(rows: list[Row]) -> str:
    """The rows as a table of Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([told(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def told(value: object) -> str:
    """A cell of a table."""
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def figure(rows: list[Row]) -> Figure:
    """Milliseconds of a step by the number of classes."""
    drawn = new_figure(5.5, 3.6)
    axes = drawn.add_subplot()
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        axes.loglog([row["K"] for row in own], [row["ms"] for row in own], "o-", label=name)
    axes.set(xlabel="classes K", ylabel="milliseconds of a step", title="M2, 784-500-50, 100 + 100 rows, one thread")
    axes.legend()
    return drawn


def machine() -> str:
    """What this ran on."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")] if Path("/proc/cpuinfo").exists() else []  # fmt: skip
    return f"{names[0] if names else platform.processor()}, PyTorch {version('torch')}, Pyro {version('pyro-ppl')}"


# The command


def run(tables: list[str], rounds: int, results: Path) -> None:
    """Measures the tables, and writes numbers, page and figure after each."""
    path = results / "speed.json"
    measured = read_json(path) if path.exists() else {}
    for name in tqdm(tables, unit="table"):
        rows = list(TABLES[name](rounds))
        measured[name] = {"rows": rows, "rounds": rounds, "machine": machine()}
        write_json(path, measured)
        tqdm.write(f"{TITLES[name]}\n\n{as_table(rows)}\n")
        show(results)


def show(results: Path) -> None:
    """Writes the page and its figure."""
    measured = read_json(results / "speed.json")
    write_whole(results / "speed.md", lambda partial: partial.write_text(page(measured)))
    if "classes" in measured:
        plots.save(figure(measured["classes"]["rows"]), results / "speed.png")


def main(arguments: list[str] | None = None) -> None:
    """Reads the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "show"], help="run: measure; show: write the page anew")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES), help="which to measure")
    parser.add_argument("--rounds", type=int, default=60, help="how often each contender takes a step")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of numbers, page and figure")
    args = parser.parse_args(arguments)
    if args.verb == "run":
        run(args.tables, args.rounds, args.results)
    else:
        show(args.results)


if __name__ == "__main__":
    main()
