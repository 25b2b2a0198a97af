"""What an experiment is: named cells, each a pure function of its settings and seed, and the published numbers."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from semipyro.files import read_json
from semipyro.inference import Objective
from shared.run_folder import load_run

Settings = dict[str, Any]
Metrics = dict[str, Any]
Record = dict[str, Any]  # what a cell's file holds
After = Callable[[Objective, Path], Metrics]

BUDGETS = ("smoke", "desk", "paper")
KINDS = ("accuracy", "error", "nats", "number")
CURVES = ("validation_accuracy", "validation_unlabelled")  # of a run, an entry an epoch, kept in its record


@dataclass(frozen=True)
class Number:
    """A published number, and the cell that measures it here.

    Attributes:
        label: what it is of.
        cell: the name of that cell.
        published: as the paper gives it; empty where it gives none.
        metric: which of the cell's metrics.
        kind: one of KINDS; an error is 1 minus the metric.
    """

    label: str
    cell: str
    published: str = ""
    metric: str = "test_accuracy"
    kind: str = "accuracy"

    def of(self, record: Record) -> float | None:
        """What the record holds, in the unit in which the number is published; None where it has none."""
        value = record["metrics"].get(self.metric)
        if value is None or self.kind in ("nats", "number"):
            return value
        return 100 * (1 - value if self.kind == "error" else value)


Measure = tuple[str, str]  # a cell and one of its metrics


@dataclass(frozen=True)
class Claim:
    """What a paper says of two numbers: that the first is the larger.

    Attributes:
        text: what it says.
        more: the first.
        less: the second, or a constant.
        unit: "points" of a share in percent, "nats", or "" for a number.
    """

    text: str
    more: Measure
    less: Measure | float
    unit: str = "points"

    def differences(self, records: Sequence[Record]) -> list[float]:
        """The first less the second, in its unit, of each seed that has both."""
        metrics = {(record["cell"], record["seed"]): record["metrics"] for record in records}
        factor = 100 if self.unit == "points" else 1

        def of(measure: Measure | float, seed: int) -> float | None:
            if not isinstance(measure, tuple):
                return measure
            return metrics.get((measure[0], seed), {}).get(measure[1])

        seeds = sorted({seed for _, seed in metrics})
        pairs = [(of(self.more, seed), of(self.less, seed)) for seed in seeds]
        return [factor * (more - less) for more, less in pairs if more is not None and less is not None]


@dataclass(frozen=True)
class Cell:
    """One training, or what belongs together: settings and a seed.

    Attributes:
        experiment: whose cell it is.
        budget: one of BUDGETS.
        name: of the settings, within the experiment.
        seed: of everything random.
        settings: values that a JSON file can hold.
    """

    experiment: str
    budget: str
    name: str
    seed: int
    settings: Settings

    @property
    def key(self) -> str:
        """Its name among the experiment's cells of this budget."""
        return f"{self.name}-seed{self.seed}"

    def path(self, results: Path) -> Path:
        """Its file."""
        return results / self.experiment / self.budget / f"{self.key}.json"


@dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        name: its name on the command line.
        paper: which paper's.
        about: what it shows there, in a line.
        settings: budget → the settings of its cells by name.
        measure: (settings, seed, folder) → metrics, `seconds` and `epochs` among them; the folder is for checkpoints,
            so that a cell that was stopped goes on.
        seeds: budget → how many seeds.
        numbers: what was published.
        figures: records of one budget → figures by name; none where they are too few.
        pictures: figures that a cell itself draws, in `figures/` of its folder, to be kept of the first seed.
        of: the experiment whose cells these are, where one run serves several tables or figures.
        note: what has to be known to read the numbers.
        claims: what the paper says of them.
    """

    name: str
    paper: str
    about: str
    settings: Callable[[str], dict[str, Settings]]
    measure: Callable[[Settings, int, Path], Metrics]
    seeds: Mapping[str, int]
    numbers: tuple[Number, ...] = ()
    figures: Callable[[list[Record]], dict[str, Figure]] = lambda records: {}
    pictures: tuple[str, ...] = ()
    of: str = ""
    note: str = ""
    claims: tuple[Claim, ...] = ()

    @property
    def home(self) -> str:
        """The experiment that its cells belong to."""
        return self.of or self.name

    def cells(self, budget: str) -> list[Cell]:
        """All of them, those of the first seed first."""
        every = self.settings(budget).items()
        return [Cell(self.home, budget, name, seed, settings)
                for seed in range(self.seeds[budget]) for name, settings in every]  # fmt: skip


def script(name: str, first: Settings | None = None, **flags: Any) -> Settings:
    """The settings of a cell that is a run of a script beside this folder, with these flags.

    `first` is a run of M1 that it goes on from.
    """
    return {"script": name, "flags": flags} | ({"first": first} if first else {})


def run_script(
    settings: Settings, seed: int, folder: Path, *, after: After = lambda objective, folder: {}, figures: bool = False
) -> Metrics:
    """Runs a script in a folder, goes on with a run that was stopped there, and reads what it measured.

    `after` measures what the script does not, on its trained objective; the script's `figures` are the first seed's.
    """
    flags, before = dict(settings["flags"]), {}
    if "first" in settings:
        start = first_folder(folder)
        before = run_script(settings["first"], seed, start)
        flags["m1" if settings["script"] == "ss_vae_m1_m2" else "start_from"] = start
    args = parsed({**settings, "flags": flags}, seed, folder, figures=figures and seed == 0)
    import_module(settings["script"]).run(args)
    found = read_run(folder)
    found["seconds"] += before.pop("seconds", 0)
    found |= {f"first_{name}": value for name, value in before.items()}
    return found | after(load_run(folder), folder)


def first_folder(folder: Path) -> Path:
    """The folder of the run that a cell goes on from, beside its own."""
    return folder.with_name(f"{folder.name}-first")


def parsed(settings: Settings, seed: int, folder: Path, *, figures: bool = False) -> Any:
    """The script's own arguments, for a run in this folder, which goes on where one was stopped there."""
    words = arguments(settings["flags"] | {"seed": seed, "out": folder, "figures": figures})
    words += ["--resume"] * (folder / "settings.json").exists()
    return import_module(settings["script"]).parser().parse_args(words)


def read_run(folder: Path) -> Metrics:
    """What summary.json and metrics.csv of a run tell."""
    summary = read_json(folder / "summary.json")
    told = ("paper", "data", "seed", "precision", "versions", "map")
    return {name: value for name, value in summary.items() if name not in told} | {"curves": read_curves(folder)}


def read_curves(folder: Path) -> dict[str, list[float]]:
    """What a run measured after each epoch."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [round(float(row[name]), 4) for row in rows] for name in CURVES if name in rows[0]}


def means(at: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The line through the means of the values at each place, for a figure of several seeds."""
    places = sorted(set(at))
    return places, [mean(value for own, value in zip(at, values, strict=True) if own == place) for place in places]


def arguments(flags: Settings) -> list[str]:
    """Flags as on a command line."""
    words: list[str] = []
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, *map(str, value if isinstance(value, list) else [value])]
    return words


def budgeted(
    budget: str, epochs: Mapping[str, int], small: Settings, own: Settings | None = None, /, **flags: Any
) -> Settings:
    """The flags of a run on MNIST's kind of data.

    The smoke budget makes it small: 8x8 digits and one epoch. The paper's has the paper's `own` settings, where those
    of the desk were chosen on validation data.
    """
    if budget == "smoke":
        return {**flags, **small, "data": "digits", "epochs": 1}
    return {"data": "mnist", **flags, **((own or {}) if budget == "paper" else {}), "epochs": epochs[budget],
            "precision": "auto"}  # fmt: skip
