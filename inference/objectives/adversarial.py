"""Adversarial semi-supervised learning.

Appendix E of "Towards deeper understanding of semi-supervised learning with variational autoencoders" (K. Jurasiński,
MSc thesis, TU Delft, 2019).

    min_ψ max_θ,φ  J(θ, φ) + w · E_q(z|x,y) [−log f_ψ(y | z)]

J = mean_u U + labelled_weight · mean_l L + classification_weight · mean_l log q(y | x), as in `semi_supervised.py`; the
adversary f looks for the class in z, and the inference network hides it.
Differs from the thesis: f sees the labelled rows alone, as the thesis does not say which y goes with the others.
"""

from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ...checks import check_not_negative
from ...contract import ClassifyingGuide, Conditional, Model
from .base import Objective, Terms
from .semi_supervised import averaged_bound


class AdversarialELBO(Objective):
    """SemiSupervisedELBO's terms, and `adversary` = E_q(z|x,y) log f(y | z) over the labelled rows, in nats.

    The value of the loss is that of `SemiSupervisedELBO`. Its gradient also makes f maximise
    adversary_weight · `adversary`, and makes the network that z comes from minimise it, through one layer that reverses
    the gradient.

    Args:
        model: p, called as `model(x, y=None)`.
        guide: q, called as `guide(x, y=None)`, with the site "z" and `classify`.
        adversary: conditional f(y | z), called as `adversary(z)`.
        adversary_weight: w.
        labelled_weight: weight of `labelled` beside `unlabelled`.
        classification_weight: weight of `classification`.
        num_samples: S, draws of the continuous latents.
        kl_weight: of log p − log q of every latent site that the guide draws.
        averaged_classifier: train with the authors' bound, `surrogate`, in the place of `unlabelled`.
        summed_classes: as in `Objective`.

    Raises:
        ValueError: a negative weight, or another setting that is refused by `Objective`.
    """

    declared_settings = (
        *Objective.declared_settings, "adversary_weight", "labelled_weight", "classification_weight",
        "averaged_classifier",
    )  # fmt: skip

    def __init__(
        self,
        model: Model,
        guide: ClassifyingGuide,
        adversary: Conditional,
        *,
        adversary_weight: float = 1.0,
        labelled_weight: float = 1.0,
        classification_weight: float = 0.0,
        num_samples: int = 1,
        kl_weight: float = 1.0,
        averaged_classifier: bool = False,
        summed_classes: int | None = None,
    ) -> None:
        super().__init__(model, guide, num_samples=num_samples, kl_weight=kl_weight, summed_classes=summed_classes)
        self.averaged_classifier = averaged_classifier
        self.adversary_weight, self.adversary = adversary_weight, adversary
        self.labelled_weight, self.classification_weight = labelled_weight, classification_weight
        check_not_negative(
            adversary_weight=adversary_weight, labelled_weight=labelled_weight,
            classification_weight=classification_weight,
        )  # fmt: skip

    def labelled_terms(self, x: Tensor, y: Tensor) -> Terms:
        """`labelled` and `classification`."""
        return {"labelled": self.bound(x, y), "classification": self.classification(x, y)}

    def unlabelled_terms(self, x: Tensor) -> Terms:
        """`unlabelled`, or `surrogate` in its place."""
        if self.averaged_classifier and self.training:
            return {"surrogate": averaged_bound(self, x)}
        return {"unlabelled": self.bound(x)}

    def further_labelled_terms(self, x: Tensor, y: Tensor) -> Terms:
        """`adversary`."""
        return {"adversary": self.adversary_term(x, y)}

    @property
    def weights(self) -> dict[str, float]:
        """Those of the two labelled terms; the unlabelled bound weighs 1. For `adversary` see `loss`."""
        return {"labelled": self.labelled_weight, "classification": self.classification_weight}

    def adversary_term(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean over rows and S draws z ~ q(z | x, y) of log f(y | z), with the gradient before z reversed."""
        traces: list[Any] = [poutine.trace(self.guide).get_trace(x, y).nodes for _ in range(self.num_samples)]
        if "z" not in traces[0]:
            raise ValueError(f"the adversary reads z, but the guide's sites are {', '.join(set(traces[0]) - {'data'})}")
        draws = [trace["z"]["value"] for trace in traces]
        return torch.stack([self.adversary(reversed_gradient(z)).log_prob(y) for z in draws]).mean()

    def loss(self, terms: Terms) -> Tensor:
        """The loss of the other terms; `adversary` adds its gradient and leaves the value as it is."""
        loss = super().loss({name: term for name, term in terms.items() if name != "adversary"})
        if "adversary" not in terms:
            return loss
        return loss - self.adversary_weight * (terms["adversary"] - terms["adversary"].detach())


class ReversedGradient(torch.autograd.Function):
    """The identity with a gradient of the opposite sign.

    "Unsupervised domain adaptation by backpropagation" (Ganin and Lempitsky, 2015), arXiv:1409.7495.
    """

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        """The value."""
        return value.view_as(value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """Minus the gradient."""
        return -gradient


def reversed_gradient(value: Tensor) -> Tensor:
    """The value; a gradient that comes back through it changes its sign."""
    return ReversedGradient.apply(value)
