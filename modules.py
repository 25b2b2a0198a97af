"""Helpers for modules: evaluation mode, and the device and the type of their parameters."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(*things: object) -> Iterator[None]:
    """Puts modules in evaluation mode, without gradients, and restores their modes afterwards.

    A method stands for the module that it belongs to.
    """
    owners = [owner_of(thing) for thing in things]
    parts = [part for owner in owners if isinstance(owner, nn.Module) for part in owner.modules()]
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def owner_of(thing: object) -> object:
    """The module that a method, or a `functools.partial` of one, belongs to; anything else is returned as it is."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    return getattr(thing, "__self__", thing)


def module_tensor(thing: object) -> Tensor:
    """The first floating parameter or buffer of a module, or of a method's module: it has the module's device and type.

    An empty tensor of the default device and type where there is none.
    """
    module = owner_of(thing)
    tensors = (*module.parameters(), *module.buffers()) if isinstance(module, nn.Module) else ()
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
