"""Models whose bounds are known exactly, keyed by paper.

Each is in the paper's own class, with conditionals whose posterior is known. A new paper adds its case to `CASES`: a
function that gives a `Case` at the exact posterior, or, where called with `perturb=True`, near it.
"""

from collections.abc import Callable
from functools import partial

from analytic_gaussian import (
    Case,
    LinearGaussian,
    adgm,
    adversarial,
    agm_dgm,
    auxiliary,
    gm_dgm,
    m1,
    m2,
    sdgm,
    workshop,
)
from analytic_steps import cagem, latent_classifier, simplified, untapped
from tractable import Conditional, FixedDraw

__all__ = ["CASES", "DISTINCT", "Case", "Conditional", "FixedDraw", "LinearGaussian", "m1", "m2"]

CASES: dict[str, Callable[..., Case]] = {
    "m1": m1,
    "m2": m2,
    "m1-m2": m2,
    "adgm-workshop": partial(auxiliary, workshop, alone=True),
    "adgm": partial(auxiliary, adgm),
    "adgm-deterministic": m2,
    "sdgm": partial(auxiliary, sdgm),
    "gm-dgm": gm_dgm,
    "agm-dgm": partial(auxiliary, agm_dgm),
    "cagem": cagem,
    "latent-classifier": latent_classifier,
    "latent-classifier-tight": partial(latent_classifier, tight=True),
    "simplified": simplified,
    "appendix-c": simplified,
    "m2-adversarial": adversarial,
    "untapped": untapped,
}
DISTINCT = list({case: name for name, case in reversed(CASES.items())}.values())  # one name for each case
