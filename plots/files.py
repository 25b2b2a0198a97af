"""Writing figures to files."""

import os
from pathlib import Path

from matplotlib.figure import Figure

from ..files import write_whole


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure whole or not at all, in the format of the name's ending; missing folders are made.

    Args:
        figure: what to write.
        path: where, ending with a format that matplotlib writes, such as `.png`, `.pdf` or `.svg`.

    Raises:
        ValueError: the ending names no format.
    """
    target = Path(path)
    if target.suffix[1:] not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"path must end with a format such as .png, .pdf or .svg, got {target.name!r}")
    write_whole(target, lambda partial: figure.savefig(partial, format=target.suffix[1:], dpi=150))
