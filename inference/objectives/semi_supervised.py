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
from torch import Tensor, nn

from .base import Objective, explained
from .enumeration import class_weights


class SemiSupervisedELBO(Objective):
    """Terms: `labelled` = L(x, y), `unlabelled` = U(x), `classification` = log q(y | x); means in nats per data point.

    With a latent a before y, `classification` is the mean over S draws of log q(y | a, x), and U(x) the mean over S
    draws of Σ_y q(y | a, x) (L_a(x, y) − log q(y | a, x)).

    The authors of ADGM, SDGM and AGM-DGM put q̄ = the mean of q(y | a_s, x) over the draws in both places of q, and
    L̄ = the mean of the L_a. That is not U but the bound of another guide, whose y does not know which of the draws it
    goes with: a_1 … a_S ~ q(a | x), y ~ q̄(y | x), s uniform, z ~ q(z | a_s, y, x). `averaged_classifier=True` trains
    with it: in training mode the term `surrogate` stands in the place of `unlabelled`, which evaluation still measures.

    Args:
        model: p, called as `model(x, y=None)`.
        guide: q, called as `guide(x, y=None)`, with `classify`.
        labelled_weight: weight of `labelled` beside `unlabelled`.
        classification_weight: weight of `classification`; 0 leaves it out of the loss, though not of the terms.
        num_samples: S, draws of the continuous latents.
        kl_weight: of log p − log q of every latent site that the guide draws.
        averaged_classifier: train with the authors' bound, `surrogate`.

    Raises:
        ValueError: a negative weight, or `num_samples` not a positive integer.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        *,
        labelled_weight: float = 1.0,
        classification_weight: float = 0.0,
        num_samples: int = 1,
        kl_weight: float = 1.0,
        averaged_classifier: bool = False,
    ) -> None:
        super().__init__(model, guide, num_samples=num_samples, kl_weight=kl_weight)
        if not (labelled_weight >= 0 and classification_weight >= 0):
            raise ValueError(f"weights must not be negative, got {labelled_weight} and {classification_weight}")
        self.labelled_weight = labelled_weight
        self.classification_weight = classification_weight
        self.averaged_classifier = averaged_classifier

    def terms(
        self, x_labelled: Tensor | None, y_labelled: Tensor | None, x_unlabelled: Tensor | None
    ) -> dict[str, Tensor]:
        """`labelled` and `classification` where there are labelled rows, `unlabelled` where there are others."""
        terms = {}
        if x_labelled is not None and y_labelled is not None:
            terms["labelled"] = self.bound(x_labelled, y_labelled)
            terms["classification"] = self.classification(x_labelled, y_labelled)
        if x_unlabelled is not None and self.averaged_classifier and self.training:
            terms["surrogate"] = self.surrogate(x_unlabelled)
        elif x_unlabelled is not None:
            terms["unlabelled"] = self.bound(x_unlabelled)
        return terms

    def surrogate(self, x: Tensor) -> Tensor:
        """mean_n Σ_y q̄(y | x) (L̄(x, y) − log q̄(y | x)), a bound in expectation; q̄ is eq. (33) of arXiv:1901.08560.

        Raises:
            ValueError: the guide has no y.
        """
        with explained(x, "unlabelled"):
            bounds, log_q = class_weights(*self._scaled(self.model, self.guide), x, self.num_samples)  # K, S, N
        if log_q is None:
            raise ValueError("averaged_classifier needs a guide that draws y")
        log_mean = torch.logsumexp(log_q, 1) - math.log(self.num_samples)  # K, N
        return (log_mean.exp() * (bounds.mean(1) - self.kl_weight * log_mean)).sum(0).mean()

    def classification(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean over rows, and over S draws of what stands before y, of log q(y | x)."""
        with explained(x, "labelled"):
            draws = [self.guide.classify(x).log_prob(y) for _ in range(self.num_samples)]
        return torch.stack(draws).mean()

    def loss(self, terms: dict[str, Tensor]) -> Tensor:
        """−(unlabelled + labelled_weight · labelled + classification_weight · classification), of those there are."""
        weights = {
            "unlabelled": 1.0,
            "surrogate": 1.0,
            "labelled": self.labelled_weight,
            "classification": self.classification_weight,
        }
        return -torch.stack([weights[name] * term for name, term in terms.items()]).sum()
