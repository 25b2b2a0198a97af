"""The weight of log p − log q of the latents: 1 in a bound, and less while it is warmed up."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyro.distributions.util import is_identically_one
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor


class ScaleLatents(Messenger):
    """Multiplies the log-probability of the latent sites in `drawn` by `weight`; around a guide it first fills `drawn`.

    Observed sites keep their log-probability, and so does a y that the guide leaves to the model, since it is summed
    inside a logarithm.
    """

    def __init__(self, weight: Tensor, drawn: set[str], *, guide: bool = False) -> None:
        super().__init__()
        self.weight = weight
        self.drawn = drawn
        self.guide = guide

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] or isinstance(msg["fn"], _Subsample):  # which is a plate
            return
        if self.guide:
            self.drawn.add(msg["name"])
        if msg["name"] in self.drawn:
            msg["scale"] = self.weight if is_identically_one(msg["scale"]) else msg["scale"] * self.weight


@contextmanager
def weighted_by(kl_weight: Tensor, value: float) -> Iterator[None]:
    """Inside, an objective's `kl_weight` has this value; afterwards the old one is restored."""
    before = kl_weight.clone()
    kl_weight.fill_(value)
    try:
        yield
    finally:
        kl_weight.copy_(before)
