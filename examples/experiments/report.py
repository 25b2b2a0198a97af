"""Tables and figures of what was measured, beside what was published, from the records alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t as student
from semipyro import plots

from .base import BUDGETS, Claim, Experiment, Number, Record
from .records import found

UNITS = {"accuracy": ", %", "error": ", error in %", "nats": ", nats", "number": ""}
CLAIMS = ("what the papers say", "in", "difference", "seeds", "budget", "seen here")
COLUMNS = ("", "published", "ours", "budget", "seeds", "epochs", "minutes")


def table(experiment: Experiment, results: Path) -> list[tuple[str, ...]]:
    """A row for each number and budget that has records of it, and for each published number that has none."""
    records = {budget: found(experiment.cells(budget), results) for budget in BUDGETS}
    return [row for number in experiment.numbers for row in rows(number, records)]


def rows(number: Number, records: dict[str, list[Record]]) -> Iterable[tuple[str, ...]]:
    """The rows of a number: one a budget, or one that says that it was not run."""
    label = f"{number.label}{UNITS[number.kind]}"
    own = {budget: [record for record in of if record["cell"] == number.cell and number.of(record) is not None]
           for budget, of in records.items()}  # fmt: skip
    for budget, of in own.items():
        if of:
            yield (label, number.published or "–", measured(number, of), budget, str(len(of)), span(of, "epochs"),
                   span(of, "minutes"))  # fmt: skip
    if number.published and not any(own.values()):
        yield label, number.published or "–", "–", "not run", "", "", ""


def measured(number: Number, records: Sequence[Record]) -> str:
    """Mean and standard deviation over the seeds."""
    values = [float(number.of(record) or 0.0) for record in records]
    digits = {"nats": 2, "number": 2}.get(number.kind, 1)
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def span(records: Sequence[Record], field: str) -> str:
    """One value, or the least and the greatest."""
    low, high = (f"{pick(record[field] for record in records):.3g}" for pick in (min, max))
    return low if low == high else f"{low} to {high}"


def claims(experiment: Experiment, results: Path) -> list[tuple[str, ...]]:
    """A row for each of the paper's claims."""
    records = {budget: found(experiment.cells(budget), results) for budget in BUDGETS}
    return [claimed(claim, experiment.name, records) for claim in experiment.claims]


def claimed(claim: Claim, name: str, records: dict[str, list[Record]]) -> tuple[str, ...]:
    """The difference that a claim is about, and whether it is seen: at the dearest budget with three seeds or more.

    Where none has three, at the one with the most.
    """
    of = {budget: differences for budget, own in records.items() if (differences := claim.differences(own))}
    if not of:
        return claim.text, name, "–", "", "not run", ""
    budget = max(of, key=lambda name: (min(len(of[name]), 3), BUDGETS.index(name)))
    differences = of[budget]
    half = interval(differences)
    digits = 1 if claim.unit == "points" else 2
    spread = "" if half is None else f" ± {half:.{digits}f}"
    shown = f"{mean(differences):+.{digits}f}{spread} {claim.unit}".rstrip()
    return claim.text, name, shown, str(len(differences)), budget, verdict(mean(differences), half)


def interval(differences: Sequence[float]) -> float | None:
    """Half of the 95 % interval of Student's t around the mean; None for a single value."""
    count = len(differences)
    return float(student.ppf(0.975, count - 1)) * stdev(differences) / count**0.5 if count > 1 else None


def verdict(centre: float, half: float | None) -> str:
    """What an interval says."""
    if half is None or abs(centre) <= half:
        return "undecided"
    return "yes" if centre > 0 else "no, the contrary"


def draw(experiment: Experiment, results: Path) -> list[Path]:
    """Draws the figures of each budget that has records, and returns their files."""
    drawn = []
    for budget in BUDGETS:
        records = found(experiment.cells(budget), results)
        for name, figure in (experiment.figures(records) if records else {}).items():
            drawn.append(results / experiment.name / budget / f"{name}.png")
            plots.save(figure, drawn[-1])
    return drawn


def pictures(experiment: Experiment, results: Path) -> list[Path]:
    """The figures that are there: those that were drawn, and those that cells kept."""
    folders = [(results / experiment.name / budget, results / experiment.home / budget) for budget in BUDGETS]
    own = [path for folder, _ in folders for path in folder.glob("*.png") if "-seed0-" not in path.name]
    kept = [
        path for _, folder in folders for name in experiment.pictures for path in folder.glob(f"*-seed0-{name}.png")
    ]
    return sorted(own) + sorted(kept)


def state(experiment: Experiment, results: Path) -> str:
    """How many of its cells are done."""
    counts = [
        (budget, len(found(cells, results)), len(cells)) for budget in BUDGETS for cells in [experiment.cells(budget)]
    ]
    return ", ".join(f"{budget} {done} of {total}" for budget, done, total in counts if done) or "no cell done"


def text(experiment: Experiment, results: Path) -> str:
    """The table for a terminal."""
    said = claims(experiment, results)
    shown = [
        *aligned([COLUMNS, *table(experiment, results)]),
        *(["", *aligned([CLAIMS, *said])] if said else []),
    ]
    head = f"{experiment.name}: {experiment.about}\n{experiment.paper}; {state(experiment, results)}"
    foot = [f"Measured on {', '.join(machines(experiment, results))}."] if machines(experiment, results) else []
    return "\n".join([head, "", *shown, *foot, *([experiment.note] if experiment.note else [])])


def aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines with their columns one below the other."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def markdown(columns: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    """A table of a page."""
    every = [columns, tuple("---" for _ in columns), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in every)


def machines(experiment: Experiment, results: Path) -> list[str]:
    """The kinds of machine that computed its cells, and what the networks computed in there."""
    records = [record for budget in BUDGETS for record in found(experiment.cells(budget), results)]
    return list(dict.fromkeys(f"{record['machine']} ({precision(record)})" for record in records))


def precision(record: Record) -> str:
    """What the networks computed in; earlier records have it among their settings."""
    found = record.get("precision") or record["settings"].get("flags", {}).get("precision", "32")
    return "32 bits" if found == "32" else str(found)


def page(experiments: Iterable[Experiment], results: Path, introduction: str) -> str:
    """results/README.md: what the papers say, then the numbers of each experiment."""
    every = list(experiments)
    said = markdown(CLAIMS, [row for experiment in every for row in claims(experiment, results)])
    sections = [section(experiment, results) for experiment in every]
    return "\n\n".join([introduction, said, *sections]) + "\n"


def section(experiment: Experiment, results: Path) -> str:
    """An experiment's part of the page."""
    shown = table(experiment, results)
    parts = [f"## {experiment.name}", f"{experiment.about[0].upper()}{experiment.about[1:]}. {experiment.paper}. "
             f"{state(experiment, results).capitalize()}."]  # fmt: skip
    if shown:
        parts.append(markdown(COLUMNS, shown))
    if of := machines(experiment, results):
        parts.append(f"Measured on {', '.join(of)}.")
    if experiment.note:
        parts.append(experiment.note)
    images = [f"![{path.stem}]({path.relative_to(results).as_posix()})" for path in pictures(experiment, results)]
    return "\n\n".join([*parts, *images])
