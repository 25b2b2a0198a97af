"""OMNIGLOT in 28x28, ink = 1, the 50 alphabets as classes, in semipyro's own split.

Each of the 1,623 characters was drawn by 20 people. Drawings 1-14 of every character are for training, 15 for
validation and 16-20 for the test: 22,722, 1,623 and 8,115 images. The first two together are as many as the 24,345
training images of Burda et al. (2015), arXiv:1509.00519, but they are other images, shrunk in another way. A number
that is published beside theirs should say so.

The 105x105 drawings come from ``ROOT/omniglot/omniglot105.npz``, or else from torchvision's images in
``ROOT/omniglot-py``, downloaded if they are not there. The shrunk images are kept in the user's cache folder.
"""

import hashlib
import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..files import check_file
from .dataset import Dataset, Split
from .files import cache_folder, fetch, read_npz, write_npz

NUM_IMAGES = 32_460
NUM_ALPHABETS, NUM_DRAWERS = 50, 20
SIDE, SMALL_SIDE, AREA = 105, 28, 225  # a small pixel is 15 by 15 of the units of _overlap
FIRST_VALIDATION, FIRST_TEST = 15, 16  # numbers of the drawers
HALVES = ("images_background", "images_evaluation")
CACHE_VERSION = 1

Drawings = dict[str, NDArray[np.uint8]]  # "counts" (N, 28, 28) of 225; "alphabet" (N,) from 0; "drawer" (N,) from 1


def omniglot(root: Path) -> Dataset:
    """OMNIGLOT in 28x28 by area averaging."""
    drawings = _cached(_source(root))
    drawer = drawings["drawer"]
    return Dataset(
        "omniglot",
        train=_split(drawings, drawer < FIRST_VALIDATION),
        validation=_split(drawings, (drawer >= FIRST_VALIDATION) & (drawer < FIRST_TEST)),
        test=_split(drawings, drawer >= FIRST_TEST),
        num_classes=NUM_ALPHABETS,
        shape=(SMALL_SIDE, SMALL_SIDE),
    )


def _split(drawings: Drawings, rows: NDArray[np.bool_]) -> Split:
    x = torch.from_numpy(drawings["counts"][rows]).flatten(1).float().div_(AREA)
    return Split(x, torch.from_numpy(drawings["alphabet"][rows].astype(np.int64)))


# Area averaging


