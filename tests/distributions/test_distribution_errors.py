"""Wrong calls of networks and distributions, and what each is told: the argument, what was expected, what came."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from semipyro.distributions import MLP, BernoulliNet, BoundedNormalNet, NormalNet, UniformBox, likelihood_net

from helpers.bad_calls import as_parameters, net, pattern

BAD_CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "a wrong width": (
        lambda: net(3, 4)(torch.zeros(2, 3), torch.zeros(2, 3)),
        "input 1 .* shape (..., 4), got shape (2, 3)",
    ),
    "no width": (lambda: net(3)(torch.tensor(1.0)), "input 0 .* shape (..., 3), got shape ()"),
    "nothing to read": (lambda: net(3, 4)(torch.zeros(2, 3), None), "input 1 .* got nothing"),
    "too few inputs": (lambda: net(3, 4)(torch.zeros(2, 3)), "inputs must be 2, of widths (3, 4), got 1"),
    "too many inputs": (
        lambda: net(3)(torch.zeros(2, 3), torch.zeros(2, 3)),
        "inputs must be 1, of widths (3,), got 2",
    ),
    "no input is read": (lambda: net(None), "at least one of them read, got (None,)"),
    "no inputs": (lambda: net(), "at least one of them read, got ()"),
    "no output": (lambda: MLP((3,), 0), "positive widths"),
    "an empty layer": (lambda: MLP((3,), 2, hidden=(0,)), "positive widths"),
    "an unknown activation": (lambda: MLP((3,), 2, activation="x"), "activation must be one of .*softplus.*, got 'x'"),
    "an unknown likelihood": (
        lambda: likelihood_net("poisson", (3,), 2),
        "likelihood must be one of bernoulli, normal",
    ),
    "a scale of zero": (lambda: NormalNet((3,), 2, scale=0), "scale must be positive and finite, got 0"),
    "a negative scale": (lambda: NormalNet((3,), 2, scale=-1.0), "scale must be positive and finite, got -1.0"),
    "an empty box": (lambda: UniformBox(2, 1.0, 1.0), "low must be below high, got 1.0 and 1.0"),
    "a box upside down": (lambda: BoundedNormalNet((3,), 2, 2.0, 1.0), "low must be below high, got 2.0 and 1.0"),
    "255 for 1": (
        lambda: BernoulliNet((3,), 2)(torch.zeros(1, 3)).log_prob(torch.full((1, 2), 255.0)),
        "x must lie in [0, 1] .*to 255; rescale x, or choose likelihood='normal'",
    ),
}


@pytest.mark.parametrize(("call", "message"), as_parameters("distributions", BAD_CALLS))
def test_bad_calls(call: Callable[[], Any], message: str) -> None:
    """A `ValueError` that says what was wrong."""
    with pytest.raises(ValueError, match=pattern(message)):
        call()
