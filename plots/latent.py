"""Where a guide puts data in its latent space."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..checks import check_choice
from ..contract import Guide, encode
from ..modules import evaluating
from .common import (
    add_legend,
    by_class,
    check_rows,
    class_labels,
    names_of_classes,
    new_figure,
    scatter_classes,
    to_numpy,
)

METHODS = ("pca", "tsne")


def latent_space(
    guide: Guide,
    x: Tensor,
    y: Tensor,
    *,
    method: str = "pca",
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    site: str | None = None,
) -> Figure:
    """Posterior means of the latent, coloured by class; a latent of more than two dimensions is projected to two.

    A latent of one dimension is drawn as a histogram for each class.

    Args:
        guide: a guide with `encode`.
        x: data (N, D), on the guide's device.
        y: integer classes (N,), -1 where unlabelled.
        method: "pca" (axes with the fraction of the variance) or "tsne", where the latent has over two dimensions.
        class_names: a name for each class, or the numbers from 0.
        seed: seed of t-SNE.
        site: the latent to draw; the guide's main one unless given.

    Raises:
        ValueError: an unknown method, y of another shape or type, or fewer than three rows to project.

    Reference:
        van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 9, 2008.
    """
    check_choice(METHODS, method=method)
    check_rows(x)
    labels = class_labels(y, len(x))
    names = names_of_classes(class_names, len(class_names) if class_names else max(labels.max() + 1, 1))
    if labels.max() >= len(names):
        raise ValueError(f"class_names must name every class in y, up to {labels.max()}, got {len(names)} names")
    with evaluating(guide):
        latents = to_numpy(encode(guide, x, site))  # (N, L)
    return _draw(latents, labels, names, method, seed, site or "z")


def _draw(latents: np.ndarray, labels: np.ndarray, names: list[str], method: str, seed: int, site: str) -> Figure:
    figure = new_figure(5.5, 4.2)
    axes = figure.add_subplot()
    if latents.shape[1] == 1:
        _histograms(axes, latents[:, 0], labels, names)
        axes.set(xlabel=site, ylabel="data points")
    else:
        points, (across, up) = _project(latents, method, seed, site)
        scatter_classes(axes, points, labels, names)
        axes.set(xlabel=across, ylabel=up)
    axes.set_title(f"Latent space: posterior means of {site}", fontsize="medium")
    add_legend(figure, len(np.unique(labels)), "class")
    return figure


def _histograms(axes: Axes, values: np.ndarray, labels: np.ndarray, names: list[str]) -> None:
    edges = np.histogram_bin_edges(values, bins=int(np.clip(len(values) ** 0.5, 10, 40))).tolist()
    for label, name, colour in by_class(labels, names):
        axes.hist(values[labels == label], edges, color=colour, alpha=0.6, histtype="stepfilled", label=name)


def _project(latents: np.ndarray, method: str, seed: int, site: str) -> tuple[np.ndarray, list[str]]:
    """Points (N, 2) and the names of the two axes."""
    if latents.shape[1] == 2:
        return latents, [f"{site}{i}" if site.isalpha() else f"{site}, dimension {i}" for i in (1, 2)]
    if len(latents) < 3:
        raise ValueError(f"x must have at least 3 rows for a projection of the latent, got {len(latents)}")
    return _pca(latents) if method == "pca" else _tsne(latents, seed)


def _pca(latents: np.ndarray) -> tuple[np.ndarray, list[str]]:
    from sklearn.decomposition import PCA

    pca = PCA(n_components=2, svd_solver="full")
    with np.errstate(invalid="ignore"):  # the fractions of a latent that never varies are 0 / 0
        points = pca.fit_transform(latents)
    fractions = np.nan_to_num(pca.explained_variance_ratio_)
    return points, [f"principal component {i + 1} ({fraction:.0%} of variance)" for i, fraction in enumerate(fractions)]


def _tsne(latents: np.ndarray, seed: int) -> tuple[np.ndarray, list[str]]:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(latents) - 1) / 3)
    points = TSNE(n_components=2, perplexity=perplexity, random_state=seed).fit_transform(latents)
    return points, ["t-SNE 1", "t-SNE 2"]
