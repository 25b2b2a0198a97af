"""A sum over y in which the m most probable classes stand for themselves, and one drawn class for all of the others.

    Σ_y q(y) f(y)  =  E [ Σ_j w_j f(y_j) ]        y_1 … y_m the most probable classes, c = y_{m+1} ~ r

    w_j = q(y_j) for j ≤ m,        w_{m+1} = q(c) / r(c),        r(c) = q(c) / (1 − q(y_1) − … − q(y_m))

r has no gradient, and q(c) / r(c) has one, so that value and gradient have the expectation of the whole sum: "Rao-
Blackwellized stochastic gradients for discrete distributions" (Liu et al., 2018), arXiv:1810.04777. Every f(y) is about
as large as log p(x), which the gradient of w would be multiplied with; so the f of the most probable class is taken
off, as a baseline. It does not depend on the draw, and the gradients of all q(y) add up to zero.

Shapes: y (M, …, N, K) for M = m + 1 classes of each row, w and f (M, …, N).
"""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions import OneHotCategorical
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.nn import functional


class SomeClasses(OneHotCategorical):
    """q(y), of which enumeration gives the m most probable classes of each row and one drawn among the others.

    Args:
        logits: of q(y), (…, K).
        summed: m, fewer than K − 1.
        shared: the dimension, counted from the right and without that of the classes, along which all rows have the
            same classes: those of the mean of q(y) over it. None where each has its own.
    """

    def __init__(self, logits: Tensor, summed: int, shared: int | None = None) -> None:
        super().__init__(logits=logits, validate_args=False)
        self.summed, self.shared = summed, shared

    def expand(self, batch_shape: Any, _instance: Any = None) -> "SomeClasses":
        """The same distribution with batch shape `batch_shape`."""
        new = super().expand(batch_shape, self._get_checked_instance(SomeClasses, _instance))
        new.summed, new.shared = self.summed, self.shared
        return new

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The classes, one-hot, (M, …, K). `log_proposal` then has log r of the drawn class, and 0 for the others."""
        log_q = self.logits.detach()
        if self.shared is not None and len(self.batch_shape) >= -self.shared:
            log_q = log_q.logsumexp(self.shared - 1, keepdim=True)
        most_probable = log_q.topk(self.summed).indices
        others = log_q.clamp(min=torch.finfo(log_q.dtype).min).scatter(-1, most_probable, -torch.inf).log_softmax(-1)
        drawn = torch.multinomial(others.exp().flatten(0, -2), 1).view(*others.shape[:-1], 1)
        log_r = torch.cat([torch.zeros_like(log_q[..., : self.summed]), others.gather(-1, drawn)], -1)
        self.log_proposal = log_r.movedim(-1, 0)
        classes = torch.cat([most_probable, drawn], -1).movedim(-1, 0)
        return functional.one_hot(classes, log_q.shape[-1]).to(log_q)


class SumsSomeClasses(Messenger):
    """Around a guide: enumeration of its y goes through `summed` classes and a drawn one, where that is not all."""

    def __init__(self, summed: int, shared: int | None = None) -> None:
        super().__init__()
        self.summed, self.shared = summed, shared

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] != "y" or msg["is_observed"] or not isinstance(msg["fn"], OneHotCategorical):
            return
        if self.summed < msg["fn"].event_shape[0] - 1:  # with K − 1 classes, the drawn one is the last
            msg["fn"] = SomeClasses(msg["fn"].logits, self.summed, self.shared)


def log_proposal(site: Mapping[str, Any]) -> Tensor | None:
    """log r of the classes that the site y enumerates, (M, …, N); None where these are all that there are."""
    if not isinstance(site["fn"], SomeClasses):
        return None
    log_r = site["fn"].log_proposal
    while log_r.ndim < site["unscaled_log_prob"].ndim:  # of draws that share their classes
        log_r = log_r.unsqueeze(1)
    return log_r


def sum_over_classes(values: Tensor, log_q: Tensor, log_r: Tensor | None = None) -> Tensor:
    """Σ_j w_j f(y_j) of `values` f over the first dimension, w_j = exp(log q(y_j) − log r)."""
    if log_r is None:
        return (log_q.exp() * values).sum(0)
    baseline = values[0].detach()
    return ((log_q - log_r).exp() * (values - baseline)).sum(0) + baseline
