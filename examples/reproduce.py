"""The tables and figures of the papers, as named experiments that one command runs, resumes and sets beside the papers.

    reproduce.py list                                  what there is
    reproduce.py run thesis-table1 --jobs 2            computes what is not done yet
    reproduce.py show thesis-table1                    the table, and the figures
    reproduce.py release thesis-table1                 gives back the cells that dead workers have

Every cell is a training with its settings and seed; what it measured is one file in `results/`, and a cell whose file
is there is not computed again. Cells are handed out by a database: start the same command on several machines with the
same --store, and they share the work. A command that was killed is started again; its cells go on from their last
epoch. To have a cell computed anew, delete its file, and the store.

A file that is not the record of its cell (damaged, changed by hand, of another cell or of other settings) counts for
nothing and is never overwritten: `list` and `show` name it, and go on with the others; `run` starts nothing where a
cell that it was asked for has such a file, until that is deleted.

Exit status: 0; 1 where a cell is not done, or a file is no record; 2 for what a user can mend, and nothing was done or
the work goes on with the same command; 130 or 143 where it was stopped.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import EXPERIMENTS, records, report
from experiments.base import BUDGETS, Cell, Experiment, Record, first_folder
from semipyro.files import hold, write_whole
from shared import workers
from shared.command import Help, Parser, command, count
from tqdm import tqdm

if TYPE_CHECKING:
    from experiments.line import Queue

INTRODUCTION = """# What was measured, beside what was published

Written by `examples/reproduce.py show` from the records in this folder, one JSON file a cell; a test writes it anew and compares. Every published number has a row. "ours" is the mean over the seeds, ± their standard deviation; minutes are those of a cell's training, on machines that had other work too. The budget says what was spent: *paper* is the paper's own grid and epochs as far as they are known, *desk* is what two cores can do (fewer epochs, and of the cells those that decide what the paper claims), *smoke* only shows that an experiment runs. Epochs are chosen on validation data, never on test data, unless a note says otherwise. Single runs of the scripts, and guides compared, are in [scripts.md](scripts.md).

## What the papers say, and what was seen

