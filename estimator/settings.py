"""The estimator's settings: what each may be, and which of them the networks are made of."""

import json
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from ..checks import check_choice, check_counts
from ..distributions import FLOWS
from ..inference import check_fit_settings
from ..papers import CLASSIFYING
from .randomness import NUM_SEEDS
from .training import LEAST_EPOCHS

CLUSTERING = ("gm-dgm", "agm-dgm")  # rows of `papers.PAPERS` that find classes without any label
LIKELIHOODS = ("auto", "bernoulli", "normal")
COUNTS = {  # settings that are integers, and the least that each may be
    "flow_length": 1, "z_dim": 1, "extra_classes": 0, "batch_size": 1, "n_iter_no_change": 1, "num_draws": 1,
}  # fmt: skip
MOST_DRAWS = 10_000  # more would take all memory
ARCHITECTURE = (  # settings that the networks are made of
    "model", "flow", "flow_length", "flow_amortised", "z_dim", "hidden", "likelihood", "extra_classes", "settings",
)  # fmt: skip
FROM_DATA = ("x_dim", "y_dim")  # keywords of the rows' `build` that the estimator finds out


def check_settings(given: Mapping[str, Any]) -> None:
    """Checks all settings, by name.

    Raises:
        ValueError: a setting is not what it may be; the message names it, what was expected and what came.
    """
    check_choice(CLASSIFYING, model=given["model"])
    check_fit_settings(
        epochs=LEAST_EPOCHS if given["epochs"] is None else given["epochs"], learning_rate=given["learning_rate"],
        kl_warmup=given["kl_warmup"], device=given["device"],
    )  # fmt: skip
    for name, least in COUNTS.items():
        check_counts(least, **{name: given[name]})
    if given["summed_classes"] is not None:
        check_counts(summed_classes=given["summed_classes"])
    if given["num_draws"] > MOST_DRAWS:
        raise ValueError(f"num_draws must be at most {MOST_DRAWS}, got {given['num_draws']}; its error falls with its "
                         "root, so that a hundred draws are many")  # fmt: skip
    _check_hidden(given["hidden"])
    _check_further(given["settings"])
    if given["flow"] is not None and not callable(given["flow"]):
        check_choice(FLOWS, flow=given["flow"])
    _check_random_state(given["random_state"])
    check_choice(LIKELIHOODS, likelihood=given["likelihood"])
    _check_extra_classes(given["extra_classes"], given["model"])
    _check_validation_fraction(given["validation_fraction"])


def _check_hidden(hidden: Any) -> None:
    widths = list(hidden) if np.iterable(hidden) else [None]
    if not all(isinstance(width, Integral) and int(width) >= 1 for width in widths):
        raise ValueError(f"hidden must be a sequence of widths, such as (200,), got {hidden!r}")


def _check_further(settings: Mapping[str, Any] | None) -> None:
    if settings is not None and not isinstance(settings, Mapping):
        raise ValueError(f"settings must be a mapping from keywords to values, or None, got {settings!r}")
    if taken := sorted({*FROM_DATA, *ARCHITECTURE} & {*(settings or {})}):
        raise ValueError(f"settings has {taken[0]}, which is an argument of its own, or follows from the data")


def _check_random_state(random_state: Any) -> None:
    if isinstance(random_state, Integral) and not 0 <= int(random_state) < NUM_SEEDS:
        raise ValueError(f"random_state must lie between 0 and 2**32 - 1, got {random_state!r}")
    check_random_state(random_state)


def _check_extra_classes(extra_classes: int, model: str) -> None:
    if extra_classes and model not in CLUSTERING:
        raise ValueError(f"extra_classes needs a model that finds classes nobody labelled, model='gm-dgm' or "
                         f"model='agm-dgm', got model={model!r}")  # fmt: skip


def _check_validation_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must lie between 0 and 1, got {fraction!r}")


def architecture(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the networks are made of, as JSON has them: lists for tuples, text for what JSON lacks."""

    def as_json(value: Any) -> Any:
        return getattr(value, "tolist", value.__repr__)()

    return dict(json.loads(json.dumps({name: given[name] for name in ARCHITECTURE}, default=as_json)))


def check_same_architecture(now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Checks that a fit with warm_start can go on with the networks that are there.

    Raises:
        ValueError: a setting that the networks are made of has changed.
    """
    if changed := [name for name in ARCHITECTURE if now[name] != before[name]]:
        told = ", ".join(f"{name}={before[name]!r} (now {now[name]!r})" for name in changed)
        raise ValueError(f"warm_start goes on with {told}; set warm_start=False to fit with other networks")
