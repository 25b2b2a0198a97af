"""Files of fitted estimators, and the state of pickles that version 0.1 wrote.

A file is an archive of NumPy's without pickled objects, so that reading it runs nothing: `content` is JSON with the
settings and with what was learnt beside the weights, `classes` are the labels, `scaler/…` scales the columns, and
`features_/…` and `objective_/…` are the weights of the stages, in single precision.
"""

import json
from collections.abc import Mapping
from operator import mul
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ..checks import check_choice, check_counts
from ..data.labels import known_labels
from ..files import check_archive, write_whole
from .networks import FEATURES, MIN_SCALE, OBJECTIVE, Networks, assemble, build, describe_settings
from .randomness import kept_apart
from .settings import ARCHITECTURE, check_settings

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
        OSError: there is no such file, or it may not be read.
    """
    Path(path).stat()
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as arrays:
            return _restored(cls, {name: arrays[name] for name in arrays.files})
    except OSError:  # the system's, of a file that is there: it is not damaged
        raise
    except Exception as error:  # reading a crafted file can end in any
        told = " ".join(f"{type(error).__name__}: {error}".removeprefix("ValueError: ").split())
        raise ValueError(f"{path} was not written by SemiSupervisedClassifier.save, or is damaged: {told}") from error


def _restored(cls: type[Any], arrays: Arrays) -> Any:
    """The estimator that the arrays were made of; a ValueError where they do not fit together."""
    content = json.loads(str(arrays.pop("content")))
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
    kept, classes = content["kept"], arrays.pop("classes")
    estimator = cls(**_settings(content["params"]))
    _check_kept(estimator, kept, classes)
    for name in KEPT:
        setattr(estimator, name, kept[name])
    if NAMES in kept:
        estimator.feature_names_in_ = np.array(kept[NAMES], dtype=object)
    estimator.classes_ = classes
    estimator.scaler_ = _scaler(arrays, kept["n_features_in_"]) if kept["likelihood_"] == "normal" else None
    _check_description(content["build"], kept, len(classes), sum(value.size for value in arrays.values()))
    estimator.networks_ = _networks(arrays, content["build"], kept)
    return estimator


def _settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from JSON, which has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}


def _check_kept(estimator: Any, kept: Mapping[str, Any], classes: NDArray[Any]) -> None:
    """Checks the settings of now and those of the networks as `fit` does, and what was learnt beside the weights."""
    given = estimator.get_params(deep=False)
    check_settings(given)
    if set(kept["architecture_"]) != set(ARCHITECTURE):
        raise ValueError("architecture_ must hold the settings that the networks are made of")
    check_settings({**given, **kept["architecture_"]})
    check_choice(("bernoulli", "normal"), likelihood_=kept["likelihood_"])
    check_counts(**{name: kept[name] for name in ("n_iter_", "n_features_in_", "_n_features_out")})
    check_counts(0, seed_=kept["seed_"])
    if len(kept["history_"]) != kept["n_iter_"] or not all(map(_is_row, kept["history_"])):
        raise ValueError("history_ must hold the numbers of every epoch")
    _check_names(kept.get(NAMES), kept["n_features_in_"])
    _check_classes(classes, kept["architecture_"]["extra_classes"])


def _is_row(row: Any) -> bool:
    """Whether it is a row of the history."""
    return isinstance(row, dict) and "epoch" in row and all(type(value) in (int, float) for value in row.values())


def _check_names(names: Any, num_features: int) -> None:
    fits = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if names is not None and not (fits and len(set(names)) == len(names) == num_features):
        raise ValueError(f"{NAMES} must be {num_features} different strings")


def _check_classes(classes: NDArray[Any], extra_classes: int) -> None:
    known, labels = known_labels(classes)
    labelled = labels[: len(labels) - extra_classes]
    if not known.all() or len(set(labels.tolist())) < len(classes) or not np.array_equal(np.unique(labelled), labelled):
        raise ValueError("classes must be different labels, in their order")


def _scaler(arrays: Arrays, num_features: int) -> StandardScaler:
    scaler = StandardScaler()
    scaler.mean_, scaler.scale_ = arrays.pop(MEAN), arrays.pop(SCALE)
    for found in (scaler.mean_, scaler.scale_):
        if found.shape != (num_features,) or found.dtype != np.float64:
            raise ValueError(f"it must have the mean and the scale of {num_features} columns")
    if not np.isfinite([scaler.mean_, scaler.scale_]).all() or not (scaler.scale_ > 0).all():
        raise ValueError("the means must be finite, and the scales positive and finite")
    scaler.var_, scaler.n_features_in_ = scaler.scale_**2, num_features
    return scaler


def _check_description(description: Any, kept: Mapping[str, Any], num_classes: int, num_weights: int) -> None:
    """Checks that the networks are those of the settings, and no larger than the weights that are there."""
    settings, num_features = kept["architecture_"], kept["n_features_in_"]
    stages = [stage.get(MIN_SCALE) for _, stage in description.values()]
    min_scale = next((found for found in stages if found is not None), None)
    if min_scale is not None and not (
        len(min_scale) == num_features and all(0 < least < np.inf for least in min_scale)
    ):
        raise ValueError(f"{MIN_SCALE} must be {num_features} positive numbers")
    expected = describe_settings(
        settings, x_dim=num_features, y_dim=num_classes, likelihood=kept["likelihood_"], min_scale=min_scale
    )
    if json.loads(json.dumps(expected)) != description:
        raise ValueError("its networks are not those of its settings")
    widths = [num_features, *settings["hidden"], settings["z_dim"]]
    further = [value for value in (settings["settings"] or {}).values() if type(value) is int]
    if max(sum(map(mul, widths[1:], widths[:-1])), settings["flow_length"], *further) > num_weights:
        raise ValueError("its networks are larger than its weights")


def _networks(arrays: Arrays, description: dict[str, Any], kept: Mapping[str, Any]) -> Networks:
    """Networks with the weights of a file, in double precision."""
    with kept_apart():
        networks = build(description)
    expected = _weights(networks)
    if arrays.keys() != expected.keys():
        raise ValueError(f"it lacks or adds {', '.join(sorted(arrays.keys() ^ expected.keys()))}")
    for name, value in arrays.items():
        if value.shape != expected[name].shape or value.dtype != expected[name].dtype or not np.isfinite(value).all():
            raise ValueError(f"{name} must be finite, of shape {expected[name].shape} and type {expected[name].dtype}")
    for stage, objective in networks.double().objectives().items():
        prefix = f"{stage}/"
        weights = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        objective.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()})
    width = networks.eval().encode(torch.zeros(1, kept["n_features_in_"]).double()).shape[1]
    if kept["_n_features_out"] != width:
        raise ValueError(f"_n_features_out must be {width}, got {kept['_n_features_out']!r}")
    return networks


# Pickles


def current_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a pickled estimator as it is now.

    In version 0.1 the estimator had the objectives of the two stages, of which the first could be None, and their
    description among its own attributes. Now one object has them. It knew no `summed_classes`.
    """
    now = {"summed_classes": None, **state}
    if "build_" in now:
        objectives = {name: now.pop(name) for name in (FEATURES, OBJECTIVE)}
        now["networks_"] = assemble(now.pop("build_"), objectives)
    return now
