"""Checkpoints of `fit`: read without running code, and compared before they are used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FORMAT = 2  # 1 kept every public scalar of every part, 2 keeps what the parts declare
PREFIX = "objective."  # what `fit` puts before the names of an objective's weights


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What `fit` wrote: numbers, text, and tensors on the CPU.

    Raises:
        ValueError: there is no such file, it is cut off, or it is not a checkpoint of `fit`.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for bytes that are not a checkpoint
        raise ValueError(f"{path} is cut off or not a checkpoint; delete it, or name another") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "fit_settings"} <= checkpoint.keys():
        raise ValueError(f"{path} is not a checkpoint that fit wrote")
    return checkpoint


def load_weights(objective: nn.Module, path: str | Path) -> None:
    """Gives `objective` the weights of a checkpoint, such as `checkpoints/best.ckpt`.

    Raises:
        ValueError: the file is missing, cut off or no checkpoint, or its networks differ from the objective's.
    """
    state = objective_state(read_checkpoint(path))
    check_weights(objective, state, path)
    objective.load_state_dict(state)


def objective_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The objective's own weights, under its own names."""
    return {name.removeprefix(PREFIX): value for name, value in checkpoint["state_dict"].items()}


def check_weights(objective: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """A ValueError that lists the weights whose name or shape differ."""
    own = {name: tuple(value.shape) for name, value in objective.state_dict().items()}
    saved = {name: tuple(value.shape) for name, value in state.items()}
    if different := differences(own, saved):
        raise ValueError(f"{path} belongs to an objective with other networks: {different}")


def check_settings(settings: Mapping[str, Any], checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """A ValueError that lists the settings in which this run differs from that of a checkpoint.

    A checkpoint of version 0.1 holds every public scalar of every part, declared or not: of these the ones that this
    run declares too are compared.
    """
    saved = checkpoint["fit_settings"]
    if checkpoint.get("format", 1) == 1:
        common = settings.keys() & saved.keys()
        settings, saved = ({name: found[name] for name in common} for found in (settings, saved))
    if different := differences(settings, saved):
        raise ValueError(f"{path} belongs to a run with other settings: {different}")


def differences(now: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    """What differs, in words; empty where nothing does."""
    names = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
    return "; ".join(f"{name} was {then.get(name)!r} and is now {now.get(name)!r}" for name in names)