Each line is about a difference of two numbers of the same seed: its mean, ± half of the 95 % interval of Student's t. It was seen where the interval lies above zero; where it holds zero, or there is one seed, nothing is decided. With fewer epochs than the paper's, what was not seen is not refuted."""  # noqa: E501


def parser() -> Parser:
    """All flags."""
    flags = Parser(prog="reproduce.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = flags.add_subparsers(title="what to do", required=True, metavar="list | run | show | release")
    add = partial(verbs.add_parser, formatter_class=Help)
    listed = add("list", help="name the experiments, and say what is done", description="Names the experiments.")
    ran = add("run", help="compute the cells that are not done", description="Computes the cells that are not done.")
    shown = add("show", help="tables beside the published values, and figures", description="Prints tables, draws "
                "figures, and writes README.md into --results.")  # fmt: skip
    released = add("release", help="give back the cells that dead workers have", description="Looks for --grace "
                   "seconds which workers live, whatever the clocks say; gives back the others' cells.")  # fmt: skip
    for verb in (ran, released):
        verb.add_argument("names", nargs="+", metavar="NAME", help="experiments, or all")
        add_store_flags(verb)
    shown.add_argument("names", nargs="*", metavar="NAME", help="experiments; without any, those with a record")
    for verb, does in ((listed, tell), (ran, run), (shown, show), (released, release)):
        verb.set_defaults(does=does)
    for verb in (listed, ran, shown):
        verb.add_argument("--results", type=Path, default=records.RESULTS, help="folder of the records")
    add_run_flags(ran)
    return flags


def add_store_flags(flags: argparse.ArgumentParser) -> None:
    """Flags that say which line of cells is meant."""
    add = flags.add_argument
    add("--budget", choices=BUDGETS, default="desk", help="smoke: seconds, to see that it runs; desk: for two cores; "
        "paper: the paper's own grid, epochs and seeds")  # fmt: skip
    add("--work", type=Path, default=Path("runs") / "reproduce", help="folder for checkpoints")
    add("--store", help="database that hands out the cells: any URL that Optuna takes, such as "
        "postgresql://user@host/name for several machines; without it, a SQLite file in --work")  # fmt: skip
    add("--grace", type=count, default=60, help="seconds without a sign of life, after which a worker's cell goes "
        "to another; the same in all commands of a store")  # fmt: skip


def add_run_flags(flags: argparse.ArgumentParser) -> None:
    """The other flags of `run`."""
    add = flags.add_argument
    add("--cells", default="*", metavar="PATTERN", help="only cells whose name fits, such as 'm2-*'")
    add("--seeds", type=count, help="only the first so many seeds")
    add("--jobs", type=count, default=1, help="processes; the cores are divided among them")
    add("--data-root", help="folder of the data sets; without it SEMIPYRO_DATA, else the user's cache folder")
    add("--quiet", action="store_true", help="show nothing but errors")


def chosen(names: Sequence[str]) -> list[Experiment]:
    """Experiments by name; a ValueError for a name that there is not."""
    if unknown := set(names) - {*EXPERIMENTS, "all"}:
        raise ValueError(f"no experiment {min(unknown)}; choose among {', '.join(EXPERIMENTS)}, or all")
    return list(EXPERIMENTS.values()) if "all" in names else [EXPERIMENTS[name] for name in dict.fromkeys(names)]


# list and show


def tell(args: argparse.Namespace) -> None:
    """Names the experiments: what `list` does."""
    for experiment in EXPERIMENTS.values():
        cells = (
            f"the cells of {experiment.of}" if experiment.of else f"{len(experiment.cells('desk'))} cells at the desk"
        )
        print(f"{experiment.name:20}{experiment.about}\n{'':20}{experiment.paper}; {cells}; "
              f"{report.state(experiment, args.results)}")  # fmt: skip
    end(args.results)


def show(args: argparse.Namespace) -> None:
    """Prints tables and draws figures: what `show` does."""
    named = chosen(args.names)
    for experiment in named or EXPERIMENTS.values():
        if named or report.machines(experiment, args.results):
            drawn = report.draw(experiment, args.results)
            print(report.text(experiment, args.results), *(f"drawn: {path}" for path in drawn), "", sep="\n")
    if not named and not any(report.machines(experiment, args.results) for experiment in EXPERIMENTS.values()):
        print(f"no record in {args.results}; compute some with: reproduce.py run NAME")
    write_page(args.results)
    end(args.results)


def end(results: Path) -> None:
    """Names the files that are no records; ends with status 1 where there are such."""
    cells = {cell.path(results): cell for experiment in EXPERIMENTS.values() for budget in BUDGETS
             for cell in experiment.cells(budget)}  # fmt: skip
    if refused := records.refused(cells.values(), results):
        print(*refused, sep="\n", file=sys.stderr)
        raise SystemExit(1)


def write_page(results: Path) -> None:
    """README.md of the records."""
    text = report.page(EXPERIMENTS.values(), results, INTRODUCTION)
    write_whole(results / "README.md", lambda temporary: temporary.write_text(text))


# run


def run(args: argparse.Namespace) -> None:
    """Computes the cells that are not done: what `run` does."""
    if args.data_root:
        os.environ["SEMIPYRO_DATA"] = args.data_root
    for folder in (args.work, args.results):
        folder.mkdir(parents=True, exist_ok=True)
    every = dict.fromkeys(experiment.home for experiment in chosen(args.names))
    cells = [cell for name in every for cell in asked(args, chosen(args.names), name)]
    if not cells:
        raise ValueError(f"--cells {args.cells} fits none of the cells of {', '.join(args.names)}")
    if refused := records.refused(cells, args.results):
        print(*refused[1:], sep="\n", end="\n" * (len(refused) > 1), file=sys.stderr)
        raise ValueError(refused[0])
    missing = [cell for cell in cells if records.find(cell, args.results) is None]
    say = (lambda text: None) if args.quiet else (lambda text: tqdm.write(text))
    say(f"{len(cells)} cells, of which {len(missing)} are to be computed; the work is in {args.work}")
    if missing:
        with line_module().answering(store(args)):
            queues = {name: line(args, name) for name in every}
            for cell in missing:
                queues[cell.experiment].put([ticket(cell)], again=True)
            for held in [cell for queue in queues.values() for cell in queue.running().values()]:
                say(f"{held} is another worker's; without a sign of life from that for {args.grace} s it is taken over")
            compute_all(args, missing, say)
            finish(args, missing, queues)
    for experiment in chosen(args.names):
        report.draw(experiment, args.results)
        say("\n" + report.text(experiment, args.results))
    write_page(args.results)
    end(args.results)


def asked(args: argparse.Namespace, experiments: Sequence[Experiment], home: str) -> list[Cell]:
    """The cells of a home that these experiments need and the flags do not leave out."""
    cells = {
        cell.key: cell
        for experiment in experiments
        if experiment.home == home
        for cell in experiment.cells(args.budget)
    }
    return [cell for cell in cells.values()
            if fnmatch(cell.name, args.cells) and (args.seeds is None or cell.seed < args.seeds)]  # fmt: skip


def line_module() -> Any:
    """`experiments.line`, which only `run` needs, with what it stands on."""
    try:
        return import_module("experiments.line")
    except ModuleNotFoundError as error:
        raise ValueError(f"this needs the package {error.name}; install it with: pip install optuna") from error


def store(args: argparse.Namespace) -> str:
    """The database that hands out the cells."""
    return args.store or f"sqlite:///{args.work.resolve() / 'cells.db'}"


def line(args: argparse.Namespace, name: str) -> "Queue":
    """The line of an experiment's cells."""
    module = line_module()
    return module.Queue(module.open_storage(store(args), args.grace), f"{name}.{args.budget}")