def _overlap(large: int = SIDE, small: int = SMALL_SIDE) -> NDArray[np.int64]:
    """How much of large pixel j lies in small pixel i, (small, large), in units that make every length whole.

    For 105 and 28, a large pixel is 4 units long and a small one 15.
    """
    unit = math.gcd(large, small)
    start = np.maximum(np.arange(small)[:, None] * (large // unit), np.arange(large) * (small // unit))
    end = np.minimum(np.arange(1, small + 1)[:, None] * (large // unit), np.arange(1, large + 1) * (small // unit))
    lengths: NDArray[np.int64] = np.maximum(end - start, 0)
    return lengths


def shrink(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Area averages of 0/1 images, (N, 105, 105) → (N, 28, 28), exactly: as whole numbers of 225ths."""
    weights = _overlap().astype(np.float32)
    return (weights @ images.astype(np.float32) @ weights.T).astype(np.uint8)  # sums up to 225: exact in float32


def _shrink_all(blocks: Iterable[NDArray[Any]]) -> NDArray[np.uint8]:
    return np.concatenate([shrink(block) for block in blocks])  # in blocks, since all images at once take 1.4 GB


# The two sources


def _source(root: Path) -> Path:
    archive, folder = root / "omniglot" / "omniglot105.npz", root / "omniglot-py"
    if archive.exists():
        return archive
    halves = ({"background": True}, {"background": False})
    fetch("Omniglot", root, [folder / half for half in HALVES], halves)
    return folder


def read_drawings(source: Path) -> Drawings:
    """Read and shrink the archive ``omniglot105.npz`` or torchvision's folder ``omniglot-py``; both give equal arrays.

    Raises:
        ValueError: a file is damaged, or images are missing.
    """
    return _read_folder(source) if source.is_dir() else _read_archive(source)


def _check_arrays(path: Path, arrays: Drawings, images: str, shape: tuple[int, int]) -> None:
    """A ValueError unless there are images of this shape, and the alphabet and the drawer of each."""
    shapes = {images: shape, "alphabet": (), "drawer": ()}
    found = {key: f"{array.dtype} {array.shape}" for key, array in arrays.items()}
    fits = [a.dtype == np.uint8 and a.ndim > 0 and a.shape[1:] == shapes[key] for key, a in arrays.items()]
    if len(arrays) != 3 or not all(fits) or len({len(array) for array in arrays.values()}) != 1:
        raise ValueError(f"{path} must hold {images}, alphabet and drawer, bytes of one length, got {found}")
    _check_rows(path, arrays["alphabet"], arrays["drawer"])


def _check_rows(source: Path, alphabet: NDArray[Any], drawer: NDArray[Any]) -> None:
    """A ValueError unless there are as many images as there should be, each of a known alphabet and drawer."""
    if len(drawer) != NUM_IMAGES:
        raise ValueError(f"{source} must hold {NUM_IMAGES} images, got {len(drawer)}; delete it and download it again")
    if alphabet.max() >= NUM_ALPHABETS or drawer.min() < 1 or drawer.max() > NUM_DRAWERS:
        raise ValueError(
            f"{source} must hold {NUM_ALPHABETS} alphabets by the drawers 1 to {NUM_DRAWERS}, got "
            f"{alphabet.max() + 1} by {drawer.min()} to {drawer.max()}; delete it and download it again"
        )


def _read_archive(path: Path) -> Drawings:
    arrays = read_npz(path, ("images_packed", "alphabet", "drawer"))
    _check_arrays(path, arrays, "images_packed", (SIDE, math.ceil(SIDE / 8)))
    blocks = np.array_split(arrays["images_packed"], 1 + len(arrays["drawer"]) // 1000)
    counts = _shrink_all(np.unpackbits(block, axis=2, count=SIDE) for block in blocks)
    return {"counts": counts, "alphabet": arrays["alphabet"], "drawer": arrays["drawer"]}


def _read_folder(folder: Path) -> Drawings:
    files = sorted(_images(folder), key=lambda path: path.name)  # character, drawer: 0001_01.png
    numbers = {path: number for number, path in enumerate(sorted({file.parent.parent for file in files}))}
    alphabet = np.array([numbers[file.parent.parent] for file in files])
    drawer = np.array([int(file.stem[-2:]) for file in files])
    _check_rows(folder, alphabet, drawer)
    return {
        "counts": _shrink_all(_read_image(file)[None] for file in files),
        "alphabet": alphabet.astype(np.uint8),
        "drawer": drawer.astype(np.uint8),
    }


def _images(folder: Path) -> list[Path]:
    pattern = f"*/*/{'[0-9]' * 4}_{'[0-9]' * 2}.png"
    files = [file for half in HALVES for file in sorted((folder / half).glob(pattern))]
    if not files:
        raise ValueError(f"{folder} must hold images, got none; delete it and download it again")
    for file in files:
        check_file(file)
    return files


def _read_image(path: Path) -> NDArray[np.bool_]:
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.size != (SIDE, SIDE):
                raise ValueError("one of {}x{}".format(*image.size))
            image.verify()  # the CRCs, at which decoding does not look
        with Image.open(path, formats=["PNG"]) as image:
            return np.asarray(image.convert("L")) < 128
    except Exception as error:  # Pillow has errors of many types for damaged bytes, SyntaxError among them
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} must be an image of {SIDE}x{SIDE} pixels that can be read, got {reason}; download it again"
        ) from error


# The cache


def _cached(source: Path) -> Drawings:
    mark = _fingerprint(source)
    path = cache_folder() / f"omniglot{SMALL_SIDE}-{mark[:16]}.npz"
    drawings = _read_cache(path, mark)
    if drawings is None:
        drawings = read_drawings(source)
        _write_cache(path, drawings, mark)
    return drawings


def _fingerprint(source: Path) -> str:
    """A checksum of the archive's bytes, or of the images' names, sizes and times."""
    mark = hashlib.sha256(f"version {CACHE_VERSION}".encode())
    if source.is_dir():
        for file in _images(source):
            status = file.stat()
            mark.update(f"{file.relative_to(source)} {status.st_size} {status.st_mtime_ns}\n".encode())
    else:
        check_file(source)
        mark.update(source.read_bytes())
    return mark.hexdigest()


def _read_cache(path: Path, mark: str) -> Drawings | None:
    """The cached images of a source; None where there are none, or they are damaged or of another source."""
    try:
        arrays = read_npz(path, ("counts", "alphabet", "drawer", "source"))
        found = str(arrays.pop("source", ""))
        _check_arrays(path, arrays, "counts", (SMALL_SIDE, SMALL_SIDE))
    except (OSError, ValueError):
        return None  # it can be made again
    return arrays if found == mark else None


def _write_cache(path: Path, drawings: Drawings, mark: str) -> None:
    try:
        write_npz(path, {**drawings, "source": np.array(mark)})
    except OSError as error:
        warnings.warn(
            f"{path} cannot be written ({error}): OMNIGLOT is shrunk anew each time.", RuntimeWarning, stacklevel=2
        )
