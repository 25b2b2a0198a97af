"""The same noise for every row, so that the prediction of a row does not depend on the rows beside it."""

from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class SameNoise(TorchFunctionMode):
    """Draws the same standard normal numbers for every row, so that no row's result depends on the others.

    Rows are the last dimension but one of every draw in this library.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replaces the calls of `Tensor.normal_`, through which PyTorch makes all normal draws."""
        if func is not Tensor.normal_ or args[0].ndim < 2:
            return func(*args, **(kwargs or {}))
        tensor, *others = args
        noise = func(tensor.new_empty((*tensor.shape[:-2], 1, tensor.shape[-1])), *others, **(kwargs or {}))
        return tensor.copy_(noise.expand_as(tensor))
