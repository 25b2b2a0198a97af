"""The files of `SemiSupervisedClassifier.save`: whole or refused, and nothing in one is run."""

import json

import numpy as np
import pytest
from semipyro.estimator import SemiSupervisedClassifier
from sklearn.datasets import make_blobs


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
