"""How a model is fitted: the keywords of `fit` that the flags decide."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from semipyro.inference import check_fit_settings, linear_decay

EPOCHS = dict.fromkeys(("moons", "circles", "mnist", "fashion-mnist", "omniglot"), 60)
SCHEDULE = ("decay_every", "decay", "linear_decay_from")  # what becomes one keyword of `fit`


@dataclass(frozen=True)
class Fitting:
    """How to fit.

    Attributes:
        epochs: passes over the unlabelled rows.
        learning_rate: of Adam, at the start.
        decay_every: after how many epochs the learning rate is multiplied by `decay`; None for a constant one.
        decay: the factor.
        linear_decay_from: the fraction of the epochs after which the learning rate falls to zero; None: not at all.
        weight_decay: weight, in the loss, of half the squares of all matrices.
        kl_warmup: epochs over which the weight of the KL terms rises to 1.
        gradient_clip_norm: the largest norm of the gradient, or None.
        gradient_clip_value: the largest absolute value of an element of the gradient, or None.
        device: what to compute on.
        precision: in which the networks compute.
    """

    epochs: int
    learning_rate: float = 3e-3
    decay_every: int | None = None
    decay: float = 0.75
    linear_decay_from: float | None = None
    weight_decay: float = 0.0
    kl_warmup: int = 0
    gradient_clip_norm: float | None = None
    gradient_clip_value: float | None = None
    device: str = "auto"
    precision: str = "32"

    @property
    def keywords(self) -> dict[str, Any]:
        """Keywords of `fit`."""
        given = {name: value for name, value in vars(self).items() if name not in SCHEDULE}
        return {**given, "schedule": self.schedule()}

    def schedule(self) -> Callable[[int], float] | None:
        """The factor of the learning rate by epoch; None where it is constant."""
        every, factor = self.decay_every, self.decay
        if self.linear_decay_from is not None:
            return linear_decay(self.epochs, start=self.linear_decay_from)
        return None if every is None else lambda epoch: factor ** (epoch // every)


def usual_epochs(data: str) -> int:
    """How many epochs a run has where --epochs does not say."""
    return EPOCHS.get(data, 100)


def read_fitting(args: argparse.Namespace) -> Fitting:
    """Reads the flags of `add_training_flags`; a ValueError for what `fit` would refuse."""
    if args.decay_every is not None and args.linear_decay_from is not None:
        raise ValueError("--decay-every and --linear-decay-from are two schedules; leave one out")
    names = ("learning_rate", *SCHEDULE, "weight_decay", "kl_warmup", "gradient_clip_value", "device",
             "precision")  # fmt: skip
    given = {name: getattr(args, name) for name in names}
    fitting = Fitting(args.epochs or usual_epochs(args.data), gradient_clip_norm=args.gradient_clip, **given)
    check_fit_settings(**{name: value for name, value in fitting.keywords.items() if name != "schedule"})
    return fitting
