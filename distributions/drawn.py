"""Distributions that keep the log-density of their last draw, where computing it from the value alone is costly."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class PushedForward(ABC):
    """A distribution of f(u) that can carry any u through f."""

    @abstractmethod
    def push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """f(u), (..., L), and log |det ∂f / ∂u|, (...)."""


class ScoredAsDrawn(ABC):
    """`rsample` keeps its draw and the draw's log-density, which `log_prob` of that very tensor returns.

    A draw can therefore be scored even where the density of any other value is costly or cannot be computed. A draw
    that was made without gradients counts as any other value once gradients are on. Among a class's bases, this one
    comes before `TorchDistribution`.
    """

    has_rsample = True
    _drawn: tuple[Tensor, Tensor, bool] | None = None  # the draw, its log-density, and whether gradients were on

    @abstractmethod
    def draw(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """A draw that gradients pass through, (*sample_shape, ..., L), and its log-density, in nats."""

    @abstractmethod
    def score(self, value: Tensor) -> Tensor:
        """The log-density, in nats, of a value that is not the last draw."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 # as torch has it
        """A draw that gradients pass through."""
        value, log_density = self.draw(torch.Size(sample_shape))
        self._drawn = value, log_density, torch.is_grad_enabled()
        return value

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 # as torch has it
        """A draw without gradients."""
        with torch.no_grad():
            return self.draw(torch.Size(sample_shape))[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density, in nats."""
        if self._drawn is not None and value is self._drawn[0] and self._drawn[2] >= torch.is_grad_enabled():
            return self._drawn[1]
        return self.score(value)
