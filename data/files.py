"""Where files are, how missing ones are fetched, and how archives are read and written."""

import importlib
import math
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..compat import mend_torchvision
from ..files import check_archive, check_file, write_whole


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
        ValueError: there is no file, it is no archive or damaged, or an array is not as its header says or holds
            Python objects.
    """
    check_file(path)
    if not zipfile.is_zipfile(path):
        got = "got another file or a part of one; write it with numpy.savez"
        raise ValueError(f"{path} must be an .npz archive, {got}")
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        held = set(archive.namelist())
        return {key: _member(path, archive, key) for key in keys if f"{key}.npy" in held}


def _member(path: Path, archive: zipfile.ZipFile, key: str) -> NDArray[Any]:
    member = archive.getinfo(f"{key}.npy")
    try:
        with archive.open(member) as file:
            _check_header(file, member.file_size)
        with archive.open(member) as file:
            return np.asarray(npy.read_array(file, allow_pickle=False))
    except Exception as error:  # a header is Python's text, and its errors are of any type
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: {key} must be an array that can be read, got {reason or type(error).__name__}; write the file "
            "again with numpy.savez, from numbers without Python objects"
        ) from error


def _check_header(file: IO[bytes], size: int) -> None:
    """A ValueError unless the array fills the file to its end, so that no memory is taken for more than there is."""
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    declared, found = math.prod(shape) * dtype.itemsize, size - file.tell()
    if declared != found and not dtype.hasobject:
        raise ValueError(f"{found} bytes for {shape} numbers of {dtype}")


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an archive whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_whole(path, write)
