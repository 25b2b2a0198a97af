"""The cases whose bounds are known, by the paper whose model, guide and objective each is made of.

Every case is in the paper's own classes, with conditionals whose posterior is known. A new paper adds its case to
`CASES`: a function that gives a `Case` at the exact posterior, or near it where it is called with `perturb=True`.
"""

from collections.abc import Callable
from functools import partial

from helpers.cases import Case
from helpers.linear_gaussian_cases import adgm, adversarial, agm_dgm, auxiliary, gm_dgm, m1, m2, sdgm, workshop
from helpers.step_function_cases import cagem, latent_classifier, simplified, untapped

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
