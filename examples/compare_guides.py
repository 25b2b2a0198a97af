"""One model under several guides, each with the same budget: how near its bound comes to log p(x), and at what cost.

Without flags: M2 on 8x8 digits with 100 labels, five guides, about three minutes on two cores. A guide is written
`diagonal`, `rank-R` (a Gaussian whose covariance has that rank plus a diagonal), or `FLOW-LENGTH`, such as `planar-8`,
with `-amortised` behind it where the flow's parameters are to be a network of x and y: `iaf-2-amortised`. Every guide
starts from the same model and sees the same batches; nothing is chosen on validation data, the last epoch counts. The
weights are those that the model has in papers.py. With --resume, guides can be added to a finished comparison.
"""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from semipyro import plots
from semipyro.distributions import FLOWS
from semipyro.files import read_json, write_json
from semipyro.inference import Comparison, Objective, compare_objectives
from semipyro.papers import CLASSIFYING, PAPERS
from shared.command import Parser, command, count, say
from shared.figures import save_figures
from shared.fitting import Fitting, read_fitting
from shared.flags import add_network_flags, make_parser
from shared.recipe import Recipe, network_settings
from shared.report import announce
from shared.run_folder import Output, prepare_folder, read_output
from shared.summary import versions
from shared.task import Task, make_task, read_data
from shared.training import progress, rehearse

GUIDES = ("diagonal", "rank-5", "planar-8", "iaf-2-amortised", "spline-coupling-2")
Row = dict[str, Any]


class Size(NamedTuple):
    """How much is measured: rows of the bounds, and draws of the importance-weighted bound and of the classifier."""

    bound_rows: int
    bound_samples: int


def posterior(guide: str) -> dict[str, Any]:
    """The keywords of a row's `build` for a guide that is written as one word; a ValueError for another word."""
    if guide == "diagonal":
        return {}
    word = guide.removesuffix("-amortised")
    match = re.fullmatch(r"(.+?)(?:-([1-9]\d*))?", word)
    family, number = match.groups() if match else (word, None)
    if family == "rank" and number and word == guide:
        return {"rank": int(number)}
    if family not in FLOWS:
        raise ValueError(f"--guides: {guide!r} is not diagonal, rank-R, or a flow, FLOW[-LENGTH][-amortised] with one "
                         f"of {', '.join(FLOWS)}")  # fmt: skip
    length = {"flow_length": int(number)} if number else {}
    return {"flow": family, **length, **({} if word == guide else {"flow_amortised": True})}


def parser() -> Parser:
    """All flags."""
    flags = make_parser("compare_guides", __doc__)
    add_network_flags(flags, posterior=False)
    add = flags.add_argument_group("comparison").add_argument
    add("--model", choices=CLASSIFYING, default="m2", help="a row of papers.py")
    add("--guides", nargs="+", metavar="GUIDE", default=list(GUIDES), help="what is compared")
    add("--bound-rows", type=count, default=2000, help="test rows, at most, on which bounds are measured; accuracy is "
        "that of all")  # fmt: skip
    add("--bound-samples", type=count, default=100, help="draws of the importance-weighted bound, and of "
        "a classifier that draws")  # fmt: skip
    return flags


def run(args: argparse.Namespace) -> None:
    """Reads the flags; trains and measures guide after guide; draws and tells."""
    fitting, output, size = read_fitting(args), read_output(args), Size(args.bound_rows, args.bound_samples)
    task = make_task(read_data(args), likelihood=args.likelihood)
    recipe = Recipe(args.model, f"{len(set(args.guides))} guides of {args.model}", network_settings(args, task))
    objectives = {guide: make_objective(recipe, task, guide) for guide in args.guides}
    with prepare_folder(output, recipe, task, fitting, free=("epochs", "guides")):
        announce(recipe.title, task, fitting, output)
        rows = measured_before(output, fitting)
        for name, objective in objectives.items():
            if name not in rows:
                say(f"{name}:", quiet=output.quiet)
                rows[name] = measure(name, objective, task, fitting, output, size)
            done = [rows[other] for other in objectives if other in rows]
            write_json(output.folder / "comparison.json", comparison(recipe, task, fitting, size, done))
        tell(task, output, size, [rows[name] for name in objectives])


def make_objective(recipe: Recipe, task: Task, guide: str) -> Objective:
    """The model under one guide; the model starts from the same weights under each."""
    torch.manual_seed(task.seed)
    objective = PAPERS[recipe.paper].build(**recipe.build, **posterior(guide))
    rehearse(objective, task)
    return objective


def measured_before(output: Output, fitting: Fitting) -> dict[str, Row]:
    """The rows of the comparison to resume, by guide, unless they have other epochs behind them."""
    path = output.folder / "comparison.json"
    found = read_json(path) if output.resume and path.exists() else {}
    return {row["guide"]: row for row in found["rows"]} if found.get("epochs") == fitting.epochs else {}


def measure(name: str, objective: Objective, task: Task, fitting: Fitting, output: Output, size: Size) -> Row:
    """Trains under one guide, with checkpoints in guides/NAME, and measures on the test set."""
    test, folder = task.dataset.test, output.folder / "guides" / name
    found = compare_objectives(
        {name: objective}, task.batches, x=test.x, y=test.y, bound_x=task.test_x(size.bound_rows),
        num_samples=size.bound_samples, seed=task.seed, out=folder, resume=folder.exists(), **fitting.keywords,
        **progress(fitting, quiet=output.quiet),
    )  # fmt: skip
    return found.rows[0]


def comparison(recipe: Recipe, task: Task, fitting: Fitting, size: Size, rows: list[Row]) -> dict[str, Any]:
    """The content of comparison.json: what was run, and a row for each guide that is done."""
    settings = {"data": task.data, "labels": task.num_labels, "seed": task.seed, "epochs": fitting.epochs}
    return {"paper": recipe.paper, **settings, **size._asdict(), "rows": rows, "versions": versions()}


def tell(task: Task, output: Output, size: Size, rows: list[Row]) -> None:
    """The table and its figure."""
    say(f"\n{Comparison(rows, {})}", quiet=output.quiet)
    tested = len(task.dataset.test.x)
    say(f"Bounds, their gap and KL in nats, on {min(size.bound_rows, tested)} test rows; accuracy on all {tested}; "
        "after the last epoch.", quiet=output.quiet)  # fmt: skip
    save_figures(output.folder, {"guides": plots.compared_guides(rows)})
    say(f"Settings, rows, checkpoints and a figure are in {output.folder}.", quiet=output.quiet)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
