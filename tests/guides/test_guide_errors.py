"""Wrong calls of guides, and what each is told: the argument, what was expected, what came."""

from collections.abc import Callable
from typing import Any

import pytest
from semipyro.guides import ADGMGuide, CaGeMGuide, LatentClassifierGuide
from semipyro.papers import PAPERS

from helpers.bad_calls import X, as_parameters, built, m2, net, pattern, vae

BAD_CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "another site of ADGMGuide": (lambda: ADGMGuide.build(5, 3).encode(X, "y"), "site must be one of z, a, got 'y'"),
    "another site of CaGeMGuide": (
        lambda: CaGeMGuide.build(5, 3).encode(X, "z"),
        "site must be one of z2, z1, got 'z'",
    ),
    "another site of LatentClassifierGuide": (
        lambda: LatentClassifierGuide.build(5, net(50)).encode(X, site="a"),
        "site must be one of z, got 'a'",
    ),
    **{
        f"a site of no guide of {name}": (
            lambda name=name: built(name).guide.encode(X, "x"),
            "site must be one of .*, got 'x'",
        )
        for name in PAPERS
    },
    "another site of VAEGuide": (lambda: vae().guide.encode(X, "a"), "site must be one of z, got 'a'"),
    "another site of M2Guide": (lambda: m2().guide.encode(X, site="y"), "site must be one of z, got 'y'"),
    "x of another width": (lambda: m2().guide.classify(X[:, :4]), "shape (..., 5), got shape (4, 4)"),
}


@pytest.mark.parametrize(("call", "message"), as_parameters("guides", BAD_CALLS))
def test_bad_calls(call: Callable[[], Any], message: str) -> None:
    """A `ValueError` that says what was wrong."""
    with pytest.raises(ValueError, match=pattern(message)):
        call()
