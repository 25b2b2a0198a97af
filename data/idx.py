"""MNIST and Fashion-MNIST from their IDX files, laid out as torchvision has them: ``ROOT/MNIST/raw/...``."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..files import check_file
from .dataset import Dataset, Split
from .files import fetch

NUM_VALIDATION = 10_000
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
LARGEST = 2**26  # bytes; the training images have 47,040,016
MD5 = {
    "MNIST": (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    "FashionMNIST": (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}


def mnist(root: Path) -> Dataset:
    """MNIST: 50,000 images to train on, the last 10,000 of the training file for validation, 10,000 for the test."""
    return _load("mnist", "MNIST", root)


def fashion_mnist(root: Path) -> Dataset:
    """Fashion-MNIST, divided as MNIST is."""
    return _load("fashion-mnist", "FashionMNIST", root)


def _load(name: str, folder: str, root: Path) -> Dataset:
    paths = [root / folder / "raw" / file for file in FILES]
    fetch(folder, root, paths)
    images, labels, test_images, test_labels = map(read_idx, paths, MD5[folder])
    return Dataset(
        name,
        train=_split(images[:-NUM_VALIDATION], labels[:-NUM_VALIDATION]),
        validation=_split(images[-NUM_VALIDATION:], labels[-NUM_VALIDATION:]),
        test=_split(test_images, test_labels),
        num_classes=10,
        shape=images.shape[1:],
    )


def _split(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Split:
    x = torch.tensor(images).flatten(1).float().div_(255)
    return Split(x, torch.tensor(labels, dtype=torch.int64))


def read_idx(path: Path, md5: str) -> NDArray[np.uint8]:
    """The array in an IDX file, which holds two zeros, the type (8), the number of axes, their lengths and the bytes.

    The file says nothing by which a changed pixel could be found, so its checksum is compared with the original's.

    Raises:
        ValueError: there is no such file, or the whole file's MD5 is not ``md5``.
    """
    check_file(path)
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} must have at most {LARGEST} bytes, got {path.stat().st_size}; download it again")
    content = path.read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(
            f"{path} must be a file with MD5 {md5}, got {len(content)} bytes with MD5 {found}, damaged or "
            "incomplete; delete it and download it again"
        )
    shape = np.frombuffer(content, dtype=">i4", count=content[3], offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * content[3]).reshape(shape)
