"""Continuous stand-ins for discrete draws: the Concrete distribution in the place of y, straight-through draws of x.

"The Concrete distribution" (Maddison et al., 2016), arXiv:1611.00712; "Categorical reparameterization with
Gumbel-softmax" (Jang et al., 2016), arXiv:1611.01144.
"""

from typing import Any

import torch
from pyro.distributions import RelaxedOneHotCategorical, transforms
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ...distributions import GreyBernoulli


class RelaxLabels(Messenger):
    """Makes Cat(y; π) at the site y a Concrete(y; π, τ), which is drawn and not enumerated.

    The same object goes around guide and model, as it keeps the logarithm of the y that it drew: y itself is rounded to
    zero long before its density loses its meaning.

        log p(y) = log Γ(K) + (K − 1) log τ + Σ_k [log π_k − (τ + 1) log y_k] − K log Σ_k π_k y_k^−τ
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.exp = transforms.ExpTransform(cache_size=1)

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] == "y":
            logits = msg["fn"].logits
            temperature = logits.new_tensor(self.temperature)
            msg["fn"] = RelaxedOneHotCategorical(temperature, logits=logits, validate_args=False)
            msg["fn"].transforms = [self.exp]
            msg["infer"] = {key: value for key, value in msg["infer"].items() if key != "enumerate"}


class StraightThroughBernoulli(GreyBernoulli):
    """Bernoulli draws, 0 or 1, with the gradient of the Concrete draw whose rounding they are."""

    has_rsample = True
    temperature = 1.0

    def expand(self, batch_shape: Any, _instance: Any = None) -> "StraightThroughBernoulli":
        """The same distribution with batch shape `batch_shape`."""
        return super().expand(batch_shape, self._get_checked_instance(StraightThroughBernoulli, _instance))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 # as torch has it
        """[logit + l > 0] with the gradient of sigmoid((logit + l) / τ), l logistic."""
        logits = self.logits.expand(self._extended_shape(sample_shape))
        uniform = torch.rand_like(logits).clamp(torch.finfo(logits.dtype).tiny, 1 - torch.finfo(logits.dtype).eps)
        soft = torch.sigmoid((logits + uniform.log() - (-uniform).log1p()) / self.temperature)
        return (soft > 0.5).to(soft) + (soft - soft.detach())


class StraightThrough(Messenger):
    """Replaces the Bernoulli at the site x by one whose draws have a gradient."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] == "x":
            msg["fn"] = StraightThroughBernoulli(logits=msg["fn"].base_dist.logits).to_event(1)


def smoothed(y: Tensor, smoothing: float) -> Tensor:
    """(1 − smoothing) at the class of the one-hot y, smoothing / (K − 1) elsewhere."""
    return y * (1 - smoothing) + (1 - y) * smoothing / (y.shape[-1] - 1)
