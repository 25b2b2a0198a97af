"""The importance weight of every class at the same draws of the latents; the caller sums over y.

    log w_y = log p(x, y, z) − log q(z | x, y)      z ~ q, for every y

Here z stands for all continuous latents. The latents that the guide draws before y (a, z1)
are the same for all classes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro
from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from .some_classes import log_proposal

SAMPLES = -2  # the dimension of the draws, to the left of the rows; classes stand to the left of both


class ClassWeights(NamedTuple):
    """What `class_weights` returns: (K, S, N) each; K = 1 for a model without y.

    Attributes:
        log_w: log p(x, y, z) − log q(z | x, y).
        log_q: log q(y | ·); None where the guide has no y.
        log_r: where a messenger has the guide enumerate some classes alone, log r of the drawn one, and 0 for those
            that are summed; else None.
    """

    log_w: Tensor
    log_q: Tensor | None
    log_r: Tensor | None


def class_weights(model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, num_samples: int) -> ClassWeights:
    """log w_y, log q(y | ·), and which classes were drawn.

    `poutine.scale` around model or guide counts in log w, not in log q(y | ·).

    Args:
        model: p, called as `model(x)`.
        guide: q, called as `guide(x)`.
        x: (N, D).
        num_samples: S.

    Raises:
        ValueError: model and guide do not have the same latents (y may be left to the model).
    """
    with pyro.plate("samples", num_samples, dim=SAMPLES):
        q = poutine.trace(_enumerated(guide)).get_trace(x)
        p = poutine.trace(_enumerated(poutine.replay(model, q))).get_trace(x)
    log_p, log_q = _log_probs(p), _log_probs(q)
    if missing := {name for name in log_p if not p.nodes[name]["is_observed"]} - {*log_q, "y"}:
        raise ValueError(f"the guide does not have the model's latent sites: {', '.join(sorted(missing))}")
    if missing := log_q.keys() - log_p.keys():
        raise ValueError(f"the model does not have the guide's latent sites: {', '.join(sorted(missing))}")
    rows, in_guide = (num_samples, len(x)), log_q.pop("y", None) is not None
    log_w = _by_class(sum(log_p.values()) - sum(log_q.values()), rows)
    if not in_guide:
        return ClassWeights(log_w, None, None)
    log_r = log_proposal(q.nodes["y"])
    return ClassWeights(
        log_w, _by_class(q.nodes["y"]["unscaled_log_prob"], rows), None if log_r is None else _by_class(log_r, rows)
    )


def _enumerated(program: Callable[..., Any]) -> Callable[..., Any]:
    """The program with all values of its site y along a new dimension."""
    marked = poutine.infer_config(program, lambda site: {"enumerate": "parallel"} if site["name"] == "y" else {})
    return EnumMessenger(first_available_dim=SAMPLES - 1)(marked)


def _log_probs(trace: poutine.Trace) -> dict[str, Tensor]:
    """The log-probabilities of the sites, by name."""
    trace = pyro.poutine.util.prune_subsample_sites(trace)
    trace.compute_log_prob()
    nodes: Mapping[str, Any] = trace.nodes
    return {name: node["log_prob"] for name, node in nodes.items() if node["type"] == "sample"}


def _by_class(value: Any, rows: tuple[int, int]) -> Tensor:
    """The value broadcast to (K, S, N); K = 1 where it does not depend on y."""
    return value.expand(len(value) if value.ndim == 3 else 1, *rows)
