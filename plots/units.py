"""What the units of a latent carry: sorted, in every cluster, and between the components of a mixture."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..checks import check_counts
from .common import class_colours, names_of_classes, new_figure, to_numpy

MOST_COMPONENTS_WITH_NUMBERS = 15
MOST_UNITS_WITH_GAPS = 60


def unit_kl(kls: Mapping[str, Tensor], *, threshold: float = 0.01) -> Figure:
    """KL(q(z_i | x, ·) ‖ p(z_i | ·)) of the units of each latent, sorted from the largest: one panel a site.

    A panel's title counts the units above the threshold, and adds up all of them.

    Args:
        kls: the (L,) nats of `inference.unit_kl` under the name of each site, such as {"a": …, "z": …}.
        threshold: least KL in nats of a unit that counts as active.

    Raises:
        ValueError: no site, or one whose KL is not (L,) finite floats.

    Reference:
        Maaløe et al., "Improving semi-supervised learning with auxiliary deep generative models", 2015, Fig. 3.

    Example:
        >>> figure = unit_kl({"a": torch.rand(50), "z": torch.tensor([0.0, 2.5, 1.0])})
        >>> figure.axes[1].get_title()
        'z: 2 of 3 units above 0.01 nats, 3.5 in all'
    """
    if not kls:
        raise ValueError("kls must hold the KL of each unit by site, such as {'z': unit_kl(model, guide, x)}, got none")
    figure = new_figure(4.2 * len(kls), 2.9)
    for index, (site, values) in enumerate(kls.items()):
        if not isinstance(values, Tensor) or values.ndim != 1 or not len(values) or not bool(values.isfinite().all()):
            raise ValueError(
                f"kls[{site!r}] must be (L,) finite floats in nats, one per unit, got {_described(values)}"
            )
        axes = figure.add_subplot(1, len(kls), index + 1)
        heights = np.sort(to_numpy(values))[::-1]
        _bars(axes, heights, "C0")
        _frameless(axes, len(heights))
        if not heights.any():
            axes.set_ylim(0, threshold or 1)  # a latent that collapsed
        active = (heights > threshold).sum()
        title = f"{site}: {active} of {len(heights)} units above {threshold:g} nats, {heights.sum():.4g} in all"
        axes.set_title(title, fontsize="medium")
        axes.set(xlabel=f"units of {site}, sorted", ylabel="KL(q ‖ p) in nats")
    return figure


def cluster_kl(
    kls: Tensor,
    *,
    order: Tensor | None = None,
    units: int = 20,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """KL(q(z_i | x, y*) ‖ p(z_i | y*)) in every cluster y*, the units that carry most first: one panel a cluster.

    All panels have one scale. The panel of a cluster without rows says so.

    Args:
        kls: (K, L) nats of `inference.unit_kl_by_cluster`, or (K, C, L), whose bars are stacked by true class.
        order: (L,) indices of the units, such as `unit_kl(...).argsort(descending=True)`; by the sum over the
            clusters unless given.
        units: how many to show.
        class_names: names of the C true classes, or the numbers from 0.

    Raises:
        ValueError: `kls` of another shape or without any number, an order that is no permutation, or no unit to show.

    Reference:
        Willetts et al., "Semi-unsupervised learning with deep generative models", 2019, arXiv:1901.08560, Fig. C.5.
    """
    if not isinstance(kls, Tensor) or kls.ndim not in (2, 3) or not bool(kls.isfinite().any()):
        raise ValueError(
            f"kls must be (K, L) or (K, C, L) nats, as inference.unit_kl_by_cluster gives them, got {_described(kls)}"
        )
    check_counts(units=units)
    by_class = kls.ndim == 3
    stacked = kls if by_class else kls[:, None]  # (K, C, L)
    names = names_of_classes(class_names if by_class else None, stacked.shape[1])
    shown = _order(order, stacked.nansum((0, 1)))[:units]
    figure = _panels(to_numpy(stacked)[:, :, shown])
    figure.suptitle("KL of each unit, by cluster y*" + (", coloured by true class" if by_class else ""), size="medium")
    figure.supxlabel(_ordered("KL", order), size="medium")
    figure.supylabel("KL(q ‖ p) in nats", size="medium")
    if by_class:
        handles = next(axes.patches for axes in figure.axes if axes.patches)
        columns = -(-len(names) // 18)
        figure.legend(handles, names, loc="outside right upper", title="class", frameon=False, ncols=columns)
    return figure


def component_kl(kls: Tensor, *, order: Tensor | None = None, component_names: Sequence[str] | None = None) -> Figure:
    """KL(p(z_i | y=j) ‖ p(z_i | y=k)): on the left summed over units, for all j and k; on the right unit by unit.

    Differs from the paper, which draws a panel with K-1 lines for each j: with ten components or more, lines that
    cross each other hide which components are close, and the same units recur in all panels. The table answers the
    first question, the largest and the mean KL of each unit over the pairs the second: a unit whose largest is about
    0 is the same in all components, and carries style.

    Args:
        kls: (K, K, L) nats of `inference.component_kl`, K ≥ 2.
        order: (L,) indices of the units, as in `cluster_kl`; by the mean over the pairs unless given.
        component_names: K names, or the numbers from 0.

    Raises:
        ValueError: `kls` of another shape or not finite, or an order that is no permutation.

    Reference:
        Willetts et al., "Semi-unsupervised learning with deep generative models", 2019, arXiv:1901.08560, Fig. C.6.
    """
    if not isinstance(kls, Tensor) or kls.ndim != 3 or len(kls) != kls.shape[1] or len(kls) < 2:
        raise ValueError(
            f"kls must be (K, K, L) nats with K ≥ 2, as inference.component_kl gives them, got {_described(kls)}"
        )
    if not bool(kls.isfinite().all()):
        raise ValueError("kls must be finite, got NaN or infinity; check the weights of p(z | y)")
    names = names_of_classes(component_names, len(kls), "component_names")
    pairs = kls[~torch.eye(len(kls), dtype=torch.bool, device=kls.device)]  # (K · (K - 1), L)
    units = _order(order, pairs.mean(0))
    side = float(np.clip(0.42 * len(kls), 3.0, 7.0))
    figure = new_figure(side + 5.6, side + 0.9 + (0.07 * max(map(len, names)) if _turned(names) else 0.0))
    left, right = figure.subplots(1, 2, width_ratios=[side + 1.2, 4.4])
    _table(figure, left, to_numpy(kls.sum(2)), names)
    _profile(right, to_numpy(pairs)[:, units])
    right.set_xlabel(_ordered("mean", order))
    return figure


def _described(kls: object) -> str:
    if not isinstance(kls, Tensor):
        return type(kls).__name__
    return f"shape {tuple(kls.shape)} with {int(kls.isfinite().sum())} finite values"


def _panels(heights: np.ndarray) -> Figure:
    """A panel for each cluster of heights (K, C, units), up to five in a row."""
    columns = min(5, len(heights))
    rows = -(-len(heights) // columns)
    figure = new_figure(max(1.9 * columns, 4.2), 1.5 * rows + 1.2)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in panels[len(heights) :]:
        axes.set_visible(False)
    for cluster, axes in enumerate(panels[: len(heights)]):
        _stack(axes, heights[cluster], f"y* = {cluster}")
        axes.xaxis.set_tick_params(labelbottom=cluster + columns >= len(heights))
    return figure


def _bars(
    axes: Axes, heights: np.ndarray, colour: str, label: str | None = None, bottoms: np.ndarray | None = None
) -> None:
    """One bar a unit, numbered from 1, all as one artist, since thirty panels of stacks hold thousands of bars."""
    units = np.arange(1, len(heights) + 1)
    half = 0.4 if len(units) <= MOST_UNITS_WITH_GAPS else 0.5
    edges = np.stack([units - half, units + half], 1).ravel()
    values = np.stack([heights, np.full(len(heights), np.nan)], 1).ravel()[:-1]  # NaN between two bars
    lower = np.repeat(np.zeros(len(heights)) if bottoms is None else bottoms, 2)[:-1]
    axes.stairs(values + lower, edges, baseline=lower, fill=True, color=colour, label=label)


def _frameless(axes: Axes, num_units: int) -> None:
    """Units from 1 to the last across, no frame."""
    axes.set_xlim(0.4, num_units + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)


def _stack(axes: Axes, heights: np.ndarray, title: str) -> None:
    """Bars (C, units), one class upon the other."""
    _frameless(axes, heights.shape[1])
    axes.set_title(title, fontsize="small")
    if np.isnan(heights).any():
        axes.text(0.5, 0.5, "no rows", transform=axes.transAxes, ha="center", va="center", color="0.5")
        return
    bottoms = np.cumsum(heights, 0) - heights
    for height, bottom, colour in zip(heights, bottoms, class_colours(len(heights)), strict=True):
        _bars(axes, height, colour, None, bottom)


def _order(order: Tensor | None, totals: Tensor) -> np.ndarray:
    """The units from the largest total, or as given; a ValueError where that is no permutation of them."""
    if order is None:
        return to_numpy(totals.argsort(descending=True))
    indices = to_numpy(order)
    if not np.array_equal(np.sort(indices), np.arange(len(totals))):
        raise ValueError(f"order must hold each of the units 0 to {len(totals) - 1} once, got {indices.tolist()}")
    return indices


def _ordered(by: str, order: Tensor | None) -> str:
    return f"units, those with the largest {by} first" if order is None else "units, in the given order"


def _table(figure: Figure, axes: Axes, sums: np.ndarray, names: list[str]) -> None:
    """Sums (K, K) as colours on a logarithmic scale, with numbers where they can be read; the diagonal is empty."""
    others = ~np.eye(len(sums), dtype=bool)
    low, high = sums[others].min(), sums[others].max()
    norm = LogNorm(low, high) if 0 < low < high else Normalize(0, high or 1.0)
    image = axes.imshow(np.where(others, sums, np.nan), cmap="viridis", norm=norm)
    bar = figure.colorbar(image, ax=axes, label="nats", shrink=0.8)
    if isinstance(norm, LogNorm):
        ticks = np.geomspace(low, high, 5)
        bar.set_ticks(ticks.tolist(), labels=[f"{tick:.3g}" if tick < 999.5 else _short(tick) for tick in ticks])
        bar.ax.minorticks_off()
    if len(names) <= MOST_COMPONENTS_WITH_NUMBERS:
        for (row, column), value in np.ndenumerate(sums):
            if row != column:
                colour = "black" if norm(value) > 0.6 else "white"
                axes.text(column, row, _short(value), ha="center", va="center", color=colour, fontsize="x-small")
    size = "small" if len(names) <= MOST_COMPONENTS_WITH_NUMBERS else "xx-small"
    axes.set_xticks(range(len(names)), names, fontsize=size, rotation=90 if _turned(names) else 0)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set(xlabel="component k", ylabel="component j")
    axes.set_title("KL(p(z | y=j) ‖ p(z | y=k))", fontsize="medium")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _turned(names: list[str]) -> bool:
    """Whether the names are too long to stand side by side."""
    return max(map(len, names)) > 2


def _short(value: float) -> str:
    """Four characters at most: 0.04, 4.2, 17, 950, 1.2k."""
    if value >= 999.5:
        return f"{value / 1000:.1f}k" if value < 9_950 else f"{value / 1000:.0f}k"
    return f"{value:.2f}" if value < 0.995 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _profile(axes: Axes, pairs: np.ndarray) -> None:
    """The largest and the mean over the pairs (pairs, L) of every unit."""
    _bars(axes, pairs.max(0), "C0", "largest of all pairs")
    _bars(axes, pairs.mean(0), "C1", "mean of all pairs")
    _frameless(axes, pairs.shape[1])
    axes.set_ylabel("KL in nats")
    axes.set_box_aspect(0.8)
    axes.set_title("Where components differ, unit by unit", fontsize="medium")
    axes.legend(loc="upper right", edgecolor="none")
