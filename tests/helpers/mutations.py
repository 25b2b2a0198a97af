"""What becomes of a file that was damaged: it is refused in a sentence, or it is read as if nothing had happened."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BLOCK = 512  # bytes that are lost together, as on a disk


def mutations(content: bytes, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` damaged copies of the bytes, each with what was done to it: four of five are single flipped bits."""
    draw = random.Random(seed)
    for number in range(count):
        place = draw.randrange(len(content))
        if number % 5:
            bit = 1 << draw.randrange(8)
            yield f"bit {bit} of byte {place}", content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        elif number % 2:
            yield f"cut off at byte {place}", content[:place]
        else:
            lost = bytes(len(content[place : place + BLOCK]))
            yield f"{len(lost)} zeros at byte {place}", content[:place] + lost + content[place + len(lost) :]


def outcomes(
    path: Path,
    read: Callable[[Path], Any],
    count: int,
    *,
    same: Callable[[Any, Any], bool] = lambda found, written: bool(found == written),
    seed: int = 0,
) -> Counter[str]:
    """Damages the file `count` times and counts what `read` makes of it; the file is afterwards as it was.

    "refused" is a ValueError of one line that names the file, "unchanged" what was written all the same. Whatever else
    happens is counted under its own words: "silent: …" for other content, or the type of the error.
    """
    content, written = path.read_bytes(), read(path)
    found: Counter[str] = Counter()
    try:
        for what, damaged in mutations(content, count, seed):
            path.write_bytes(damaged)
            found[_outcome(path, read, written, same, what)] += 1
    finally:
        path.write_bytes(content)
    return found


def _outcome(path: Path, read: Callable[[Path], Any], written: Any, same: Callable[[Any, Any], bool], what: str) -> str:
    try:
        result = read(path)
    except ValueError as error:
        told = str(error)
        return "refused" if str(path) in told and "\n" not in told else f"unclear after {what}: {told!r}"
    except Exception as error:
        return f"{type(error).__name__} after {what}: {error}"
    return "unchanged" if same(result, written) else f"silent after {what}"
