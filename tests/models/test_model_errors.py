"""Wrong calls of models, and what each is told: the argument, what was expected, what came."""

from collections.abc import Callable
from typing import Any

import pytest
from semipyro.inference import SemiSupervisedELBO
from semipyro.models import ADGM, AGMDGM, GMDGM, M2, SDGM, VAE, SimplifiedLatentClassifier

from helpers.bad_calls import NAN, SMALL, X, Y, as_parameters, built, net, pattern, vae

BAD_CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "a prior that sums to more": (
        lambda: M2.build(5, 3, y_prior=[0.5, 0.5, 0.5]),
        "y_prior must be 3 prob.*[0.5, 0.5, 0.5]",
    ),
    "a prior of other classes": (lambda: M2.build(5, 3, y_prior=[0.5, 0.5]), "y_prior must be 3 prob.*[0.5, 0.5]"),
    "a negative prior": (lambda: M2.build(5, 2, y_prior=[1.5, -0.5]), "y_prior must be 2 prob"),
    "a prior with NaN": (lambda: M2.build(5, 2, y_prior=[NAN, 1.0]), "y_prior must be 2 prob"),
    "no classes": (lambda: M2.build(5, 0), "positive widths"),
    "no latents": (lambda: VAE.build(5, z_dim=0), "positive widths"),
    **{
        f"a prior of other classes of {model.__name__}": (
            lambda model=model: model.build(5, 3, **SMALL, y_prior=[0.5, 0.5]),
            "y_prior must be 3 probabilities that sum to one, got [0.5, 0.5]",
        )
        for model in (ADGM, SDGM, GMDGM, AGMDGM)
    },
    **{
        f"a prior that sums to less, of {model.__name__} itself": (
            lambda model=model, parts=parts: model(**dict.fromkeys(parts, net(1)), y_dim=2, y_prior=[0.5, 0.4]),
            "y_prior must be 2 probabilities that sum to one",
        )
        for model, parts in {GMDGM: ("p_x", "p_z"), AGMDGM: ("p_x", "p_z", "p_a")}.items()
    },
    **{
        f"a negative prior of {model.__name__} itself": (
            lambda model=model: model(p_x=net(1), p_a=net(1), y_dim=2, z_dim=1, y_prior=[1.5, -0.5]),
            "y_prior must be 2 probabilities that sum to one, got [1.5, -0.5]",
        )
        for model in (ADGM, SDGM)
    },
    "z_y as wide as z": (
        lambda: SimplifiedLatentClassifier.build(5, 3, z_dim=4, zy_dim=4),
        "zy_dim must be from 1 to z_dim - 1 = 3, or None, got 4",
    ),
    "z_y of nothing": (
        lambda: SimplifiedLatentClassifier.build(5, 3, z_dim=4, zy_dim=0),
        "zy_dim must be from 1 to z_dim - 1 = 3, or None, got 0",
    ),
    "z_y wider than z in Appendix C": (lambda: built("appendix-c", zy_dim=3), "zy_dim must be from 1 to .* got 3"),
    "a z of one dimension in Appendix C": (lambda: built("appendix-c", z_dim=1), "zy_dim must be from 1 to .* got 1"),
    "a box of nothing": (lambda: built("untapped", half_width=0.0), "low must be below high, got"),
    "untapped with real x": (
        lambda: built("untapped", likelihood="normal"),
        "likelihood must be 'bernoulli' for untapped, got 'normal'; its reverse process has a binary x",
    ),
    "labels for the VAE itself": (
        lambda: vae().model(X, Y),
        "y must be None, since the VAE has no label, got one; call it with x alone",
    ),
    "labels for the VAE": (lambda: SemiSupervisedELBO(vae().model, vae().guide)(X, Y, None), "VAE has no label"),
}


@pytest.mark.parametrize(("call", "message"), as_parameters("models", BAD_CALLS))
def test_bad_calls(call: Callable[[], Any], message: str) -> None:
    """A `ValueError` that says what was wrong."""
    with pytest.raises(ValueError, match=pattern(message)):
        call()
