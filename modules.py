"""Modules as others use them: in evaluation mode, and on the device and in the type that their parameters have."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(*things: object) -> Iterator[None]:
    """Modules, or those that given methods belong to, in evaluation mode and without gradients; restored afterwards."""
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
    """The module that a method, or a method with some arguments given, belongs to; anything else is its own."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    return getattr(thing, "__self__", thing)


def module_tensor(thing: object) -> Tensor:
    """The first parameter or buffer of floats of a module, or a method's, for its device and type; else a default."""
    module = owner_of(thing)
    tensors = (*module.parameters(), *module.buffers()) if isinstance(module, nn.Module) else ()
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
