"""Small data sets that need no files: digits, moons and circles, all from scikit-learn."""

from typing import Any

import torch
from numpy.typing import NDArray

from .dataset import Dataset, Split
from .splits import three_way

NUM_POINTS = 10_000
SEED = 0


def digits() -> Dataset:
    """1,797 images of 8x8 pixels, scaled from 0..16 to [0, 1]."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return _split("digits", x / 16, y, num_classes=10, shape=(8, 8))


def moons() -> Dataset:
    """Two interleaved half circles, with noise of standard deviation 0.1."""
    return _split("moons", *points("moons"), num_classes=2, shape=(2,))


def circles() -> Dataset:
    """Two circles with one centre, of radius 1 and 0.5, with noise of standard deviation 0.05."""
    return _split("circles", *points("circles"), num_classes=2, shape=(2,))


def points(name: str, number: int = NUM_POINTS, seed: int = SEED) -> tuple[NDArray[Any], NDArray[Any]]:
    """Points of "moons" or "circles", (N, 2), and their classes, in any number and of any seed."""
    from sklearn.datasets import make_circles, make_moons

    if name == "moons":
        return make_moons(number, noise=0.1, random_state=seed)
    return make_circles(number, noise=0.05, factor=0.5, random_state=seed)


def split_of(x: NDArray[Any], y: NDArray[Any]) -> Split:
    """Rows and classes as tensors."""
    return Split(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.int64))


def _split(name: str, x: NDArray[Any], y: NDArray[Any], *, num_classes: int, shape: tuple[int, ...]) -> Dataset:
    whole = split_of(x, y)
    return Dataset(name, *three_way(whole.x, whole.y, seed=SEED), num_classes=num_classes, shape=shape)
