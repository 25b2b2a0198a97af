"""Files of fitted estimators, and the state of pickles that version 0.1 wrote.

A file is an archive of NumPy's without pickled objects, so that reading it runs nothing: `content` is JSON with the
settings and with what was learnt beside the weights, `classes` are the labels, `scaler/…` scales the columns, and
`features_/…` and `objective_/…` are the weights of the stages, in single precision.
"""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ..files import write_whole
from .networks import FEATURES, OBJECTIVE, Networks, assemble, build
from .randomness import kept_apart

FORMAT = "semipyro.SemiSupervisedClassifier, version 1"
KEPT = ("likelihood_", "history_", "n_iter_", "seed_", "n_features_in_", "_n_features_out", "architecture_")
NAMES = "feature_names_in_"  # kept where the columns have names
MEAN, SCALE = "scaler/mean", "scaler/scale"

Arrays: TypeAlias = dict[str, Any]  # NumPy's


# Writing


def save(estimator: Any, path: str | PathLike[str]) -> None:
    """Writes a fitted estimator to a file, whole or not at all.

    Raises:
        ValueError: a setting or a class that cannot be written as text.
    """
    text = _content(estimator)
    if estimator.classes_.dtype.kind not in "iufbU":
        raise ValueError(f"classes_ of type {estimator.classes_.dtype} cannot be saved; pickle the estimator")
    arrays: Arrays = {"content": np.array(text), "classes": estimator.classes_}
    if estimator.scaler_ is not None:
        arrays |= {MEAN: estimator.scaler_.mean_, SCALE: estimator.scaler_.scale_}
    arrays |= _weights(estimator.networks_)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)

    write_whole(path, write)


def _content(estimator: Any) -> str:
    content = {
        "format": FORMAT,
        "params": estimator.get_params(deep=False),
        "kept": {name: getattr(estimator, name) for name in (*KEPT, NAMES) if hasattr(estimator, name)},
        "build": estimator.networks_.description,
    }
    try:
        return json.dumps(content, default=_as_json)
    except TypeError as error:
        raise ValueError(f"a setting cannot be saved as text ({error}); change it with set_params, or pickle "
                         "the estimator") from error  # fmt: skip


def _as_json(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, for JSON."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r:.60} of type {type(value).__name__}")


def _weights(networks: Networks) -> Arrays:
    return {
        f"{stage}/{name}": _single(value).numpy()
        for stage, objective in networks.objectives().items()
        for name, value in objective.state_dict().items()
    }


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


# Reading


def load(cls: type[Any], path: str | PathLike[str]) -> Any:
    """The estimator, of the class `cls`, that `save` wrote.

    Raises:
        ValueError: the file was not written by `save`, or is damaged.
        OSError: there is no such file.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _restored(cls, {name: arrays[name] for name in arrays.files})
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # reading a damaged file can end in any
        raise ValueError(f"{path} was not written by SemiSupervisedClassifier.save, or is damaged: {error}") from error


def _restored(cls: type[Any], arrays: Arrays) -> Any:
    """The estimator that the arrays were made of; a ValueError where they do not fit together."""
    content = json.loads(str(arrays["content"]))
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
    estimator, kept = cls(**_settings(content["params"])), content["kept"]
    for name in KEPT:
        setattr(estimator, name, kept[name])
    if NAMES in kept:
        estimator.feature_names_in_ = np.array(kept[NAMES], dtype=object)
    estimator.classes_ = arrays["classes"]
    scaled = estimator.likelihood_ == "normal"
    estimator.scaler_ = _scaler(arrays, estimator.n_features_in_) if scaled else None
    estimator.networks_ = _networks(arrays, content["build"])
    return estimator


def _settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from JSON, which has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}


def _scaler(arrays: Arrays, num_features: int) -> StandardScaler:
    scaler = StandardScaler()
    scaler.mean_, scaler.scale_ = arrays[MEAN], arrays[SCALE]
    if not scaler.mean_.shape == scaler.scale_.shape == (num_features,):
        raise ValueError(f"it scales {scaler.mean_.shape} columns of {num_features}")
    scaler.var_, scaler.n_features_in_ = scaler.scale_**2, num_features
    return scaler


def _networks(arrays: Arrays, description: dict[str, Any]) -> Networks:
    """Networks with the weights of a file, in double precision."""
    if arrays["classes"].shape != (description[OBJECTIVE][1]["y_dim"],):
        raise ValueError(f"it has {arrays['classes'].shape} classes for a model of other classes")
    with kept_apart():
        networks = build(description).double()
    for stage, objective in networks.objectives().items():
        prefix = f"{stage}/"
        weights = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        if not all(np.isfinite(value).all() for value in weights.values()):
            raise ValueError("a weight is NaN or infinite")
        objective.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()})
    return networks.eval()


# Pickles


def current_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a pickled estimator as it is now.

    In version 0.1 the estimator had the objectives of the two stages, of which the first could be None, and their
    description among its own attributes. Now one object has them.
    """
    now = dict(state)
    if "build_" in now:
        objectives = {name: now.pop(name) for name in (FEATURES, OBJECTIVE)}
        now["networks_"] = assemble(now.pop("build_"), objectives)
    return now
