"""The posterior p(z | x, y) of a two-dimensional z, computed on a grid, and the approximations of it by guides."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pyro import poutine
from torch import Tensor

from .. import contract
from ..contract import Guide, Model
from ..distributions import Flow
from ..inference.objectives.checks import check_one_hot, check_rows
from ..modules import evaluating
from .common import new_figure, to_numpy
from .mesh import Box

DRAWS = 4000  # of each guide, for its KL and the extent of the axes
MASSES = (0.9, 0.5, 0.1)  # parts of a guide's mass that its contours enclose
REACH = 4.0  # standard deviations of a flow's base that its grid covers
DEPTH = 12.0  # nats below its maximum at which the posterior counts as zero


class Posterior(NamedTuple):
    """The true posterior of one row of x on a grid."""

    x: Tensor  # (1, D)
    y: Tensor | None  # (1, K)
    grid: Tensor  # (size, size, 2)
    log_joint: Tensor  # (size, size)
    log_evidence: float  # log p(x, y)


def posterior_2d(
    model: Model,
    guides: Mapping[str, Guide],
    x: Tensor,
    y: Tensor | None = None,
    *,
    size: int = 150,
    shown: int = 200,
    extent: Box | None = None,
    row_names: Sequence[str] | None = None,
) -> Figure:
    """p(z | x, y) on a grid, in grey, and over it the density of each guide as contours, with draws.

        p(z | x, y) = p(x, y, z) / ∫ p(x, y, z) dz          the integral as a sum over the grid

    Each row of x has a line of panels, of which the first shows the posterior alone. Contours enclose 10, 50 and 90 %
    of a guide's mass; a title gives KL(q ‖ p) in nats, the gap that this guide leaves between the bound and
    log p(x, y). As many flows cannot compute the density of a given z, a flow's density is computed by pushing a grid
    of its base forward.

    Args:
        model: p whose only continuous latent is a z of two dimensions.
        guides: q by name, with the site z.
        x: (N, D) rows, few of them, on the model's device.
        y: one-hot (N, K), for a model with classes.
        size: points along each side of a grid.
        shown: how many draws of each guide are shown.
        extent: (left, right, bottom, top) of the panels; unless given, they hold the mass of posterior and guides.
        row_names: a name for each row of x.

    Raises:
        ValueError: no guide, rows of another shape, a model with other continuous latents or with classes and no y, or
            a z that is not of two dimensions.
    """
    check_rows(x, "x")
    if not guides:
        raise ValueError("guides must hold at least one by name, such as {'diagonal': guide}, got none")
    if y is not None:
        check_one_hot(y, "y", rows=len(x), num_classes=contract.num_classes(model))
    if row_names is not None and len(row_names) != len(x):
        raise ValueError(f"row_names must be {len(x)} names, one per row of x, got {len(row_names)}")
    figure = new_figure(2.5 * (1 + len(guides)) + 0.3, 2.8 * len(x) + 0.4)
    panels = figure.subplots(len(x), 1 + len(guides), squeeze=False)
    with evaluating(model, *guides.values()), torch.random.fork_rng():
        torch.manual_seed(0)
        for row, line in enumerate(panels):
            one = slice(row, row + 1)
            _draw_line(line, model, guides, x[one], None if y is None else y[one], size, shown, extent)
            line[0].set_ylabel("z2" if row_names is None else row_names[row])
    for axes in panels[-1]:
        axes.set_xlabel("z1")
    return figure


def _draw_line(
    panels: Sequence[Axes],
    model: Model,
    guides: Mapping[str, Guide],
    x: Tensor,
    y: Tensor | None,
    size: int,
    shown: int,
    extent: Box | None,
) -> None:
    """Draw the posterior of one row, and every guide's approximation of it."""
    found = {name: _latent(guide, x, y) for name, guide in guides.items()}
    draws = {name: _draws(q) for name, q in found.items()}
    p = _posterior(model, x, y, torch.cat([z for z, _ in draws.values()]), size)
    _draw_posterior(panels, p, extent)
    panels[0].set_title(f"true posterior\nlog p {p.log_evidence:.1f} nats", fontsize="medium")
    for axes, (name, q) in zip(panels[1:], found.items(), strict=True):
        z, log_q = draws[name]
        gap = (log_q - _log_joint(model, x, y, z)).mean().item() + p.log_evidence
        points, log_density, mass = _density(q, p.grid)
        _contours(axes, points, log_density, mass)
        axes.scatter(to_numpy(z[:shown, 0]), to_numpy(z[:shown, 1]), s=3, color="tab:blue", linewidths=0)
        axes.set_title(f"{name}\nKL {gap:.2f} nats", fontsize="medium")


