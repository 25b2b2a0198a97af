"""One model under several guides, each with the same budget: how near its bound comes to log p(x), and at what cost.

Without flags: M2 on 8x8 digits with 100 labels, five guides, about three minutes on two cores. A guide is written
`diagonal`, `rank-R` (a Gaussian whose covariance has that rank plus a diagonal), or `FLOW-LENGTH`, such as `planar-8`,
with `-amortised` behind it where the flow's parameters are to be a network of x and y: `iaf-2-amortised`. Every guide
starts from the same model and sees the same batches; nothing is chosen on validation data, the last epoch counts. The
weights are those that the model has in papers.py. With --resume, guides can be added to a finished comparison.
"""

import argparse
import json
import re
from collections.abc import Sequence
from typing import Any

import torch
from command_line import (
    Parser,
    add_network_flags,
    command,
    count,
    make_parser,
    prepare_folder,
    write_json,
)
from common import (
    Task,
    announce,
    fit_settings,
    make_task,
    network_settings,
    rehearse,
    reporter,
    save_figures,
    say,
    test_rows,
    versions,
)
from semipyro import plots
from semipyro.distributions import FLOWS
from semipyro.inference import Comparison, Objective, compare_objectives
from semipyro.papers import CLASSIFYING, PAPERS

GUIDES = ("diagonal", "rank-5", "planar-8", "iaf-2-amortised", "spline-coupling-2")
Row = dict[str, Any]


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
    """Trains and measures guide after guide; draws and tells."""
    task = make_task(args)
    build = network_settings(args, task)
    objectives = {guide: make_objective(args, task, build | posterior(guide)) for guide in args.guides}
    prepare_folder(args, args.model, build, free=("epochs", "guides"))
    announce(args, f"{len(objectives)} guides of {args.model}", task)
    rows = measured_before(args)
    for name, objective in objectives.items():
        if name not in rows:
            say(args, f"{name}:")
            rows[name] = measure(args, task, name, objective)
        write_comparison(args, [rows[other] for other in objectives if other in rows])
    tell(args, task, [rows[name] for name in objectives])


def make_objective(args: argparse.Namespace, task: Task, build: dict[str, Any]) -> Objective:
    """The model under one guide; the model starts from the same weights under each."""
    torch.manual_seed(args.seed)
    objective = PAPERS[args.model].build(**build)
    rehearse(args, objective, task)
    return objective


def measured_before(args: argparse.Namespace) -> dict[str, Row]:
    """The rows of the comparison to resume, by guide, unless they have other epochs behind them."""
    path = args.out / "comparison.json"
    found = json.loads(path.read_text()) if args.resume and path.exists() else {}
    return {row["guide"]: row for row in found["rows"]} if found.get("epochs") == args.epochs else {}


def measure(args: argparse.Namespace, task: Task, name: str, objective: Objective) -> Row:
    """Trains under one guide, with checkpoints in guides/NAME, and measures on the test set."""
    test, out = task.dataset.test, args.out / "guides" / name
    found = compare_objectives(
        {name: objective}, task.batches, x=test.x, y=test.y, bound_x=test_rows(task, args.bound_rows),
        num_samples=args.bound_samples, seed=args.seed, out=out, resume=out.exists(),
        progress=False if args.quiet else None, report=reporter(args, None), **fit_settings(args),
    )  # fmt: skip
    return found.rows[0]


def write_comparison(args: argparse.Namespace, rows: list[Row]) -> None:
    """Writes comparison.json: what was run, and a row for each guide that is done."""
    names = ("data", "labels", "seed", "epochs", "bound_rows", "bound_samples")
    settings = {name: getattr(args, name) for name in names}
    write_json({"paper": args.model, **settings, "rows": rows, "versions": versions()}, args.out / "comparison.json")


def tell(args: argparse.Namespace, task: Task, rows: list[Row]) -> None:
    """The table and its figure."""
    say(args, f"\n{Comparison(rows, {})}")
    tested = len(task.dataset.test.x)
    say(args, f"Bounds, their gap and KL in nats, on {min(args.bound_rows, tested)} test rows; accuracy on all "
        f"{tested}; after the last epoch.")  # fmt: skip
    save_figures(args.out, {"guides": plots.compared_guides(rows)})
    say(args, f"Settings, rows, checkpoints and a figure are in {args.out}.")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
