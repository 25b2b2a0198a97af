"""The semi-supervised bound, eqs. (6)-(9) of Kingma et al. (2014), arXiv:1406.5298.

    L(x, y) = E_q(z|x,y) [log p(x | y, z) + log p(y) + log p(z) − log q(z | x, y)]           eq. (6)
    U(x)    = Σ_y q(y | x) (L(x, y) − log q(y | x))                                          eq. (7)
    loss    = −(mean_u U + labelled_weight · mean_l L + classification_weight · mean_l log q(y | x))

The names are those of M2; L and U are the bounds of whichever model and guide are given.
Differs from the paper: every sum over rows is a mean (so that a weight does not depend on the batch size), and bounds
are maximised. `papers.py` turns the papers' weights of sums into weights of means.
"""

import math

import torch
from torch import Tensor

from ...checks import check_not_negative
from ...contract import ClassifyingGuide, Model
from .base import Objective, Terms
from .enumeration import SAMPLES, class_weights
from .some_classes import sum_over_classes


class SemiSupervisedELBO(Objective):
    """Terms: `labelled` = L(x, y), `unlabelled` = U(x), `classification` = log q(y | x); means in nats per data point.

    With a latent a before y, `classification` is the mean over S draws of log q(y | a, x), and U(x) the mean over S
    draws of Σ_y q(y | a, x) (L_a(x, y) − log q(y | a, x)).

    The authors of ADGM, SDGM and AGM-DGM put q̄ = the mean of q(y | a_s, x) over the draws in both places of q, and
    L̄ = the mean of the L_a. That is not U but the bound of another guide, in which y is drawn independently of the
    draw of a that z reads: a_1 … a_S ~ q(a | x), y ~ q̄(y | x), s uniform, z ~ q(z | a_s, y, x).
    `averaged_classifier=True` trains with it: in training mode the term `surrogate` stands in the place of
    `unlabelled`, which evaluation still measures.

    Args:
        model: p, called as `model(x, y=None)`.
        guide: q, called as `guide(x, y=None)`, with `classify`.
        labelled_weight: weight of `labelled` beside `unlabelled`.
        classification_weight: weight of `classification`; 0 leaves it out of the loss, though not of the terms.
        num_samples: S, draws of the continuous latents.
        kl_weight: of log p − log q of every latent site that the guide draws.
        averaged_classifier: train with the authors' bound, `surrogate`.
        summed_classes: as in `Objective`.

    Raises:
        ValueError: a negative weight, or another setting that is refused by `Objective`.
    """

    declared_settings = (
        *Objective.declared_settings, "labelled_weight", "classification_weight", "averaged_classifier",
    )  # fmt: skip

    guide: ClassifyingGuide

    def __init__(
        self,
        model: Model,
        guide: ClassifyingGuide,
        *,
        labelled_weight: float = 1.0,
        classification_weight: float = 0.0,
        num_samples: int = 1,
        kl_weight: float = 1.0,
        averaged_classifier: bool = False,
        summed_classes: int | None = None,
    ) -> None:
        super().__init__(model, guide, num_samples=num_samples, kl_weight=kl_weight, summed_classes=summed_classes)
        check_not_negative(labelled_weight=labelled_weight, classification_weight=classification_weight)
        self.labelled_weight = labelled_weight
        self.classification_weight = classification_weight
        self.averaged_classifier = averaged_classifier

    def labelled_terms(self, x: Tensor, y: Tensor) -> Terms:
        """`labelled` and `classification`."""
        return {"labelled": self.bound(x, y), "classification": self.classification(x, y)}

    def unlabelled_terms(self, x: Tensor) -> Terms:
        """`unlabelled`, or `surrogate` in its place."""
        if self.averaged_classifier and self.training:
            return {"surrogate": averaged_bound(self, x)}
        return {"unlabelled": self.bound(x)}

    @property
    def weights(self) -> dict[str, float]:
        """Those of the two labelled terms; the unlabelled bound, or its surrogate, weighs 1."""
        return {"labelled": self.labelled_weight, "classification": self.classification_weight}


def averaged_bound(objective: Objective, x: Tensor) -> Tensor:
    """mean_n Σ_y q̄(y | x) (L̄(x, y) − log q̄(y | x)), a bound in expectation; q̄ is eq. (33) of arXiv:1901.08560.

    Raises:
        ValueError: the guide has no y.
    """
    model, guide = objective.weighted_programs()
    bounds, log_q, log_r = class_weights(model, objective.summing(guide, shared=SAMPLES), x, objective.num_samples)
    if log_q is None:
        raise ValueError("averaged_classifier needs a guide that draws y")
    log_mean = torch.logsumexp(log_q, 1) - math.log(objective.num_samples)  # K, N
    values = bounds.mean(1) - objective.kl_weight * log_mean
    return sum_over_classes(values, log_mean, None if log_r is None else log_r[:, 0]).mean()