def _latent(guide: Guide, x: Tensor, y: Tensor | None) -> Any:
    """The guide's distribution of z for one row, of batch shape (1,)."""
    nodes: Mapping[str, Any] = poutine.trace(guide).get_trace(x, y).nodes
    if "z" not in nodes:
        raise ValueError("guides must have the site 'z', got one without it")
    q = nodes["z"]["fn"]
    if q.event_shape != (2,):
        raise ValueError(f"guides must have a z of 2 dimensions, got one of {q.event_shape[0]}")
    return q


def _draws(q: Any) -> tuple[Tensor, Tensor]:
    """Draws, (DRAWS, 2), and their log-densities."""
    z = q.rsample((DRAWS,))
    return z[:, 0], q.log_prob(z)[:, 0]


def _posterior(model: Model, x: Tensor, y: Tensor | None, draws: Tensor, size: int) -> Posterior:
    """The posterior on a grid that covers its mass and that of the guides."""
    box = torch.stack([draws.new_full((2,), -6.0), draws.new_full((2,), 6.0)])
    for _ in range(3):  # each round narrows the box to the mass
        grid = _grid(box[0], box[1], size)
        log_joint = _log_joint(model, x, y, grid)
        inside = grid[log_joint > log_joint.max() - DEPTH]
        margin = 2 * (box[1] - box[0]) / size
        box = torch.stack([inside.amin(0) - margin, inside.amax(0) + margin])
    low, high = draws.quantile(0.005, 0), draws.quantile(0.995, 0)
    grid = _grid(torch.minimum(box[0], low), torch.maximum(box[1], high), size)
    log_joint = _log_joint(model, x, y, grid)
    cell = (grid[1, 1] - grid[0, 0]).log().sum()
    return Posterior(x, y, grid, log_joint, (log_joint.flatten().logsumexp(0) + cell).item())


def _grid(low: Tensor, high: Tensor, size: int) -> Tensor:
    """Points of a rectangle, (size, size, 2): up along the first dimension, across along the second."""
    steps = torch.linspace(0, 1, size, dtype=low.dtype, device=low.device)
    across, up = (low[i] + (high[i] - low[i]) * steps for i in (0, 1))
    return torch.stack(torch.meshgrid(across, up, indexing="xy"), -1)


def _log_joint(model: Model, x: Tensor, y: Tensor | None, z: Tensor) -> Tensor:
    """log p(x, y, z) of one row at many z (..., 2)."""
    points = z.reshape(-1, 2)
    rows = [None if given is None else given.expand(len(points), -1) for given in (x, y)]
    trace = poutine.trace(poutine.condition(model, {"z": points})).get_trace(*rows)
    nodes: Mapping[str, Any] = trace.nodes
    sites = {name: node for name, node in nodes.items() if node["type"] == "sample" and name != "data"}
    if "y" in sites and y is None:
        raise ValueError("y must be given for a model with classes, got None; give it one-hot, for p(z | x, y)")
    if others := sorted(name for name, node in sites.items() if not node["is_observed"]):
        raise ValueError(f"model must have no continuous latent beside z, got {', '.join(others)}")
    trace.compute_log_prob()
    return sum(node["log_prob"] for node in sites.values()).view(z.shape[:-1])


def _density(q: Any, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points (size, size, 2), the log-density of q there, and each point's part of the mass."""
    if isinstance(q, Flow):
        normal = q.base_dist.base_dist
        reach = REACH * grid.new_ones(2)
        u = normal.loc + normal.scale * _grid(-reach, reach, len(grid))
        points, log_det = q.push(u)
        log_mass = q.base_dist.log_prob(u)
        return points, log_mass - log_det, log_mass.flatten().softmax(0).view(log_mass.shape)
    log_density = q.log_prob(grid)
    return grid, log_density, log_density.flatten().softmax(0).view(log_density.shape)


def _draw_posterior(panels: Sequence[Axes], p: Posterior, extent: Box | None) -> None:
    density = to_numpy((p.log_joint - p.log_joint.max()).exp())
    (left, bottom), (right, top) = p.grid[0, 0].tolist(), p.grid[-1, -1].tolist()
    whole = left, right, bottom, top
    for axes in panels:
        axes.imshow(density, cmap="Greys", vmin=0, vmax=1.4, origin="lower", aspect="auto", extent=whole)
        left, right, bottom, top = extent or whole
        axes.set(xlim=(left, right), ylim=(bottom, top))
        axes.set_box_aspect(1)
        axes.locator_params(nbins=4)


def _contours(axes: Axes, points: Tensor, log_density: Tensor, mass: Tensor) -> None:
    """Contours that enclose MASSES of the distribution; the grid may be curved."""
    order = log_density.flatten().argsort(descending=True)
    held = mass.flatten()[order].cumsum(0)
    levels = [log_density.flatten()[order][int((held < part).sum().clamp(max=len(held) - 1))].item() for part in MASSES]
    if levels[0] < levels[1] < levels[2]:
        across, up = to_numpy(points[..., 0]), to_numpy(points[..., 1])
        axes.contour(
            across, up, to_numpy(log_density), levels=levels, colors="tab:orange", linewidths=1.2, linestyles="solid"
        )
