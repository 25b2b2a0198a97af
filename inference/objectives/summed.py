"""Pyro's bound by a shorter way, where y is the only site that is enumerated.

    ELBO = Σ_n E_q(z) Σ_y q(y | ·) [log p(x, y, z) − log q(y | ·) − log q(z | ·)]

`TraceEnum_ELBO` finds out from the traces of any program over which sites it has to sum, packs the log-probability of
every site and contracts them. With one sum to take, that is a third of a small model's step.
"""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import TraceEnum_ELBO
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from pyro.poutine.trace_messenger import TraceHandler
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor

from .some_classes import SomeClasses, log_proposal, sum_over_classes

Program = Callable[..., Any]


class NeedsPyroError(Exception):
    """A site that the shorter way does not know: one whose draws have no gradient, or that is summed, and not y."""


class Scored(Messenger):
    """Adds up the log-probabilities of a program's sites while it runs.

    Args:
        values: what the latent sites are to have drawn; None for a guide, which draws, and whose y is enumerated.
    """

    def __init__(self, values: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        self.is_guide = values is None
        self.values = {} if values is None else values
        self.total: Tensor | float = 0.0
        self.y: dict[str, Any] | None = None

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] or isinstance(msg["fn"], _Subsample):
            return
        if self.is_guide and msg["name"] == "y" and msg["infer"].get("enumerate") == "parallel":
            msg["value"], self.y = msg["fn"].enumerate_support(expand=False), msg
        elif not self.is_guide and msg["name"] in self.values:
            msg["value"] = self.values[msg["name"]]
        elif self.is_guide and msg["fn"].has_rsample and "enumerate" not in msg["infer"]:
            return
        else:
            raise NeedsPyroError
        msg["done"] = True

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if isinstance(msg["fn"], _Subsample):
            return
        try:
            msg["unscaled_log_prob"] = msg["fn"].log_prob(msg["value"], *msg["args"], **msg["kwargs"])
        except ValueError as error:
            raise ValueError(f"at site '{msg['name']}', {error}") from error
        msg["log_prob"] = scale_and_mask(msg["unscaled_log_prob"], msg["scale"], msg["mask"])
        self.total = self.total + msg["log_prob"]
        if self.is_guide:
            self.values[msg["name"]] = msg["value"]


class SummedELBO(TraceEnum_ELBO):
    """`TraceEnum_ELBO`, by the shorter way where there is one; the rest, such as two discrete latents, is Pyro's.

    While Pyro's validation is on, it checks the sites of model and guide as Pyro does.
    """

    needs_pyro = False  # once a program had a site that the shorter way does not know

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **keywords: Any) -> Tensor:
        """Minus the bound, summed over the rows and averaged over the particles."""
        elbo = self._summed(model, guide, args, keywords)
        if elbo is None:
            return super().differentiable_loss(model, guide, *args, **keywords)
        if not elbo.requires_grad:
            raise ValueError(f"the bound cannot be differentiated: {elbo}")
        return -elbo

    def loss(self, model: Program, guide: Program, *args: Any, **keywords: Any) -> float:
        """The same as a number."""
        elbo = self._summed(model, guide, args, keywords)
        return super().loss(model, guide, *args, **keywords) if elbo is None else -elbo.item()

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        """Pyro's traces, for its own way, whose contraction would weigh a drawn class as if it were summed."""
        traces: tuple[Trace, Trace] = super()._get_trace(model, guide, args, kwargs)
        if any(isinstance(site.get("fn"), SomeClasses) for site in traces[1].nodes.values()):
            raise ValueError(
                "summed_classes needs a y that is the only discrete latent, and others with rsample; leave it out to "
                "sum all classes"
            )
        return traces

    def _summed(self, model: Program, guide: Program, args: Any, keywords: Any) -> Tensor | None:
        if self.needs_pyro:
            return None
        if self.vectorize_particles:
            guide, model = self._vectorized_num_particles(guide), self._vectorized_num_particles(model)
        state = torch.get_rng_state()
        try:
            return self._by_sites(model, guide, args, keywords) / self.num_particles
        except NeedsPyroError:
            torch.set_rng_state(state)  # Pyro is to draw what was drawn here
            self.needs_pyro = True
            return None

    def _by_sites(self, model: Program, guide: Program, args: Any, keywords: Any) -> Tensor:
        """The bound, summed over rows and particles."""
        if is_validation_enabled():
            model, guide = poutine.trace(model), poutine.trace(guide)
        with Scored() as q:
            guide(*args, **keywords)
        with Scored(q.values) as p:
            model(*args, **keywords)
        if isinstance(guide, TraceHandler) and isinstance(model, TraceHandler):
            self._check(model.trace, guide.trace)
        bounds = torch.as_tensor(p.total - q.total)
        if q.y is not None:
            bounds = sum_over_classes(bounds, q.y["unscaled_log_prob"], log_proposal(q.y))
        return bounds.sum()

    def _check(self, model_trace: Trace, guide_trace: Trace) -> None:
        check_model_guide_match(model_trace, guide_trace, self.max_plate_nesting)
        for trace in (model_trace, guide_trace):
            for site in prune_subsample_sites(trace).nodes.values():
                if site["type"] == "sample":
                    check_site_shape(site, self.max_plate_nesting)
