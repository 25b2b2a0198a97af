"""Files are written whole or not at all, know that they are whole, and a folder belongs to one process at a time."""

import hashlib
import json
import os
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

CHECKSUM = "sha256"  # the key under which a JSON file keeps the checksum of the rest of it
UNPACKED, RATIO = 2**30, 100  # an archive may unpack to a GiB, or to this many times its own size


# Writing


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Calls `write(temporary)` and then gives the finished file the name `path`.

    A process that is killed, and a machine that loses its power, leave the old file or the new one, never a part of
    it: what was written is on the disk before it gets its name. Missing folders are made.

    Raises:
        OSError: the file cannot be written, such as where the disk is full; the old one stays as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Waits until the disk has the file, or the names in the folder where the system can wait for those."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole, with the checksum of its content beside it."""
    text = json.dumps({**content, CHECKSUM: checksum(content)}, indent=2) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text))


def write_between(path: str | os.PathLike[str], marks: tuple[str, str], text: str) -> None:
    """Puts lines of text between two marks of a page, in place of those that are there.

    Raises:
        ValueError: the page lacks one of the marks, and stays as it was.
    """
    before, first, rest = Path(path).read_text(encoding="utf-8").partition(marks[0])
    _, last, after = rest.partition(marks[1])
    if not last:
        raise ValueError(f"{path} has no {(first and marks[1]) or marks[0]}")
    page = f"{before}{first}\n{text}\n{last}{after}"
    write_whole(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content as JSON, whatever the order of its keys; of a checksum that it already has, nothing."""
    read = json.loads(json.dumps(content))  # whose keys are all text, as those of a file are
    rest = {name: value for name, value in read.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


# Reading


def check_file(path: str | os.PathLike[str]) -> None:
    """A ValueError unless there is a file that can be read to its end: no folder, pipe or device.

    Raises:
        ValueError: there is none.
        OSError: it may not be opened, which readers that follow would take for damage.
    """
    found = Path(path)
    if not found.is_file():
        got = "none" if not found.exists() else "a folder" if found.is_dir() else "a pipe or a device"
        raise ValueError(f"{path} must be a file, got {got}; check the path")
    with open(found, "rb"):
        pass


def read_json(path: str | os.PathLike[str], *, sealed: bool = False) -> dict[str, Any]:
    """The content of a JSON file, without its checksum, which is compared where there is one.

    Args:
        path: of the file.
        sealed: whether there has to be a checksum. Files of version 0.1 have none.

    Raises:
        ValueError: there is no such file, it holds no JSON object, or its content is not what was written.
    """
    check_file(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    expected = content.pop(CHECKSUM, None)
    if expected is None and sealed:
        raise ValueError(f"{path} has no checksum ({CHECKSUM}); it was not written by semipyro, or was damaged")
    if expected is not None and expected != checksum(content):
        raise ValueError(f"{path} was changed or damaged after it was written: its checksum is another")
    return content


def check_archive(path: str | os.PathLike[str]) -> None:
    """A ValueError unless the file is a zip archive, such as NumPy and PyTorch write, whose every bit is as written.

    The sizes that it declares are looked at before anything is unpacked, and every member's CRC is compared.
    """
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            too_large = unpacked > max(UNPACKED, RATIO * os.path.getsize(path))
            if not 0 < len(archive.infolist()) == _declared_members(archive):
                raise ValueError("members are missing in its directory")
            damaged = None if too_large else archive.testzip()
    except Exception as error:  # zipfile and zlib have half a dozen types for bytes that are no archive
        raise ValueError(f"{path} is damaged, cut off or no archive: {error}") from error
    if too_large:
        raise ValueError(f"{path} would unpack to {unpacked / 2**30:.1f} GiB, over {RATIO} times its size; if that is "
                         "meant, write it again without compression, with numpy.savez")  # fmt: skip
    if damaged is not None:
        raise ValueError(f"{path} is damaged: {damaged} in it is not what was written")


def _declared_members(archive: zipfile.ZipFile) -> int:
    """How many members an archive says it has, in the 22 bytes before the comment that ends it."""
    with open(str(archive.filename), "rb") as file:
        file.seek(-22 - len(archive.comment), os.SEEK_END)
        return int.from_bytes(file.read(12)[10:], "little")


# Folders


@contextmanager
def hold(folder: str | os.PathLike[str], name: str = ".lock") -> Iterator[None]:
    """Makes the folder, and keeps other processes and threads that `hold` it out until the block ends.

    The operating system takes the lock from a process that ends, in whatever way, so that none is left behind. Of one
    that was killed the empty file `name` stays, which says nothing.

    Raises:
        ValueError: another process or thread holds the folder.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(folder) / name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another process is at work in {folder}; wait for its end, or choose another folder"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes no open file
            os.unlink(lock.lock_file)
        lock.release()  # last, so that nobody else has taken the name
