"""Wrong calls of guides, and what each is told: the argument, what was expected, what came."""

from collections.abc import Callable
from typing import Any

import pytest
from semipyro.guides import ADGMGuide, CaGeMGuide, LatentClassifierGuide
from semipyro.papers import PAPERS

from helpers.bad_calls import X, as_parameters, built, m2, net, pattern, vae

BAD_CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "another site of ADGMGuide": (lambda: ADGMGuide.build(5, 3).encode(X, "y"), "'z' and 'a', not 'y'"),
    "another site of CaGeMGuide": (lambda: CaGeMGuide.build(5, 3).encode(X, "z"), "'z2' and 'z1', not 'z'"),
    "another site of LatentClassifierGuide": (
        lambda: LatentClassifierGuide.build(5, net(50)).encode(X, site="a"),
        "'z', not 'a'",
    ),
    **{
        f"a site of no guide of {name}": (
            lambda name=name: built(name).guide.encode(X, "x"),
            "this guide has the latent site.*, not 'x'",
        )
        for name in PAPERS
    },
    "another site of VAEGuide": (lambda: vae().guide.encode(X, "a"), "'z', not 'a'"),
    "another site of M2Guide": (lambda: m2().guide.encode(X, site="y"), "'z', not 'y'"),
    "x of another width": (lambda: m2().guide.classify(X[:, :4]), "shape (..., 5), got shape (4, 4)"),
}


@pytest.mark.parametrize(("call", "message"), as_parameters("guides", BAD_CALLS))
def test_bad_calls(call: Callable[[], Any], message: str) -> None:
    """A `ValueError` that says what was wrong."""
    with pytest.raises(ValueError, match=pattern(message)):
        call()
