"""The precision in which networks compute; densities and bounds are always in 32 bits."""

from collections.abc import Mapping
from typing import Any

import torch

PRECISIONS = ("32", "bf16", "auto")


def network_precision(precision: str, device: str | torch.device = "auto") -> str:
    """The precision that was asked for, "bf16" or "32", or the one that "auto" means on this device.

    "auto" is bfloat16 where the device multiplies it in hardware. Elsewhere PyTorch emulates it, and a step takes
    several times as long as in 32 bits. A device of "auto" is a GPU where there is one.
    """
    if precision != "auto":
        return precision
    fast = {"cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False), "cpu": multiplies_bf16}
    kind = computing_device(device).type
    return "bf16" if kind in fast and fast[kind]() else "32"


def computing_device(device: str | torch.device = "auto") -> torch.device:
    """The device; "auto" is a GPU where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(device)


def multiplies_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware, with instructions of AVX-512, AMX or Arm."""
    told: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases do not say
    return any(told.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
