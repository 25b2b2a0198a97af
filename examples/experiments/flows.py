"""Each model with each normalizing flow in its guide, which the thesis proposes and no paper here reports."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from semipyro.data import binarize, load
from semipyro.distributions import FLOWS
from semipyro.inference import Objective, log_likelihood
from semipyro.plots.common import new_figure
from shared.run_folder import read_settings

from .base import Experiment, Metrics, Number, Record, Settings, run_script, script

PAPER = "our own"
MODELS: dict[str, tuple[str, Settings]] = {
    "m1": ("ss_vae_m1", {}),
    "m2": ("ss_vae_m2", {}),
    "adgm": ("ss_adgm", {"form": "icml"}),
    "sdgm": ("ss_adgm", {"form": "sdgm"}),
    "gm-dgm": ("semi_unsupervised", {"model": "gm-dgm"}),
    "agm-dgm": ("semi_unsupervised", {"model": "agm-dgm"}),
    "cagem": ("ss_cagem", {"kl_warmup": 10}),
    "ours": ("ss_latent_classifier", {"form": "ours"}),
    "simplified": ("ss_latent_classifier", {"form": "simplified"}),
    "untapped": ("untapped", {}),
}
GUIDES: dict[str, Settings] = {"diagonal": {}, "rank-5": {"rank": 5}} | {name: {"flow": name} for name in FLOWS}
DRAWS = 100
ROWS = 500


def settings(budget: str) -> dict[str, Settings]:
    """Every model with every guide that it takes: the scripts' own settings on 8x8 digits, on MNIST for the paper's."""
    flags: dict[str, Settings] = {
        "desk": {"data": "digits", "epochs": 40},
        "paper": {"data": "mnist", "epochs": 40, "precision": "auto"},
    }
    shown = [(model, guide) for model in MODELS for guide in GUIDES if takes(model, guide)]
    if budget == "smoke":
        small: Settings = {"data": "digits", "epochs": 1, "hidden": [16], "z_dim": 4}
        return {f"m2-{guide}": script("ss_vae_m2", **small, **GUIDES[guide]) for guide in ("diagonal", "iaf")}
    return {
        f"{model}-{guide}": script(MODELS[model][0], **flags[budget], **MODELS[model][1], **GUIDES[guide])
        for model, guide in shown
    }


def takes(model: str, guide: str) -> bool:
    """Untapped scores values of z that its guide did not draw, for which a flow needs an inverse."""
    return model != "untapped" or guide not in FLOWS or FLOWS[guide].invertible


def measure(settings: Settings, seed: int, folder: Path) -> Metrics:
    """Runs the script, and measures the importance-weighted bound."""

    def after(objective: Objective, folder: Path) -> Metrics:
        ran = read_settings(folder / "settings.json")
        x = load(ran["data"]).test.x[:ROWS]
        torch.manual_seed(seed)
        x = x if ran["likelihood"] == "normal" else binarize(x, seed=0)
        return {"iw_bound": float(log_likelihood(objective.model, objective.guide, x, num_samples=DRAWS).mean())}

    return run_script(settings, seed, folder, after=after)


def draw(records: list[Record]) -> dict[str, Figure]:
    """What each flow gains over the diagonal Gaussian, in nats of the importance-weighted bound and in accuracy."""
    found = {(record["cell"], record["seed"]): record["metrics"] for record in records}
    seeds = sorted({seed for _, seed in found})
    figure = new_figure(10.4, 4.6)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, metric, factor, title in (
        (panels[0], "iw_bound", 1, "importance-weighted bound, nats"),
        (panels[1], "test_accuracy", 100, "test accuracy, points"),
    ):
        gains = np.full((len(MODELS), len(GUIDES) - 1), np.nan)
        for row, model in enumerate(MODELS):
            for column, guide in enumerate(list(GUIDES)[1:]):
                pairs = [
                    (found.get((f"{model}-{name}", seed), {}).get(metric) for name in (guide, "diagonal"))
                    for seed in seeds
                ]
                differences = [factor * (flow - diagonal) for flow, diagonal in pairs if None not in (flow, diagonal)]
                gains[row, column] = np.mean(differences) if differences else np.nan
        if not np.isfinite(gains).any():
            return {}
        reach = np.nanmax(np.abs(gains)) or 1
        axes.imshow(gains, cmap="RdBu", vmin=-reach, vmax=reach, aspect="auto")
        for (row, column), value in np.ndenumerate(gains):
            axes.text(column, row, "–" if np.isnan(value) else f"{value:+.1f}", ha="center", va="center", size=7)
        axes.set_xticks(range(len(GUIDES) - 1), list(GUIDES)[1:], rotation=45, ha="right", size=8)
        axes.set_yticks(range(len(MODELS)), list(MODELS), size=8)
        axes.set_title(f"{title}: gain over the diagonal", size="medium")
    return {"gains": figure}


EXPERIMENTS = [
    Experiment(
        "flows",
        PAPER,
        "each model with each flow in its guide",
        settings,
        measure,
        {"smoke": 1, "desk": 1, "paper": 3},
        tuple(
            Number(
                f"{model}, {guide}: importance-weighted bound, {DRAWS} draws",
                f"{model}-{guide}",
                "",
                "iw_bound",
                "nats",
            )
            for model in MODELS
            for guide in GUIDES
            if takes(model, guide)
        ),
        draw,
        note="The scripts' own settings; bounds of Gaussian likelihoods (ours, simplified, GM-DGM and AGM-DGM) "
        "do not compare with Bernoulli ones.",
    ),
]
