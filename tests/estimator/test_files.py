"""The files of `SemiSupervisedClassifier.save`: whole or refused, and nothing in one is run."""

import json
import os

import numpy as np
import pytest
from semipyro.estimator import SemiSupervisedClassifier
from sklearn.datasets import make_blobs

from helpers.mutations import outcomes


def learnt(**changed):
    """M2 after one epoch on two clusters, of which every third row has its label."""
    X, y = make_blobs(60, 3, centers=2, random_state=0)
    y[np.arange(len(y)) % 3 > 0] = -1
    return SemiSupervisedClassifier("m2", z_dim=2, hidden=(8,), epochs=1, **changed).fit(X, y)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "learnt.npz"
    learnt(random_state=0).save(path)
    return path


def damaged(saved, how):
    """The bytes of a file that is not quite one of ours."""
    whole = saved.read_bytes()
    if how == "cut off":
        return whole[: len(whole) // 2]
    if how == "text":
        return b"not an archive"
    if how == "empty":
        return b""
    with np.load(saved) as file:
        arrays = {name: file[name] for name in file.files}
    content = json.loads(str(arrays["content"]))
    if how == "another archive":
        arrays = {"x": np.zeros(3)}
    elif how == "another version":
        content["format"] = "semipyro 99"
    elif how == "a weight is missing":
        arrays.pop(next(name for name in arrays if name.startswith("objective_/")))
    elif how == "a weight is NaN":
        name = next(name for name in arrays if name.startswith("objective_/") and arrays[name].dtype.kind == "f")
        arrays[name] = np.full_like(arrays[name], np.nan)
    elif how == "no scaling":
        arrays = {name: value for name, value in arrays.items() if not name.startswith("scaler/")}
    elif how == "a class too few":
        arrays["classes"] = arrays["classes"][:-1]
    elif how == "no history":
        del content["kept"]["history_"]
    elif how == "an unknown setting":
        content["params"]["wings"] = 2
    if "content" in arrays:
        arrays["content"] = np.array(json.dumps(content))
    return arrays


HOWS = [
    "cut off", "text", "empty", "another archive", "another version", "a weight is missing", "an unknown setting",
    "a weight is NaN", "no scaling", "a class too few", "no history",
]  # fmt: skip


@pytest.mark.parametrize("how", HOWS)
def test_a_damaged_file_is_refused(saved, how, tmp_path):
    path, content = tmp_path / "damaged.npz", damaged(saved, how)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    with pytest.raises(
        ValueError, match=r"damaged.npz was not written by SemiSupervisedClassifier.save, or is damaged"
    ):
        SemiSupervisedClassifier.load(path)


def contents(saved):
    """The arrays of a file, and its JSON."""
    with np.load(saved) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, json.loads(str(arrays.pop("content")))


def refused(path, arrays, content):
    """What is said of a file of these arrays and this JSON, which is refused."""
    np.savez(path, content=np.array(json.dumps(content)), **arrays)
    with pytest.raises(ValueError, match="was not written by SemiSupervisedClassifier.save, or is damaged") as caught:
        SemiSupervisedClassifier.load(path)
    told = str(caught.value)
    assert told.startswith(str(path))
    assert "\n" not in told
    return told


@pytest.mark.reliability
def test_damage_is_found(saved, tries, counted):
    def predictions(path):
        learnt = SemiSupervisedClassifier.load(path)
        return learnt.classes_.tolist(), learnt.get_params(), learnt.history_, learnt.predict_proba(ROWS).tolist()

    found = outcomes(saved, predictions, tries)
    counted("damaged files of an estimator", found)
    assert set(found) <= {"refused", "unchanged"}, found
    assert found["refused"] > tries / 2


@pytest.mark.reliability
def test_a_file_without_one_of_its_parts_is_refused(saved, tmp_path):
    """Each array, and each key of the JSON at any depth but for settings of the networks that are dictionaries."""
    arrays, content = contents(saved)
    for name in arrays:
        refused(tmp_path / "crafted.npz", {key: value for key, value in arrays.items() if key != name}, content)
    for part in (content, content["kept"], content["build"]["objective_"][1], content["kept"]["architecture_"]):
        for name in list(part):
            value = part.pop(name)
            refused(tmp_path / "crafted.npz", arrays, content)
            part[name] = value
    np.savez(tmp_path / "none.npz", content=np.array(json.dumps(content)), **arrays)
    assert SemiSupervisedClassifier.load(tmp_path / "none.npz").predict(ROWS).shape == (2,)


@pytest.mark.reliability
def test_parts_of_other_types_are_refused(saved, tmp_path):
    arrays, content = contents(saved)
    for part in (content, content["kept"], content["params"]):
        for name, value in list(part.items()):
            for other in ([[]], {"a": 1}, -7.5):
                part[name] = other
                if name not in FREE and (name, other) != ("settings", {"a": 1}):  # `build` knows its keywords
                    refused(tmp_path / "crafted.npz", arrays, content)
            part[name] = value
    for name, value in arrays.items():  # there are classes of several types
        for other in (value[None], value.astype("U9"), value[..., :0], np.ma.array(value).astype(np.float16)):
            if name != "classes":
                refused(tmp_path / "crafted.npz", {**arrays, name: other}, content)


ROWS = np.arange(6.0).reshape(2, 3)
FREE = {"verbose", "warm_start", "early_stopping", "flow_amortised"}  # any value is a yes or a no
CRAFTED = {
    "an unknown model": (lambda arrays, content: content["params"].update(model="m3"), "model must be one of m2"),
    "another model": (lambda arrays, content: content["kept"]["architecture_"].update(model="adgm"), "its networks"),
    "a billion draws": (lambda arrays, content: content["params"].update(num_draws=10**9), "num_draws must be at most"),
    "no draws": (lambda arrays, content: content["params"].update(num_draws=0), "num_draws must be an integer of at"),
    "negative scales": (lambda arrays, content: arrays["scaler/scale"].__imul__(-1), "the scales positive and finite"),
    "infinite means": (lambda arrays, content: arrays["scaler/mean"].fill(np.inf), "the means must be finite"),
    "equal classes": (lambda arrays, content: arrays["classes"].fill(1), "classes must be different labels"),
    "an unknown class": (lambda arrays, content: arrays["classes"].put(0, -1), "classes must be different labels"),
    "classes of a type that labels have not": (lambda arrays, content: arrays.update(classes=np.array([b"a", b"b"])),
                                               "y must hold integers, whole floats"),
    "a class too many": (lambda arrays, content: arrays.update(classes=np.arange(3)), "its networks are not those of"),
    "classes out of order": (lambda arrays, content: arrays["classes"].sort() or arrays["classes"].put([0, 1], [1, 0]),
                             "classes must be different labels, in their order"),
    "a history of another length": (lambda arrays, content: content["kept"]["history_"].clear(), "history_ must hold"),
    "a width of latents": (lambda arrays, content: content["kept"].update(_n_features_out=7), "_n_features_out must"),
    "names of columns": (lambda arrays, content: content["kept"].update(feature_names_in_=["a", "a", "b"]),
                         "feature_names_in_ must be 3 different strings"),
    "deep nesting": (lambda arrays, content: content["kept"].update(history_=deep(900)), "history_ must hold"),
    "huge networks": (lambda arrays, content: [part.update(z_dim=10**9) for part in (
        content["kept"]["architecture_"], content["build"]["objective_"][1])], "its networks are larger than"),
    "a floor below zero": (lambda arrays, content: content["build"]["objective_"][1].update(min_scale=[-1, 1, 1]),
                           "min_scale must be 3 positive numbers"),
}  # fmt: skip


def deep(levels):
    return [deep(levels - 1)] if levels else []


@pytest.mark.reliability
@pytest.mark.parametrize("what", CRAFTED)
def test_a_crafted_file_is_refused_as_fit_refuses(saved, tmp_path, what):
    arrays, content = contents(saved)
    change, message = CRAFTED[what]
    change(arrays, content)
    assert message in refused(tmp_path / "crafted.npz", arrays, content)


@pytest.mark.reliability
@pytest.mark.parametrize("kind", ["folder", "pipe", "nesting"])
def test_what_is_no_file_of_arrays_is_refused(tmp_path, kind):
    path = tmp_path / "learnt.npz"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        np.savez(path, content=np.array("[" * 100_000))
    with pytest.raises(ValueError, match="learnt.npz was not written by SemiSupervisedClassifier.save"):
        SemiSupervisedClassifier.load(path)


class Evil:
    """Its unpickling leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_in_a_file_is_not_run(tmp_path):
    np.savez(tmp_path / "evil.npz", content=np.array([Evil(tmp_path / "ran")], dtype=object))
    with pytest.raises(ValueError, match="evil.npz was not written by"):
        SemiSupervisedClassifier.load(tmp_path / "evil.npz")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(FileNotFoundError):
        SemiSupervisedClassifier.load(tmp_path / "none.npz")


def test_what_a_file_cannot_hold_is_refused_before_it_is_written(tmp_path):
    with pytest.raises(ValueError, match="a setting cannot be saved as text .*RandomState"):
        learnt(random_state=np.random.RandomState(0)).save(tmp_path / "learnt.npz")
    assert not list(tmp_path.iterdir())
