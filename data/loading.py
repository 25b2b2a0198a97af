"""Data sets by name."""

import os
from pathlib import Path

from .arrays import from_npz
from .dataset import Dataset
from .files import data_root
from .idx import fashion_mnist, mnist
from .omniglot import omniglot
from .toy import circles, digits, moons

BUILT_IN = {"digits": digits, "moons": moons, "circles": circles}
FROM_FILES = {"mnist": mnist, "fashion-mnist": fashion_mnist, "omniglot": omniglot}


def load(
    name_or_path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    num_classes: int | None = None,
) -> Dataset:
    """Load a data set by name, or the user's own from an ``.npz``.

    ============= ====== =============================================== ======================
    name          K      x                                               train, validation, test
    ============= ====== =============================================== ======================
    digits        10     8x8 images in [0, 1]                            1079, 359, 359
    moons         2      points in the plane                             6000, 2000, 2000
    circles       2      points in the plane                             6000, 2000, 2000
    mnist         10     28x28 images in [0, 1]                          50000, 10000, 10000
    fashion-mnist 10     28x28 images in [0, 1]                          50000, 10000, 10000
    omniglot      50     28x28 images in [0, 1], ink = 1, alphabets as y 22722, 1623, 8115
    ============= ====== =============================================== ======================

    An ``.npz`` holds ``x``, (N, ...) numbers, which are flattened and otherwise left as they are; ``y``, (N,) integers
    0..K-1 with -1 for unlabelled rows; and optionally ``x_test`` and ``y_test``. Without these, a fifth of each class
    is held out for the test, and in either case another fifth for validation, with a fixed seed; unlabelled rows stay
    in ``train``. Without ``y`` every row is unlabelled, K is 0 and the fifths are drawn from all rows.

    Args:
        name_or_path: a name in the table, or a path that ends in ``.npz``.
        root: the folder of the files; else the environment variable ``SEMIPYRO_DATA``, else ``~/.cache/semipyro``.
            Missing files are downloaded into it by torchvision; what is derived from them goes to the cache folder.
        num_classes: K of an ``.npz`` in which a class below K has no row at all; at most as many as it has rows, or
            1,000 where it has fewer.

    Returns:
        The data set, in memory.

    Raises:
        ValueError: an unknown name; a file that is missing, damaged or does not hold what is expected; without
            ``num_classes``, a class below the largest that has no row.

    >>> digits = load("digits")
    >>> digits.train.x.shape, digits.num_classes, digits.shape
    (torch.Size([1079, 64]), 10, (8, 8))
    """
    name = os.fsdecode(name_or_path)
    if name.lower().endswith(".npz"):
        return from_npz(Path(name).expanduser(), num_classes)
    if num_classes is not None:
        raise ValueError(f"num_classes must be given for an .npz alone, got {num_classes!r} for {name!r}; leave it out")
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if name in FROM_FILES:
        return FROM_FILES[name](data_root(root))
    known = ", ".join([*BUILT_IN, *FROM_FILES])
    raise ValueError(f"name_or_path must be one of {known}, or a path that ends in .npz, got {name!r}")
