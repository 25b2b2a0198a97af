"""Pyro's errors, told in terms of what a user gave."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from ...contract import PAGE


@contextmanager
def explained(x: Tensor, kind: str) -> Iterator[None]:
    """Pyro's errors on sites that do not match, and on parameters that are NaN, become errors on what was given."""
    try:
        yield
    except UserWarning as warning:
        if "vars in" not in str(warning):
            raise
        raise ValueError(
            f"model and guide do not have the same latent sites; {PAGE} says which they need: {warning}"
        ) from warning
    except ValueError as error:
        if "cannot be differentiated" in str(error):
            raise ValueError("no parameter requires a gradient; evaluate under torch.no_grad()") from error
        what = str(error).split("\nTrace Shapes:")[0]  # the shapes stay in the error that this one comes from
        if "to satisfy the constraint" not in what:
            raise ValueError(what) from error
        scale = f"x lies between {x.min().item():g} and {x.max().item():g}; bring its columns to a scale of about 1"
        raise FloatingPointError(
            f"a network's output is NaN in the {kind} bound: its weights are, or x is too large ({scale})"
        ) from error
