"""What a case with known bounds is made of, and how its guide is moved away from the posterior.

The cases themselves are in `linear_gaussian_cases.py` and `step_function_cases.py`; `cases_by_paper.py` lists them.
"""

from dataclasses import dataclass, field

import torch
from semipyro.inference import Objective
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """A paper's objective on a model with closed forms; each dictionary has a term's rows (N,), by the term's name."""

    objective: Objective
    rows: tuple[Tensor | None, Tensor | None, Tensor]  # x_labelled, y_labelled, x_unlabelled
    exact: dict[str, Tensor]  # the value of each term where the guide is exact
    gap: dict[str, Tensor]  # the KL divergence by which each bound lies below it
    wrong_gaps: dict[str, list[Tensor]] = field(default_factory=dict)  # divergences that are not the gap


@dataclass(frozen=True)
class Deviation:
    """How the guide of a `Joint` differs from the posterior; of no size where it does not."""

    a_shift: Tensor  # (A,)
    a_stretch: Tensor
    z_shift: Tensor  # (L,)
    z_stretch: Tensor
    tilt: Tensor  # (K,) added to the logits of y
    slope: Tensor  # (K,) and this times a

    @staticmethod
    def of(size: float) -> "Deviation":
        return Deviation(
            a_shift=torch.tensor([0.5 * size]),
            a_stretch=torch.tensor([1 + 0.3 * size]),
            z_shift=size * torch.tensor([-0.25, 0.2]),
            z_stretch=1 + size * torch.tensor([-0.2, 0.3]),
            tilt=0.6 * size * torch.arange(3.0),
            slope=size * torch.tensor([-1.5, 0.0, 1.5]),
        )
