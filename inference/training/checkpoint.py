"""Checkpoints of `fit`: read without running code, known to be whole, and compared before they are used."""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...files import check_archive, check_file, write_whole

FORMAT = 3  # 1 kept every public scalar of every part, 2 what the parts declare, 3 a digest of the whole too
PREFIX = "objective."  # what `fit` puts before the names of an objective's weights
DIGEST = "digest"
CONTENT: dict[str, type | tuple[type, ...]] = {  # what `fit` and Lightning need to go on
    "state_dict": Mapping, "optimizer_states": list, "loops": Mapping, "epoch": int, "global_step": int,
    "fit_settings": Mapping, "history": list, "seed": int, "batches": (Mapping, type(None)),
}  # fmt: skip


# Whole files


def save_whole(content: Any, path: str | Path) -> None:
    """Writes what torch.save can write, whole or not at all.

    It is made in memory first: where the disk is full, torch.save itself ends in an error that does not say so.

    Raises:
        OSError: the file cannot be written.
    """
    made = io.BytesIO()
    torch.save(content, made)
    write_whole(path, lambda temporary: temporary.write_bytes(made.getbuffer()))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What `fit` wrote: numbers, text, and tensors on the CPU.

    PyTorch does not look at the sums by which an archive knows that its bits are as they were written; here they are
    compared, and then the digest of the content, which tells whether anything was changed since.

    Raises:
        ValueError: there is no such file, it is damaged, it is not a checkpoint of `fit`, or it was changed.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no checkpoint {path}")
    check_file(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is cut off or not a checkpoint; delete it, or name another")
    check_archive(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for what is not a checkpoint
        raise ValueError(f"{path} is not a checkpoint; delete it, or name another") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "fit_settings"} <= checkpoint.keys():
        raise ValueError(f"{path} is not a checkpoint that fit wrote")
    if wrong := _what_is_wrong(checkpoint):
        raise ValueError(f"{path} is not as fit wrote it: {wrong}; delete it, or name another")
    return checkpoint


def digest(content: Any) -> str:
    """SHA-256 of nested mappings, lists, tensors, numbers and text, but for a digest on their top."""
    found = hashlib.sha256()
    for part in _parts({name: value for name, value in content.items() if name != DIGEST}):
        found.update(part)
    return found.hexdigest()


def _parts(content: Any) -> Iterator[bytes | memoryview]:
    if isinstance(content, Tensor):
        yield f"{content.dtype} {tuple(content.shape)}".encode()
        yield content.detach().cpu().reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(content, Mapping):
        yield f"mapping of {len(content)}".encode()
        for name, value in content.items():
            yield f"{name!r}: ".encode()
            yield from _parts(value)
    elif isinstance(content, list | tuple):
        yield f"{type(content).__name__} of {len(content)}".encode()
        for value in content:
            yield from _parts(value)
    else:
        yield f"{content!r};".encode()


def _what_is_wrong(checkpoint: Mapping[str, Any]) -> str | None:
    """The first thing in which a checkpoint differs from what `fit` writes; None where nothing does."""
    number = checkpoint.get("format", 1)
    if number not in range(1, FORMAT + 1):
        return f"its format is {number!r}, and this version of semipyro reads 1 to {FORMAT}"
    if (number == FORMAT or DIGEST in checkpoint) and checkpoint.get(DIGEST) != digest(checkpoint):
        return "something in it was changed"
    for name, kind in CONTENT.items():
        if name not in checkpoint:
            return f"it has no {name}"
        if not isinstance(checkpoint[name], kind) or isinstance(checkpoint[name], bool):
            return f"its {name} is of type {type(checkpoint[name]).__name__}"
    if not all(isinstance(value, Tensor) for value in checkpoint["state_dict"].values()):
        return "its weights are not tensors"
    if [isinstance(state, Mapping) for state in checkpoint["optimizer_states"]] != [True]:
        return "it has no state of one optimiser"
    return _what_is_wrong_in(checkpoint["history"], checkpoint["epoch"])


def _what_is_wrong_in(history: list[Any], epoch: int) -> str | None:
    """A history has a row of numbers for each epoch; Lightning counts these from 0."""
    if len(history) != epoch + 1:
        return f"its history has {len(history)} rows after {epoch + 1} epochs"
    for place, row in enumerate(history, start=1):
        if not isinstance(row, Mapping) or row.get("epoch") != place:
            return f"row {place} of its history is not that of epoch {place}"
        if not all(type(value) in (int, float) for value in row.values()):
            return f"row {place} of its history holds what is not a number"
    return None


# What is in them


def load_weights(objective: nn.Module, path: str | Path) -> None:
    """Gives `objective` the weights of a checkpoint, such as `checkpoints/best.ckpt`.

    Raises:
        ValueError: the file is missing, damaged or no checkpoint, or its networks differ from the objective's.
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
