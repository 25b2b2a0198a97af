"""Where files are, how missing ones are fetched, and how archives are read and written."""

import importlib
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compat import mend_torchvision
from ..files import write_whole


def cache_folder() -> Path:
    """The user's folder for what is downloaded and derived: ``$XDG_CACHE_HOME/semipyro``, or ``~/.cache/semipyro``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semipyro"


def data_root(root: str | os.PathLike[str] | None) -> Path:
    """The folder of the data sets: the argument, else ``SEMIPYRO_DATA``, else the cache folder."""
    return Path(root or os.environ.get("SEMIPYRO_DATA") or cache_folder()).expanduser()


def fetch(dataset: str, root: Path, needed: Iterable[Path], options: Sequence[Mapping[str, Any]] = ({},)) -> None:
    """Download with ``torchvision.datasets``, into ``root``, if one of the ``needed`` paths is missing.

    torchvision is imported only here, since its import is slow.
    """
    missing = [path for path in needed if not path.exists()]
    if not missing:
        return
    try:
        mend_torchvision()
        datasets = importlib.import_module("torchvision.datasets")
        for option in options:
            getattr(datasets, dataset)(str(root), download=True, **option)
        reason = "it is not there after the download either"
    except Exception as error:  # whether the import, the network or the disk fails, the remedy is the same
        reason = f"torchvision could not download it: {type(error).__name__}: {error}"
    missing = [path for path in missing if not path.exists()]
    if missing:
        raise ValueError(
            f"{missing[0]} is missing ({reason}); put it there, or run {_calls(dataset, root, options)} on a machine "
            "with a network and copy the folder, or point root= or the environment variable SEMIPYRO_DATA to a folder "
            "that has it"
        )


def _calls(dataset: str, root: Path, options: Iterable[Mapping[str, Any]]) -> str:
    settings = ["".join(f"{key}={value}, " for key, value in option.items()) for option in options]
    return " and ".join(
        f"torchvision.datasets.{dataset}({str(root)!r}, {setting}download=True)" for setting in settings
    )


def read_npz(path: Path, keys: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The arrays among ``keys`` that an archive holds; nothing is unpickled.

    Raises:
        ValueError: there is no file, it is no archive, or an array is damaged or holds Python objects.
    """
    if not path.is_file():
        raise ValueError(f"{path} must be a file, got none; check the path")
    with _open_npz(path) as archive:
        return {key: _member(path, archive, key) for key in keys if key in archive.files}


def _open_npz(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            return np.load(path, allow_pickle=False)
    except (ValueError, zipfile.BadZipFile):
        pass
    raise ValueError(f"{path} must be an .npz archive, got another file or a part of one; write it with numpy.savez")


def _member(path: Path, archive: Mapping[str, NDArray[Any]], key: str) -> NDArray[Any]:
    try:
        return np.asarray(archive[key])
    except Exception as error:  # zipfile, zlib and NumPy each have errors of their own for damaged bytes
        raise ValueError(
            f"{path}: {key} must be an array that can be read, got {error}; write the file again with numpy.savez, "
            "from numbers without Python objects"
        ) from error


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an archive whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_whole(path, write)
