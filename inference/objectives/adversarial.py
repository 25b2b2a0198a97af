"""Adversarial semi-supervised learning.

Appendix E of "Towards deeper understanding of semi-supervised learning with variational autoencoders" (K. Jurasiński,
MSc thesis, TU Delft, 2019).

    min_ψ max_θ,φ  J(θ, φ) + w · E_q(z|x,y) [−log f_ψ(y | z)]

J is the semi-supervised objective; the adversary f looks for the class in z, and the inference network hides it.
Differs from the thesis: it leaves open which y goes with unlabelled rows; here f plays on the labelled rows only.
"""

from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from .base import explained
from .semi_supervised import SemiSupervisedELBO


class AdversarialELBO(SemiSupervisedELBO):
    """SemiSupervisedELBO's terms, and `adversary` = E_q(z|x,y) log f(y | z) over the labelled rows, in nats.

    The value of the loss is that of `SemiSupervisedELBO`. Its gradient also makes f maximise
    adversary_weight · `adversary`, and whatever z comes from minimise it, through one gradient-reversal layer.

    Args:
        model: p, called as `model(x, y=None)`.
        guide: q, called as `guide(x, y=None)`, with the site "z" and `classify`.
        adversary: conditional f(y | z), called as `adversary(z)`.
        adversary_weight: w.
        settings: keywords of `SemiSupervisedELBO`.

    Raises:
        ValueError: a negative weight.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        adversary: nn.Module,
        *,
        adversary_weight: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(model, guide, **settings)
        if not adversary_weight >= 0:
            raise ValueError(f"adversary_weight must not be negative, got {adversary_weight}")
        self.adversary = adversary
        self.adversary_weight = adversary_weight

    def terms(
        self, x_labelled: Tensor | None, y_labelled: Tensor | None, x_unlabelled: Tensor | None
    ) -> dict[str, Tensor]:
        """Those of `SemiSupervisedELBO`, and `adversary` where there are labelled rows."""
        terms = super().terms(x_labelled, y_labelled, x_unlabelled)
        if x_labelled is not None and y_labelled is not None:
            with explained(x_labelled, "labelled"):
                terms["adversary"] = self.adversary_term(x_labelled, y_labelled)
        return terms

    def adversary_term(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean over rows and S draws z ~ q(z | x, y) of log f(y | z), with the gradient before z reversed."""
        traces = [poutine.trace(self.guide).get_trace(x, y).nodes for _ in range(self.num_samples)]
        if "z" not in traces[0]:
            raise ValueError(f"the adversary reads z, but the guide's sites are {', '.join(set(traces[0]) - {'data'})}")
        draws = [trace["z"]["value"] for trace in traces]
        return torch.stack([self.adversary(reversed_gradient(z)).log_prob(y) for z in draws]).mean()

    def loss(self, terms: dict[str, Tensor]) -> Tensor:
        """SemiSupervisedELBO's; the adversary adds a gradient, and nothing to the value."""
        others = {name: term for name, term in terms.items() if name != "adversary"}
        loss = super().loss(others)
        if "adversary" not in terms:
            return loss
        return loss - self.adversary_weight * (terms["adversary"] - terms["adversary"].detach())


class ReversedGradient(torch.autograd.Function):
    """The identity, whose gradient is minus what comes back.

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
    """The value, whose gradient is reversed."""
    return ReversedGradient.apply(value)
