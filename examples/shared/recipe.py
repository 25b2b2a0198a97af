"""The recipe: which row of papers.py is built, and with which keywords."""

import argparse
from dataclasses import dataclass
from typing import Any

from semipyro.papers import PAPERS

from .task import Task

POSTERIOR = ("flow", "flow_length", "flow_amortised", "rank")


@dataclass(frozen=True)
class Recipe:
    """What a run builds.

    Attributes:
        paper: a row of `PAPERS`.
        title: what the model is called in a table.
        build: keywords of the row's `build`.
    """

    paper: str
    title: str
    build: dict[str, Any]


def network_settings(args: argparse.Namespace, task: Task) -> dict[str, Any]:
    """Keywords of `build` for the networks, from the flags of `add_network_flags` and the data.

    Raises:
        ValueError: a scale for a Bernoulli likelihood, or flags of a posterior that contradict each other.
    """
    names = ("z_dim", "hidden", "activation", "num_samples")
    given = {name: vars(args)[name] for name in names if name in vars(args)}
    scale = likelihood_scale(args, task)
    return {
        "x_dim": task.x_dim, "y_dim": task.y_dim, **given, "likelihood": task.likelihood,
        **({} if scale is None else {"scale": scale}), **posterior_settings(args), **sum_settings(args),
    }  # fmt: skip


def sum_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword of `build` for the flag of `add_sum_flag`; none where all classes are summed."""
    summed = getattr(args, "summed_classes", None)
    return {} if summed is None else {"summed_classes": summed}


def likelihood_scale(args: argparse.Namespace, task: Task) -> float | None:
    """The fixed standard deviation of a normal likelihood; None where it is learnt, and for a Bernoulli likelihood."""
    if task.likelihood == "normal":
        return args.usual_scale if args.scale is None else args.scale
    if args.scale is not None:
        raise ValueError("--scale needs a normal likelihood; add --likelihood normal, or leave --scale out")
    return None


def posterior_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Keywords of `papers.posterior` that were given; a ValueError for some that contradict each other."""
    given = {name: value for name, value in vars(args).items() if name in POSTERIOR and value is not None}
    for name in ("flow_length", "flow_amortised"):
        if name in given and "flow" not in given:
            raise ValueError(f"--{name.replace('_', '-')} belongs to --flow; name a flow, or leave it out")
    if {"flow", "rank"} <= set(given):
        raise ValueError("--flow and --rank are two posteriors; leave one out")
    return given


def weight_settings(
    args: argparse.Namespace, task: Task, paper: str, defaults: dict[str, float], keyword: str
) -> dict[str, float]:
    """The weights of the objective: those of the flags, or those of the paper, where `--KEYWORD` gives its constant."""
    given = given_weights(args, defaults, keyword)
    if given is not None:
        return given
    rows = task.batches
    return PAPERS[paper].weights(rows.num_labelled, rows.num_unlabelled, **{keyword: vars(args)[keyword]})


def given_weights(args: argparse.Namespace, defaults: dict[str, float], keyword: str) -> dict[str, float] | None:
    """The weights of the flags, or None where `--KEYWORD` asks for those of the paper; a ValueError for both."""
    given = {name: vars(args)[name] for name in defaults if vars(args)[name] is not None}
    if vars(args)[keyword] is None:
        return defaults | given
    if given:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in defaults)
        raise ValueError(f"--{keyword} sets the weights; leave {flags} out")
    return None
