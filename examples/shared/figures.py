"""Figures that several scripts draw, and the folder that they are written to."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from semipyro import plots
from semipyro.contract import latents
from semipyro.inference import Objective, unit_kl
from semipyro.modules import evaluating

from .recipe import POSTERIOR, Recipe
from .task import Task


def latent_figures(objective: Objective, task: Task) -> dict[str, Figure]:
    """The main latent of 1,000 test rows: drawn as it is where it has two dimensions, else by PCA and by t-SNE."""
    test, guide = task.dataset.test, objective.guide
    site = latents(guide)[0]
    with evaluating(guide):
        width = guide.encode(test.x[:1], site).shape[1]
    projected = {"latent_pca": "pca", "latent_tsne": "tsne"} if len(test) >= 3 else {}  # fewer rows are not projected
    return {
        name: plots.latent_space(guide, test.x[:1000], test.y[:1000], method=method, seed=task.seed % 2**32, site=site)
        for name, method in (projected if width > 2 else {"latent_space": "pca"}).items()
    }


def unit_figure(objective: Objective, recipe: Recipe, task: Task) -> dict[str, Figure]:
    """KL per unit of each latent; none for a posterior whose units depend on each other, a flow or one with a rank."""
    if recipe.build.keys() & set(POSTERIOR):
        return {}
    model, guide, x = objective.model, objective.guide, task.test_x(1000)
    return {"unit_kl": plots.unit_kl({site: unit_kl(model, guide, x, site=site) for site in reversed(latents(guide))})}


def save_figures(folder: Path, figures: Mapping[str, Figure]) -> None:
    """Writes figures/NAME.png."""
    for name, figure in figures.items():
        plots.save(figure, folder / "figures" / f"{name}.png")
