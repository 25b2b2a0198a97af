"""The multilayer perceptron under every conditional distribution."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


class SumLinear(nn.Module):
    """b + Σ_i W_i x_i, one matrix per input: the linear map of the concatenation [x_1, x_2, …], without building it.

    The inputs' batch shapes only need to broadcast. Nothing is expanded before it is multiplied, so a label that
    is enumerated along a new leading dimension costs K small products, not K copies of every other input.

    Args:
        in_dims: width of each input; None for an input that is not read.
        out_dim: width of the output.

    The weights start as one Glorot-uniform matrix of shape (out_dim, Σ in_dims), the biases at zero.
    """

    def __init__(self, in_dims: Sequence[int | None], out_dim: int) -> None:
        super().__init__()
        self.in_dims = tuple(in_dims)
        self.read = tuple(dim for dim in self.in_dims if dim is not None)
        if not self.read or any(not isinstance(dim, Integral) or dim < 1 for dim in (*self.read, out_dim)):
            raise ValueError(
                "in_dims and out_dim must be positive widths, at least one of them read, "
                f"got {in_dims!r} and {out_dim!r}"
            )
        self.weight = nn.Parameter(torch.empty(out_dim, sum(self.read)))
        self.bias = nn.Parameter(torch.zeros(out_dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, *inputs: Tensor | None) -> Tensor:
        """Maps inputs of shapes (..., in_dims[i]) to (..., out_dim)."""
        first, *others = self._check(inputs)
        if not others:
            return functional.linear(first, self.weight, self.bias)
        block, *blocks = self.weight.split(self.read, dim=1)
        terms = (functional.linear(x, w) for x, w in zip(others, blocks, strict=True))
        return sum(terms, functional.linear(first, block, self.bias))

    def _check(self, inputs: tuple[Tensor | None, ...]) -> list[Tensor]:
        if len(inputs) != len(self.in_dims):
            raise ValueError(f"inputs must be {len(self.in_dims)}, of widths {self.in_dims}, got {len(inputs)}")
        used = []
        for position, (x, dim) in enumerate(zip(inputs, self.in_dims, strict=True)):
            if dim is None:
                continue
            if x is None or x.shape[-1:] != (dim,):
                came = "nothing" if x is None else f"shape {tuple(x.shape)}"
                raise ValueError(f"input {position} of the network must have shape (..., {dim}), got {came}")
            used.append(x)
        return used


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of (..., D) over all leading dimensions.

    Where `given` (None at first) holds a mean and a variance, (D,) each, training normalises by these instead of those
    of the batch.
    """

    given: tuple[Tensor, Tensor] | None = None
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Normalises each column; a single row, which has no variance of its own, by the running statistics."""
        rows = x.flatten(0, -2)
        if self.training and self.given is not None:
            rows = self._by(*self.given, rows)
        elif self.training and len(rows) == 1:
            rows = self._by(self.running_mean, self.running_var, rows)
        else:
            rows = super().forward(rows)
        return rows.view_as(x)

    def _by(self, mean: Tensor, variance: Tensor, rows: Tensor) -> Tensor:
        """weight (rows − mean) / √(variance + ε) + bias.

        torch's `batch_norm` passes no gradient to given statistics, so the gradient passes through weight and bias.
        """
        fixed_mean, fixed_variance = mean.detach(), variance.detach()
        weight = self.weight * ((fixed_variance + self.eps) / (variance + self.eps)).sqrt()
        bias = self.bias + weight * (fixed_mean - mean) * (fixed_variance + self.eps).rsqrt()
        return functional.batch_norm(rows, fixed_mean, fixed_variance, weight, bias, eps=self.eps)

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the variance by which it normalises x: those of the columns, or the running ones of one row."""
        rows = x.flatten(0, -2)
        if len(rows) > 1:
            variance, mean = torch.var_mean(rows.to(self.running_mean), 0, correction=0)
            return mean, variance
        return self.running_mean, self.running_var


class MLP(nn.Module):
    """h_1 = f(b + Σ_i W_i x_i), h_{j+1} = f(V_j h_j + c_j), output U h + d: a perceptron of several inputs.

    Args:
        in_dims: width of each input; None for an input that is not read.
        out_dim: width of the output.
        hidden: width of each hidden layer; () for a linear map.
        activation: a name in `ACTIVATIONS`, or a callable that makes the module.
        batch_norm: normalise before each activation.

    Raises:
        ValueError: an unknown activation, `hidden` that is no sequence, no input that is read, or, when called, an
            input of another width.

    `autocast_dtype` (None at first) is the type in which the layers compute; the output has the input's type again.

    Example:
        >>> net = MLP((4, None, 3), 2, hidden=(8,))
        >>> net(torch.ones(5, 4), None, torch.ones(7, 1, 3)).shape
        torch.Size([7, 5, 2])
    """

    def __init__(
        self,
        in_dims: Sequence[int | None],
        out_dim: int,
        *,
        hidden: Sequence[int] = (500,),
        activation: str | Callable[[], nn.Module] = "softplus",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        make = _activation(activation)
        if not isinstance(hidden, Sequence) or isinstance(hidden, str):
            raise ValueError(f"hidden must be a sequence of widths, such as (500,), got {hidden!r}")
        widths = (*hidden, out_dim)
        self.first = SumLinear(in_dims, widths[0])
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [BatchNorm(width)] if batch_norm else []
            layers += [make(), SumLinear((width,), following)]
        self.rest = nn.Sequential(*layers)
        self.autocast_dtype: torch.dtype | None = None

    @property
    def last(self) -> SumLinear:
        """The output layer."""
        layer = self.rest[-1] if len(self.rest) else self.first
        assert isinstance(layer, SumLinear)  # for type checkers
        return layer

    def forward(self, *inputs: Tensor | None) -> Tensor:
        """Maps inputs of shapes (..., in_dims[i]), whose batch shapes broadcast, to (..., out_dim)."""
        if self.autocast_dtype is None:
            return self.rest(self.first(*inputs))
        with torch.autocast(self.first.weight.device.type, dtype=self.autocast_dtype):
            output = self.rest(self.first(*inputs))
        return output.to(self.first.weight.dtype)


def _activation(activation: str | Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    if callable(activation):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)} or a callable, got {activation!r}")
    return ACTIVATIONS[activation]
