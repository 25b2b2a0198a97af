"""What each unit of a continuous latent carries, in nats.

    unit_kl_i        = mean_n KL(q(z_i | x_n, ·) ‖ p(z_i | ·))              close to 0 where the unit is not used
    component_kl_jki = KL(p(z_i | y=j) ‖ p(z_i | y=k))                      where the components of a mixture differ
    active_units     = #{i : Var_x(E_q[z_i | x]) > threshold}

Model and guide are any that keep the contract. What a latent is conditioned on is drawn from the guide, and so is y
where it is not given.

Shapes: x (N, D); y one-hot (N, K); z (N, L).
"""

from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence
from torch.nn import functional

from ... import contract
from ...checks import check_counts, check_largest_class, check_not_negative
from ...contract import Classifier, Conditional, Guide, Model
from ...distributions.parts import Blocks
from ...modules import evaluating, module_tensor
from ...threads import ONE_AT_A_TIME
from ..objectives.checks import check_labels, check_one_hot, check_rows
from .clusters import probabilities
from .measures import BOUND_ROWS, ROWS


@ONE_AT_A_TIME
def unit_kl(model: Model, guide: Guide, x: Tensor, *, site: str = "z", y: Tensor | None = None) -> Tensor:
    """mean_n KL(q(z_i | x_n, ·) ‖ p(z_i | ·)) of each unit of a latent, (L,) in nats.

    In closed form where PyTorch has one, as for two diagonal Gaussians; otherwise log q(z_i | ·) − log p(z_i | ·) at
    one draw, whose mean over rows is the same. The KL of the whole latent is the sum over units; of a latent in two
    blocks (`BlockNormalNet`), the units of the second are taken given a draw of the first. Fig. 3 of "Improving
    semi-supervised learning with auxiliary deep generative models" (Maaløe et al., 2015) shows it for a and z.

    Args:
        model: p, called as `model(x, y=None)`.
        guide: q, called as `guide(x, y=None)`.
        x: (N, D).
        site: the latent, such as "z", "a" or "z1".
        y: one-hot (N, K), or None to draw the classes from the guide.

    Raises:
        ValueError: x or y of another shape, no such latent in model and guide, or one whose distribution is not a
            product over its units (a flow).
    """
    return _unit_kl_of_rows(model, guide, x, y, site).mean(0)


@ONE_AT_A_TIME
def unit_kl_by_cluster(
    model: Model,
    guide: Guide,
    classifier: Classifier,
    x: Tensor,
    *,
    labels: Tensor | None = None,
    site: str = "z",
) -> Tensor:
    """mean over {n : y*_n = k} of KL(q(z_i | x_n, y*_n) ‖ p(z_i | y*_n)), y*_n = argmax q(y | x_n): (K, L) in nats.

    With true labels, the part that the rows of each true class c have in this mean, (K, C, L): its sum over c is the
    mean over the labelled rows of the cluster. A cluster without rows is NaN. Fig. C.5, eq. (36), of "Semi-unsupervised
    learning with deep generative models" (Willetts et al., 2019), arXiv:1901.08560, which draws y ~ q(y | x) for the
    prior.

    Args:
        model: p, called as `model(x, y)`.
        guide: q, called as `guide(x, y)`.
        classifier: x → `OneHotCategorical`, such as the guide's `classify`.
        x: (N, D).
        labels: (N,) true classes as integers; rows with -1 are left out.
        site: the latent.

    Raises:
        ValueError: as `unit_kl`, or labels that are not N integers, one of them at least known.
    """
    check_rows(x, "x")
    if labels is not None:
        x, labels = _labelled(x, labels)
    q = probabilities(classifier, x)  # (N, K)
    clusters, num_clusters = q.argmax(-1), q.shape[1]
    y = functional.one_hot(clusters, num_clusters).to(x)
    kls = _unit_kl_of_rows(model, guide, x, y, site)  # (N, L)
    clusters = clusters.to(kls.device)
    sizes = clusters.bincount(minlength=num_clusters).to(kls)
    if labels is None:
        return _sum_by(kls, clusters, num_clusters) / sizes[:, None]
    num_classes = int(labels.max()) + 1
    parts = _sum_by(kls, clusters * num_classes + labels.to(kls.device), num_clusters * num_classes)
    return parts.view(num_clusters, num_classes, -1) / sizes[:, None, None]


