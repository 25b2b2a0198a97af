"""For the tables of wrong calls: small objectives and rows, and messages as patterns.

A table of wrong calls maps what is wrong to the call and the message that it has to be answered with: the argument,
what was expected, and what came.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from semipyro.distributions import MLP
from semipyro.guides import M2Guide, VAEGuide
from semipyro.inference import ELBO, Objective, SemiSupervisedELBO
from semipyro.models import M2, VAE
from semipyro.papers import PAPERS

NAN, INF = math.nan, math.inf
SMALL = {"z_dim": 2, "hidden": (4,)}
X, Y, XU = torch.ones(4, 5), torch.eye(3)[[0, 1, 2, 0]], torch.zeros(6, 5)


def vae() -> ELBO:
    """A small VAE under its objective."""
    return ELBO(VAE.build(5, **SMALL), VAEGuide.build(5, **SMALL))


def m2(**settings: Any) -> SemiSupervisedELBO:
    """A small M2 under its objective."""
    return SemiSupervisedELBO(M2.build(5, 3, **SMALL), M2Guide.build(5, 3, **SMALL), **settings)


def built(name: str, **settings: Any) -> Objective:
    """A row of `PAPERS`, small."""
    return PAPERS[name].build(5, 3, **{**SMALL, **settings})


def net(*widths: int | None) -> MLP:
    """A network with inputs of these widths."""
    return MLP(widths, 2, hidden=(4,))


def labels(*values: int) -> torch.Tensor:
    """Integer labels."""
    return torch.tensor(values)


def pattern(message: str) -> str:
    """The message as a pattern: everything literal but `.*`."""
    return "(?s)" + ".*".join(re.escape(part.strip()) for part in message.split(".*"))


def as_parameters(name: str, table: dict[str, tuple[Callable[[], Any], str]]) -> list[Any]:
    """The rows of a table of wrong calls, each with an id that says what is wrong."""
    return [pytest.param(*row, id=f"{name}: {wrong}") for wrong, row in table.items()]
