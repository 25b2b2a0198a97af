"""Pretraining: a model that starts from the weights of a VAE, as in section 3.2 of the thesis."""

from collections.abc import Callable
from pathlib import Path

import torch
from semipyro.inference import Objective
from torch import nn

from .run_folder import load_run


@torch.no_grad()
def start_from(folder: Path | None, objective: Objective) -> None:
    """Copies p(x | z) and q(z | x) of a run of `ss_vae_m1.py`, where there is one to start from.

    Weights of y, which M1 does not read, become zero.

    Raises:
        ValueError: that run has other networks.
    """
    if folder is None:
        return
    vae, whose = load_run(folder), f"--start-from {folder}"
    copy_network(vae.model.p_x, objective.model.p_x, lambda width: slice(-width, None), whose)  # p(x | y, z): z is last
    copy_network(vae.guide.q_z, objective.guide.q_z, lambda width: slice(width), whose)  # q(z | x, y): x is first


def copy_network(source: nn.Module, target: nn.Module, columns: Callable[[int], slice], whose: str) -> None:
    """Copies weights; where the target reads more, they go into these columns, and the others become zero."""
    weights, into = source.state_dict(), target.state_dict()
    if weights.keys() != into.keys():
        raise ValueError(f"{whose} has other networks: both need as many --hidden layers, and the same posterior")
    for name, value in weights.items():
        place = into[name].zero_()[..., columns(value.shape[-1])]
        if place.shape != value.shape:
            shapes = f"{name} is {tuple(value.shape)}, here {tuple(into[name].shape)}"
            raise ValueError(
                f"{whose} has other layers ({shapes}): both need the same --z-dim, --hidden and likelihood"
            )
        place.copy_(value)