def ticket(cell: Cell) -> str:
    """A cell's name in the line, which changes with its settings."""
    settings = json.dumps(cell.settings, sort_keys=True)
    return f"{cell.key}@{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


def folder(args: argparse.Namespace, cell: Cell) -> Path:
    """Where a cell keeps its checkpoints."""
    return args.work / cell.experiment / cell.budget / ticket(cell)


def compute_all(args: argparse.Namespace, cells: Sequence[Cell], say: Callable[[str], None]) -> None:
    """Starts the workers, and tells how far they are, until they have left."""
    open_cells, alive = list(cells), True
    with (
        workers.started(worker, [(args, list(cells))] * min(args.jobs, len(cells))) as processes,
        tqdm(total=len(cells), unit="cell", disable=True if args.quiet else None) as bar,
    ):
        while alive:
            time.sleep(0.5)
            alive = any(process.is_alive() for process in processes)
            for cell in [cell for cell in open_cells if cell.path(args.results).exists()]:
                open_cells.remove(cell)
                bar.update()
                record = records.find(cell, args.results)
                say(f"{cell.experiment} {cell.key}: {record['minutes'] if record else 0:g} minutes")
            bar.set_postfix_str(under_way(args, open_cells))


def under_way(args: argparse.Namespace, cells: Sequence[Cell]) -> str:
    """Which epoch the cells are in that have begun, or the runs that they go on from."""
    told = []
    for cell in cells:
        own = folder(args, cell)
        if epochs := epochs_done(own):
            told.append(f"{cell.key} epoch {epochs}")
        elif epochs := epochs_done(first_folder(own)):
            told.append(f"{cell.key} (M1) epoch {epochs}")
    return ", ".join(told)


def epochs_done(run: Path) -> int:
    """How many epochs a run has in its metrics.csv."""
    file = run / "metrics.csv"
    return len(file.read_text().splitlines()) - 1 if file.exists() else 0


def worker(args: argparse.Namespace, cells: Sequence[Cell]) -> None:
    """A process that computes cells until none is left."""
    workers.share_cores(args.jobs)
    lines: dict[Queue, dict[str, Callable[[], Record]]] = {}
    with line_module().answering(store(args)):
        for name in dict.fromkeys(cell.experiment for cell in cells):
            own = (cell for cell in cells if cell.experiment == name)
            lines[line(args, name)] = {ticket(cell): partial(compute, args, cell) for cell in own}
        line_module().work(lines, goes_on=workers.is_wanted)


def compute(args: argparse.Namespace, cell: Cell) -> Record:
    """The record of a cell, which is in its file when this returns.

    Raises:
        ValueError: another process computes the cell in the same folder, such as one with another --store.
    """
    experiment, own = EXPERIMENTS[cell.experiment], folder(args, cell)
    with hold(own.parent, f".{own.name}.lock"):
        if (known := records.find(cell, args.results)) is not None:
            return known
        record = records.compute(experiment, cell, own)
        records.keep_pictures(experiment, cell, own, args.results)
        records.keep(record, cell, args.results)
    return record


def finish(args: argparse.Namespace, cells: Sequence[Cell], queues: Mapping[str, "Queue"]) -> None:
    """Writes what other machines computed; ends with status 1, and names the cells, where some are not done."""
    known = {name: queue.records() for name, queue in queues.items()}
    for cell in cells:
        if ticket(cell) in known[cell.experiment]:
            records.keep(known[cell.experiment][ticket(cell)], cell, args.results)
    left = [cell for cell in cells if not cell.path(args.results).exists()]
    if left:
        errors = [queues[cell.experiment].errors().get(ticket(cell), "its worker died") for cell in left]
        told = "\n".join(f"  {cell.experiment} {cell.key}: {error}" for cell, error in zip(left, errors, strict=True))
        print(f"{len(left)} cells are not done; the same command goes on with them:\n{told}", file=sys.stderr)
        raise SystemExit(1)


# release


def release(args: argparse.Namespace) -> None:
    """Gives back the cells that dead workers have: what `release` does."""
    module = line_module()
    with module.answering(store(args)):
        queues = [line(args, name) for name in dict.fromkeys(experiment.home for experiment in chosen(args.names))]
        returned = module.give_back(queues, args.grace)
        told = [f"{queue.study.study_name} {cell}: {what}" for queue in queues for what, cells in (
                    ("given back, as its worker gave no sign of life", returned[queue]),
                    ("stays with its worker, which lives", queue.running().values()),
                ) for cell in cells]  # fmt: skip
    print("\n".join(told) or "no cell is another worker's")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), lambda args: args.does(args), arguments, goes_on="the same command goes on with what is left")


if __name__ == "__main__":
    main()