def component_kl(p_z: Conditional, num_classes: int) -> Tensor:
    """KL(p(z_i | y=j) ‖ p(z_i | y=k)) of each unit, [j, k, i], (K, K, L) in nats; 0 where j = k.

    Units that are the same in all components carry style and not class: Fig. C.6 of "Semi-unsupervised learning with
    deep generative models" (Willetts et al., 2019), arXiv:1901.08560.

    Args:
        p_z: a conditional p(z | y), called with one-hot rows, such as `model.p_z` of GM-DGM.
        num_classes: K.

    Raises:
        ValueError: `num_classes` is not a positive integer, or p(z | y) is not a product over its units whose
            divergence is known in closed form, such as a diagonal Gaussian.
    """
    check_counts(num_classes=num_classes)
    like = module_tensor(p_z)
    y = torch.eye(num_classes, dtype=like.dtype, device=like.device)
    with evaluating(p_z):
        of, against = (_units(p_z(rows), "p(z | y)") for rows in (y[:, None], y[None, :]))
        try:
            kls = kl_divergence(of, against)
        except NotImplementedError as error:
            raise ValueError(f"p(z | y) is {type(of).__name__}, which has no KL divergence in closed form") from error
    if kls.shape[:2] != (num_classes, num_classes):
        raise ValueError(f"p(z | y) does not read y: its units have shape {tuple(kls.shape)}")
    return kls


def active_units(guide: Guide, x: Tensor, *, site: str | None = None, threshold: float = 0.01) -> int:
    """#{i : Var_x(E_q[z_i | x]) > threshold}: the units whose posterior mean depends on the data.

    "Importance weighted autoencoders" (Burda et al., 2015), arXiv:1509.00519, section 5.2.

    Args:
        guide: a guide with `encode`.
        x: (N, D), N ≥ 2.
        site: the latent, where it is not the guide's main one.
        threshold: least variance over x, in squared units of the latent.

    Raises:
        ValueError: x is not (N, D) finite floats with at least two rows, a latent that the guide does not have, or a
            negative threshold.
    """
    check_rows(x, "x")
    if len(x) < 2:
        raise ValueError("x has one row, but a variance over x needs at least two")
    check_not_negative(threshold=threshold)
    device = module_tensor(guide).device
    with evaluating(guide):
        parts = [rows.to(device) for rows in x.split(ROWS)]
        means = torch.cat([contract.encode(guide, rows, site) for rows in parts])
    return int((means.double().var(0, correction=0) > threshold).sum())


def _unit_kl_of_rows(model: Model, guide: Guide, x: Tensor, y: Tensor | None, site: str) -> Tensor:
    """KL(q(z_i | x_n, ·) ‖ p(z_i | ·)), (N, L)."""
    check_rows(x, "x")
    if y is not None:
        check_one_hot(y, "y", rows=len(x), num_classes=contract.num_classes(model))
    device = module_tensor(guide).device
    rows = x.to(device).split(BOUND_ROWS)
    classes = [None] * len(rows) if y is None else y.to(device).split(BOUND_ROWS)
    with evaluating(model, guide):
        return torch.cat([_divergence(model, guide, *part, site) for part in zip(rows, classes, strict=True)])


def _divergence(model: Model, guide: Guide, x: Tensor, y: Tensor | None, site: str) -> Tensor:
    drawn = poutine.trace(guide).get_trace(x, y)
    node = _latent(drawn.nodes, site, "guide")
    prior = _latent(poutine.trace(poutine.replay(model, drawn)).get_trace(x, y).nodes, site, "model")
    value = node["value"]
    q, p = _units(node["fn"], f"q({site} | …)", value), _units(prior["fn"], f"p({site} | …)", value)
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return q.log_prob(value) - p.log_prob(value)


def _latent(nodes: Any, site: str, whose: str) -> Any:
    latents = [name for name, node in nodes.items() if _is_latent(node)]
    if site not in latents:
        raise ValueError(f"the {whose} has no latent site {site!r}, only {', '.join(latents) or 'none'}")
    return nodes[site]


def _is_latent(node: Any) -> bool:
    return node["type"] == "sample" and not node["is_observed"] and not poutine.util.site_is_subsample(node)


def _units(distribution: Distribution, name: str, value: Tensor | None = None) -> Distribution:
    """The distribution of every unit by itself, of batch shape (..., L); a ValueError where there is none.

    Of two blocks, the units of the second are given those of the first, which are part of the value.
    """
    inner = distribution
    while isinstance(inner, Independent):
        inner = inner.base_dist
    if isinstance(inner, Blocks) and value is not None:
        u = value[..., : inner.first.event_shape[0]]
        first, second = _units(inner.first, name), _units(inner.second(u), name)
        if isinstance(first, Normal) and isinstance(second, Normal):
            return Normal(torch.cat([first.loc, second.loc], -1), torch.cat([first.scale, second.scale], -1))
    if len(distribution.event_shape) != 1 or inner.event_shape:
        raise ValueError(
            f"{name} is {type(inner).__name__}, not a product over units; "
            "pass a latent such as a diagonal Gaussian, whose units are independent"
        )
    return inner


def _labelled(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The rows whose class is known, and their classes; a ValueError where there is none."""
    check_labels(labels, x, None, "labels")
    check_largest_class("labels", int(labels.max()), len(labels))
    known = labels >= 0
    if not known.any():
        raise ValueError("labels has no label: pass at least one row whose class is known, or labels=None")
    return x[known.to(x.device)], labels[known].long()


def _sum_by(values: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Sums of the rows of values (N, L) that are in each group, (groups, L)."""
    return values.new_zeros(num_groups, values.shape[1]).index_add(0, groups, values)
