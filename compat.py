"""Repairs around other packages, each with its reason; to be deleted when the reason is gone."""

import warnings
from functools import cache

import torch


def mend_torchvision() -> None:
    """Lets torchvision be imported beside a PyTorch that it was not built for.

    A CUDA build of torchvision beside a CPU-only PyTorch cannot load its compiled operators, and then fails to import
    ("operator torchvision::nms does not exist", pytorch/vision issue 9085). Lightning fails with it, since torchmetrics
    imports torchvision wherever it is installed. Data sets and transforms need none of these operators, so they are
    declared without an implementation. Where torchvision works or is not installed, nothing is done. Importing it also
    imports sympy, which adds a warning filter, so the filters are restored afterwards.
    """
    try:
        with warnings.catch_warnings():
            import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        _declare_operators()


@cache
def _declare_operators() -> torch.library.Library:
    """The library with the declared operators; it is cached because they vanish when it is garbage-collected."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
